// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import io.tidemark.testkit.Tool;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;

/// The checkout under test.
final class Root {
  /// The variable that keeps the launcher from building.
  static final String NO_BUILD = "TIDEMARK_NO_BUILD";

  /// How long a command may take on a machine that is busy with other tests.
  private static final Duration LIMIT = Duration.ofMinutes(3);

  private Root() {}

  /// Its folder: `tidemark.root`, or the nearest folder upwards that holds the launcher.
  static Path path() {
    String named = System.getProperty("tidemark.root");
    Path path = Path.of(named == null ? "" : named).toAbsolutePath();
    while (!Files.isRegularFile(path.resolve("tidemark"))) {
      Path parent = path.getParent();
      if (parent == null) {
        throw new AssertionError("no launcher above " + Path.of("").toAbsolutePath());
      }
      path = parent;
    }
    return path;
  }

  /// The launcher. Run it with [#NO_BUILD]: a test runs inside a build.
  static Path launcher() {
    return path().resolve("tidemark");
  }

  /// The `tidemark` command of this checkout.
  static Tool tidemark() {
    return Tool.at(launcher()).with(NO_BUILD, "1").timeout(LIMIT);
  }
}
