// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;

class ShortestTest {
  @Test
  void reportsTheShortestBeginningThatFails() {
    assertThatThrownBy(() ->
            Shortest.run(
                100,
                steps -> {
                  if (steps >= 17) {
                    throw new IllegalStateException("broken after " + steps);
                  }
                }))
        .isInstanceOf(AssertionError.class)
        .hasMessage("fails with 17 of 100 steps")
        .hasRootCauseMessage("broken after 17");
  }

  @Test
  void runsAGoodCaseOnce() throws Exception {
    var runs = new int[1];
    Shortest.run(100, _ -> runs[0]++);
    assertThat(runs[0]).isEqualTo(1);
  }
}
