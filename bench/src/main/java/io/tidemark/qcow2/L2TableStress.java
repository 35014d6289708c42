// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.nio.ByteBuffer;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.JJ_Result;

/// A reader of an extended L2 entry sees both words of one moment.
@JCStressTest
@Outcome(id = "0, 0", expect = Expect.ACCEPTABLE, desc = "before")
@Outcome(id = "1, 10", expect = Expect.ACCEPTABLE, desc = "between")
@Outcome(id = "2, 20", expect = Expect.ACCEPTABLE, desc = "after")
@Outcome(expect = Expect.FORBIDDEN, desc = "words of two moments")
@State
public class L2TableStress {
  private final L2Table table = new L2Table(0, 0, ByteBuffer.allocate(64), true, 0);

  @Actor
  public void change() {
    table.set(1, 1, 10);
    table.set(1, 2, 20);
  }

  @Actor
  public void read(JJ_Result seen) {
    L2Slot slot = table.slot(1);
    seen.r1 = slot.entry();
    seen.r2 = slot.bitmap();
  }
}
