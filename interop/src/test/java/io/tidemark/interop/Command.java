// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/// Runs a program to its end and keeps what it said.
///
/// Its output goes to files, so that a program that says much never waits for us; a program that
/// does not end within the limit is killed and fails the test.
final class Command {
  /// How long any program of a test may take.
  static final Duration LIMIT = Duration.ofMinutes(3);

  /// @param code the exit code
  record Result(List<String> command, int code, String out, String err) {
    /// Fails the test unless the program ended well.
    Result ok() {
      assertThat(code).as("%s%nstdout: %s%nstderr: %s", command, out, err).isZero();
      return this;
    }
  }

  private final List<String> words;
  private final Map<String, String> environment = new HashMap<>();
  private Path folder = Path.of("").toAbsolutePath();
  private Duration limit = LIMIT;

  private Command(List<String> words) {
    this.words = words;
  }

  static Command of(Object... words) {
    List<String> list = new ArrayList<>();
    for (Object word : words) {
      list.add(word.toString());
    }
    return new Command(list);
  }

  /// The `tidemark` command of this checkout.
  static Command tidemark(Object... words) {
    List<String> list = new ArrayList<>(List.of(Root.launcher().toString()));
    for (Object word : words) {
      list.add(word.toString());
    }
    return new Command(list).with("TIDEMARK_NO_BUILD", "1");
  }

  Command in(Path folder) {
    this.folder = folder;
    return this;
  }

  Command with(String name, String value) {
    environment.put(name, value);
    return this;
  }

  Command within(Duration limit) {
    this.limit = limit;
    return this;
  }

  /// Runs it and waits for its end.
  Result run() {
    try {
      Path out = Files.createTempFile("tidemark-out", ".txt");
      Path err = Files.createTempFile("tidemark-err", ".txt");
      try {
        return run(out, err);
      } finally {
        Files.deleteIfExists(out);
        Files.deleteIfExists(err);
      }
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  /// Runs it and fails the test unless it ends well.
  Result ok() {
    return run().ok();
  }

  private Result run(Path out, Path err) throws IOException {
    ProcessBuilder builder =
        new ProcessBuilder(words)
            .directory(folder.toFile())
            .redirectOutput(out.toFile())
            .redirectError(err.toFile());
    builder.environment().putAll(environment);
    builder.environment().put("LC_ALL", "C.UTF-8");
    Process process = builder.start();
    process.getOutputStream().close();
    boolean ended = false;
    try {
      ended = process.waitFor(limit.toSeconds(), TimeUnit.SECONDS);
    } catch (InterruptedException stop) {
      Thread.currentThread().interrupt();
    } finally {
      if (!ended) {
        process.destroyForcibly();
      }
    }
    if (!ended) {
      throw new AssertionError(
          words + " did not end within " + limit + ": " + Files.readString(err));
    }
    return new Result(words, process.exitValue(), Files.readString(out), Files.readString(err));
  }
}
