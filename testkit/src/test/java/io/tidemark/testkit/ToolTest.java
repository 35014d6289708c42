// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.time.Duration;
import org.junit.jupiter.api.Test;

class ToolTest {
  @Test
  void runsAProgramAndCatchesBothStreams() {
    Tool.Result result =
        Tool.require("sh").with("WORD", "hello").run("-c", "echo $WORD; echo oops >&2; exit 3");
    assertThat(result).isEqualTo(new Tool.Result(3, "hello\n", "oops\n"));
  }

  @Test
  void killsAProgramThatDoesNotEnd() {
    assertThatThrownBy(() -> Tool.require("sleep").timeout(Duration.ofMillis(100)).run("1000"))
        .isInstanceOf(AssertionError.class)
        .hasMessageContaining("did not end");
  }

  @Test
  void aFailingRunIsNotOk() {
    assertThatThrownBy(() -> Tool.require("sh").ok("-c", "echo reason; exit 1"))
        .isInstanceOf(AssertionError.class)
        .hasMessageContaining("reason");
  }

  @Test
  void doesNotFindWhatIsNotThere() {
    assertThat(Tool.find("no-such-program-here")).isEmpty();
  }
}
