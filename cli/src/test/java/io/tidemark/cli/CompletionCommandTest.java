// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.PrintWriter;
import java.io.StringWriter;
import org.junit.jupiter.api.Test;

class CompletionCommandTest {
  @Test
  void completesEveryCommandAndItsOptions() {
    StringWriter out = new StringWriter();
    int code =
        Tidemark.run(
            new PrintWriter(out), new PrintWriter(new StringWriter()), "completion", "bash");
    assertThat(code).isZero();
    assertThat(out.toString())
        .contains("complete -F _complete_tidemark", "rebase", "--target-is-zero", "daemon");
  }
}
