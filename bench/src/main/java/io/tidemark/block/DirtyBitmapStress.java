// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.ZZZ_Result;

/// No bit is lost when others of its word are set and cleared at the same time.
@JCStressTest
@Outcome(id = "true, true, false", expect = Expect.ACCEPTABLE, desc = "two set, one cleared")
@Outcome(expect = Expect.FORBIDDEN, desc = "a change was lost")
@State
public class DirtyBitmapStress {
  private final DirtyBitmap bitmap = new DirtyBitmap("b", 64 * 512, 512);

  public DirtyBitmapStress() {
    bitmap.set(2 * 512, 512);
  }

  @Actor
  public void first() {
    bitmap.set(0, 1);
  }

  @Actor
  public void second() {
    bitmap.clear(2 * 512, 512);
    bitmap.set(512, 512);
  }

  @Arbiter
  public void look(ZZZ_Result seen) {
    seen.r1 = bitmap.isDirty(0);
    seen.r2 = bitmap.isDirty(512);
    seen.r3 = bitmap.isDirty(1024);
  }
}
