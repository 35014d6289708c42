// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.FileTime;
import java.time.Instant;
import java.util.Objects;
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

  /// The JVM would run the classes of old jars from a cache that does not fit.
  @Test
  void usesTheStartupCacheForTheJarsItWasMadeFromAlone() throws IOException {
    Path launcher = checkoutWithJars();
    assertThat(trace(launcher)).contains("-XX:AOTCache=");

    Path jar = folder.resolve("copy/cli/target/tidemark.jar");
    Files.setLastModifiedTime(jar, FileTime.from(Instant.parse("2026-01-01T00:00:00Z")));
    assertThat(trace(launcher)).doesNotContain("-XX:AOTCache=");
  }

  @Test
  void runsWithACacheThatIsDamagedOrGone() throws IOException {
    Path launcher = checkoutWithJars();
    Path startup = folder.resolve("copy/cli/target/startup");
    try (var caches = Files.newDirectoryStream(startup, "*.aot")) {
      for (Path cache : caches) {
        Files.writeString(cache, "damaged");
      }
    }
    assertRuns(launcher);
    try (var caches = Files.newDirectoryStream(startup, "*.aot")) {
      for (Path cache : caches) {
        Files.delete(cache);
      }
    }
    assertRuns(launcher);
  }

  private static void assertRuns(Path launcher) {
    Tool.Result result = Tool.at(launcher).with(Root.NO_BUILD, "1").ok("--version");
    assertThat(result.out()).startsWith("tidemark ");
    assertThat(result.err()).isEmpty();
  }

  private static String trace(Path launcher) {
    return Tool.require("sh").with(Root.NO_BUILD, "1").ok("-x", launcher, "--version").err();
  }

  /// What the launcher needs of the checkout, with its times.
  private Path checkoutWithJars() throws IOException {
    Path from = Root.path();
    Path to = folder.resolve("copy");
    copy(from, to, "tidemark");
    copy(from, to, "scripts/find-jdk");
    copy(from, to, "cli/target/tidemark.jar");
    for (String inside : new String[] {"cli/target/lib", "cli/target/startup"}) {
      try (var files = Files.newDirectoryStream(from.resolve(inside))) {
        for (Path file : files) {
          copy(from, to, from.relativize(file).toString());
        }
      }
    }
    return to.resolve("tidemark");
  }

  private static void copy(Path from, Path to, String name) throws IOException {
    Path target = to.resolve(name);
    Files.createDirectories(Objects.requireNonNull(target.getParent()));
    Files.copy(from.resolve(name), target, StandardCopyOption.COPY_ATTRIBUTES);
  }
}
