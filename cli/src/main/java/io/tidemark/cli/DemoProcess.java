// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/// Another `tidemark` beside this one, from the same jar and JDK; its output goes to a log file.
final class DemoProcess implements AutoCloseable {
  private static final Duration TO_START = Duration.ofSeconds(30);
  private static final Duration TO_END = Duration.ofSeconds(30);

  private final String what;
  private final Process process;
  private final Path log;

  private DemoProcess(String what, Process process, Path log) {
    this.what = what;
    this.process = process;
    this.log = log;
  }

  static DemoProcess start(String what, Path log, String... words) throws IOException {
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseG1GC",
                "-XX:-UsePerfData",
                "--enable-native-access=ALL-UNNAMED",
                "-cp",
                System.getProperty("java.class.path"),
                Tidemark.class.getName()));
    command.addAll(List.of(words));
    var process =
        new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log.toFile()).start();
    return new DemoProcess(what, process, log);
  }

  /// Waits for the line that says it serves.
  void awaitReady() throws IOException, CommandException {
    long end = System.nanoTime() + TO_START.toNanos();
    while (Files.readString(log).lines().noneMatch(line -> line.startsWith("ready"))) {
      if (waitFor(Duration.ofMillis(10)) || System.nanoTime() > end) {
        throw new CommandException(
            "the " + what + " did not start: " + Files.readString(log).strip());
      }
    }
  }

  boolean alive() {
    return process.isAlive();
  }

  String log() throws IOException {
    return Files.readString(log).strip();
  }

  /// Ends its input, which a guest takes for its end, and waits.
  ///
  /// @return whether it ended well
  boolean finish() throws IOException {
    process.getOutputStream().close();
    return waitFor(TO_END) && process.exitValue() == 0;
  }

  /// SIGTERM, and kills it when it does not obey.
  @Override
  public void close() {
    process.destroy();
    if (!waitFor(TO_END)) {
      process.destroyForcibly();
    }
  }

  private boolean waitFor(Duration time) {
    try {
      return process.waitFor(time.toNanos(), TimeUnit.NANOSECONDS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return !process.isAlive();
    }
  }
}
