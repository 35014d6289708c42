// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import java.nio.file.Files;
import java.nio.file.Path;

/// The checkout under test.
final class Root {
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

  /// The launcher. Run it with `TIDEMARK_NO_BUILD=1`: a test runs inside a build.
  static Path launcher() {
    return path().resolve("tidemark");
  }
}
