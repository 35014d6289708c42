// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.II_Result;

/// Holders of overlapping ranges come one after the other and see what the one before did; the wide
/// range overlaps both of the others.
@JCStressTest
@Outcome(id = "2, 2", expect = Expect.ACCEPTABLE, desc = "one after the other")
@Outcome(expect = Expect.FORBIDDEN, desc = "two at a time")
@State
public class RangeLockStress {
  private final RangeLock ranges = new RangeLock();
  private int left; // of the first range, plain
  private int right;

  @Actor
  public void narrow() {
    try (var _ = ranges.lock(0, 4096)) {
      left++;
    }
    try (var _ = ranges.lock(65536, 4096)) {
      right++;
    }
  }

  @Actor
  public void wide() {
    try (var _ = ranges.lock(100, 1 << 20)) {
      left++;
      right++;
    }
  }


  @Arbiter
  public void look(II_Result seen) {
    seen.r1 = left;
    seen.r2 = right;
  }
}
