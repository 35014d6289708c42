// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@Tag("interop")
class LauncherIT {
  @TempDir Path folder;

  @Test
  void runsFromAnyFolderThroughASymbolicLinkWithBlanks() throws IOException {
    Path link = Files.createSymbolicLink(folder.resolve("tide mark"), Root.launcher());
    Command.Result result =
        Command.of(link, "--version").in(folder).with("TIDEMARK_NO_BUILD", "1").ok();
    assertThat(result.out()).startsWith("tidemark ");
    assertThat(result.err()).isEmpty();
  }

  @Test
  void saysInOneLineThatNoJdkIsThere() throws IOException {
    Path checkout = Files.createDirectories(folder.resolve("checkout/scripts"));
    Files.copy(Root.launcher(), folder.resolve("checkout/tidemark"));
    Path finder = checkout.resolve("find-jdk");
    Files.writeString(
        finder,
        Files.readString(Root.path().resolve("scripts/find-jdk")).replace("/usr/lib/jvm/*", ""));
    assertThat(finder.toFile().setExecutable(true)).isTrue();
    Command.Result result =
        Command.of(
                "env",
                "-u",
                "JAVA_HOME",
                "-u",
                "TIDEMARK_JAVA_HOME",
                "sh",
                folder.resolve("checkout/tidemark"),
                "--version")
            .run();
    assertThat(result.code()).isEqualTo(1);
    assertThat(result.err().lines())
        .singleElement()
        .asString()
        .startsWith("tidemark: no JDK 25 found");
  }

  @Test
  void exitCodeOfTheCommandIsThatOfTheLauncher() {
    assertThat(Command.tidemark("frobnicate").run().code()).isEqualTo(64);
    assertThat(Command.tidemark("image", "frobnicate").run().code()).isEqualTo(1);
  }
}
