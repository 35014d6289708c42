// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.Z_Result;

/// A cluster that a request found in the mapping is not handed out while the request runs, however
/// often it is asked for.
@JCStressTest
@Outcome(id = "false", expect = Expect.ACCEPTABLE, desc = "not used, or not handed out meanwhile")
@Outcome(expect = Expect.FORBIDDEN, desc = "used for something else under a request")
@State
public class InFlightStress {
  private final InFlight<String> inFlight = new InFlight<>();
  private volatile boolean mapped = true;
  private volatile boolean reused;

  @Actor
  public void request(Z_Result wrong) {
    inFlight.exit(inFlight.enter()); // one of the epoch before, perhaps
    int ticket = inFlight.enter();
    boolean found = mapped;
    wrong.r1 = found && reused;
    inFlight.exit(ticket);
  }

  @Actor
  public void free() {
    mapped = false;
    inFlight.retire("cluster");
    for (int i = 0; i < 3; i++) {
      if (!inFlight.collect().isEmpty()) {
        reused = true;
      }
    }
  }
}
