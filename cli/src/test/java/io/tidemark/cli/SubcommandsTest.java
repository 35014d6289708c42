// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.Map;
import java.util.Objects;
import org.junit.jupiter.api.Test;
import picocli.CommandLine;

class SubcommandsTest {
  @Test
  void makesOnlyWhatTheWordsName() {
    CommandLine root = Tidemark.commandFor("image", "info", "daemon");
    assertThat(root.getSubcommands()).containsOnlyKeys("image");
    assertThat(beneath(root, "image")).containsOnlyKeys("info");
  }

  @Test
  void makesAllBeneathTheLastWordThatNamesOne() {
    assertThat(Tidemark.commandFor("image", "--help").getSubcommands()).containsOnlyKeys("image");
    assertThat(beneath(Tidemark.commandFor("image", "--help"), "image"))
        .containsKeys("check", "info");
    assertThat(beneath(Tidemark.commandFor("imago", "info"), "image"))
        .containsKeys("check", "info");
  }

  @Test
  void namesThemAsTheyNameThemselves() {
    assertNames(Tidemark.commandFor());
  }

  private static Map<String, CommandLine> beneath(CommandLine root, String name) {
    return Objects.requireNonNull(root.getSubcommands().get(name)).getSubcommands();
  }

  private static void assertNames(CommandLine parent) {
    parent
        .getSubcommands()
        .forEach((name, command) -> {
          assertThat(command.getCommandName()).isEqualTo(name);
          assertNames(command);
        });
  }
}
