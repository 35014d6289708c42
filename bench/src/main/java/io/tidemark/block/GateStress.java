// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.II_Result;

/// Who is inside a gate sees nothing of what is changed while it is shut, or all of it.
@JCStressTest
@Outcome(id = "0, 0", expect = Expect.ACCEPTABLE, desc = "before")
@Outcome(id = "1, 1", expect = Expect.ACCEPTABLE, desc = "after")
@Outcome(expect = Expect.FORBIDDEN, desc = "in the middle")
@State
public class GateStress {
  private final Gate gate = new Gate();
  private int one; // plain
  private int other;

  @Actor
  public void request(II_Result seen) {
    int ticket = gate.enter();
    seen.r1 = one;
    seen.r2 = other;
    gate.leave(ticket);
  }

  @Actor
  public void change() {
    gate.shut();
    one++;
    other++;
    gate.open();
  }
}
