// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
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
    Tool.Result result = Tool.at(link).in(folder).with(Root.NO_BUILD, "1").ok("--version");
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
    Tool.Result result =
        Tool.require("env")
            .run(
                "-u",
                "JAVA_HOME",
                "-u",
                "TIDEMARK_JAVA_HOME",
                "sh",
                folder.resolve("checkout/tidemark"),
                "--version");
    assertThat(result.exit()).isEqualTo(1);
    assertThat(result.err().lines())
        .singleElement()
        .asString()
        .startsWith("tidemark: no JDK 25 found");
  }

  @Test
  void exitCodeOfTheCommandIsThatOfTheLauncher() {
    assertThat(Root.tidemark().run("frobnicate").exit()).isEqualTo(64);
    assertThat(Root.tidemark().run("image", "frobnicate").exit()).isEqualTo(1);
  }
}
