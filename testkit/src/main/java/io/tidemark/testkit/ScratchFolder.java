// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.stream.Stream;

/// A folder on a real disk for files too big for `@TempDir`, whose place may be memory. Under the
/// folder that `TIDEMARK_SCRATCH` names, else `/var/tmp`. Closing removes it with all in it.
public final class ScratchFolder implements AutoCloseable {
  private final Path path;

  public ScratchFolder() {
    String place = System.getenv("TIDEMARK_SCRATCH");
    try {
      path = Files.createTempDirectory(Path.of(place == null ? "/var/tmp" : place), "tidemark-");
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  public Path path() {
    return path;
  }

  public Path resolve(String name) {
    return path.resolve(name);
  }

  @Override
  public void close() {
    try (Stream<Path> all = Files.walk(path)) {
      all.sorted(Comparator.reverseOrder()).forEach(p -> p.toFile().delete());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
