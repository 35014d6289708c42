// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.io.Writer;
import org.junit.jupiter.api.Test;

class TidemarkTest {
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  private int run(String... args) {
    return Tidemark.run(new PrintWriter(out), new PrintWriter(err), args);
  }

  @Test
  void versionComesFromTheBuild() {
    assertThat(run("--version")).isEqualTo(ExitStatus.DONE.code());
    assertThat(out.toString()).matches("tidemark \\d+\\.\\d+\\.\\d+(-SNAPSHOT)?\n");
  }

  @Test
  void helpListsTheCommands() {
    assertThat(run("--help")).isEqualTo(ExitStatus.DONE.code());
    assertThat(out.toString()).contains("Usage: tidemark").contains("  image  ");
  }

  @Test
  void unknownCommandIsAUsageErrorOnStderr() {
    assertThat(run("frobnicate")).isEqualTo(ExitStatus.USAGE.code());
    assertThat(out.toString()).isEmpty();
    assertThat(err.toString())
        .isEqualTo(
            """
            tidemark: unmatched argument at index 0: 'frobnicate'
            Try 'tidemark --help' for more information.
            """);
  }

  @Test
  void noCommandIsAUsageError() {
    assertThat(run()).isEqualTo(ExitStatus.USAGE.code());
    assertThat(err.toString()).startsWith("tidemark: no command given\n");
  }

  @Test
  void usageErrorsOfImageHaveQemuImgsCode() {
    assertThat(run("image", "frobnicate")).isEqualTo(1);
    assertThat(run("image")).isEqualTo(1);
  }

  @Test
  void answerThatCannotBeWrittenIsAFailure() {
    Writer full =
        new Writer() {
          @Override
          public void write(char[] text, int offset, int length) throws IOException {
            throw new IOException("no space left");
          }

          @Override
          public void flush() {}

          @Override
          public void close() {}
        };
    int code = Tidemark.run(new PrintWriter(full), new PrintWriter(err), "--version");
    assertThat(code).isEqualTo(ExitStatus.FAILED.code());
    assertThat(err.toString()).isEqualTo("tidemark: standard output: cannot be written\n");
  }

  @Test
  void argumentThatBeginsWithAnAtSignIsAName() {
    assertThat(run("image", "info", "-f", "raw", "@missing")).isEqualTo(1);
    assertThat(err.toString()).isEqualTo("tidemark: @missing: no such file\n");
  }
}
