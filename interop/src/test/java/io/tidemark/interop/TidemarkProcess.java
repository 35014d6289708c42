// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/// A `tidemark` that serves: a daemon or an export, as a process of its own, with folders of its
/// own below one that the test gives.
///
/// The launcher replaces itself with the JVM, so the process id is the JVM's: [#kill] is a real
/// kill -9 of the server, and nothing else is ever signalled. Lines of stdout and stderr are
/// collected in `server.log` below the test's folder, over all restarts.
final class TidemarkProcess implements AutoCloseable {
  /// How long a server may take until it says `ready`, and to end after SIGTERM.
  static final Duration LIMIT = Duration.ofSeconds(60);

  private final Path folder;
  private final Path log;
  private final List<String> words;
  private @Nullable Process process; // null between a kill or stop and the next start

  private TidemarkProcess(Path folder, List<String> words) {
    this.folder = folder;
    this.log = folder.resolve("server.log");
    this.words = List.copyOf(words);
  }

  /// Starts a daemon with state and run folder below `folder`, and waits until it is ready.
  static TidemarkProcess daemon(Path folder, String... options) throws IOException {
    List<String> words = new ArrayList<>(List.of("daemon"));
    words.addAll(List.of("--state-dir", folder.resolve("state").toString()));
    words.addAll(List.of("--run-dir", folder.resolve("run").toString()));
    words.addAll(List.of(options));
    return new TidemarkProcess(folder, words).start();
  }

  /// Starts `tidemark export serve` with these options, and waits until it is ready.
  static TidemarkProcess export(Path folder, String... options) throws IOException {
    List<String> words = new ArrayList<>(List.of("export", "serve"));
    words.addAll(List.of(options));
    return new TidemarkProcess(folder, words).start();
  }

  Path stateDir() {
    return folder.resolve("state");
  }

  Path runDir() {
    return folder.resolve("run");
  }

  /// Where a domain's disks are served.
  Path guestSocket(String domain) {
    return runDir().resolve("guest").resolve(domain + ".sock");
  }

  /// What a libvirt client connects to.
  String uri() {
    return "qemu+unix:///system?socket=" + runDir().resolve("libvirt-sock");
  }

  String readOnlyUri() {
    return "qemu+unix:///system?socket=" + runDir().resolve("libvirt-sock-ro");
  }

  /// Everything it has said so far.
  String log() throws IOException {
    return Files.exists(log) ? Files.readString(log) : "";
  }

  long pid() {
    return running().pid();
  }

  /// Starts it (again) and waits for the line that begins with `ready`.
  TidemarkProcess start() throws IOException {
    if (process != null) {
      throw new IllegalStateException("already running");
    }
    Files.createDirectories(folder);
    long from = Files.exists(log) ? Files.size(log) : 0;
    List<String> command = new ArrayList<>(List.of(Root.launcher().toString()));
    command.addAll(words);
    ProcessBuilder builder =
        new ProcessBuilder(command)
            .redirectErrorStream(true)
            .redirectOutput(ProcessBuilder.Redirect.appendTo(log.toFile()));
    builder.environment().put(Root.NO_BUILD, "1");
    builder.environment().put("LC_ALL", "C.UTF-8");
    Process started = builder.start();
    started.getOutputStream().close();
    process = started;
    long deadline = System.nanoTime() + LIMIT.toNanos();
    while (!readySince(from)) {
      if (!started.isAlive() || System.nanoTime() > deadline) {
        kill();
        throw new AssertionError(words + " did not become ready: " + log());
      }
      pause(started);
    }
    return this;
  }

  /// Kill -9, and waits until it is gone.
  void kill() {
    Process victim = running();
    process = null;
    victim.destroyForcibly();
    await(victim);
  }

  /// SIGTERM, and waits for the clean end.
  ///
  /// @return the exit code
  int stop() throws IOException {
    Process ending = running();
    process = null;
    ending.destroy();
    if (!await(ending)) {
      ending.destroyForcibly();
      throw new AssertionError(words + " did not end on SIGTERM: " + log());
    }
    return ending.exitValue();
  }

  boolean alive() {
    return process != null && process.isAlive();
  }

  /// Ends it, cleanly where it still runs.
  @Override
  public void close() throws IOException {
    if (alive()) {
      stop();
    }
  }

  private Process running() {
    if (process == null) {
      throw new IllegalStateException("not running");
    }
    return process;
  }

  private boolean readySince(long from) throws IOException {
    byte[] all = Files.readAllBytes(log);
    String said =
        new String(
            all, (int) from, all.length - (int) from, java.nio.charset.StandardCharsets.UTF_8);
    return said.lines().anyMatch(line -> line.equals("ready") || line.startsWith("ready "));
  }

  /// Waits a moment, or less when the process ends.
  private static void pause(Process process) {
    try {
      process.waitFor(20, TimeUnit.MILLISECONDS);
    } catch (InterruptedException stop) {
      Thread.currentThread().interrupt();
      throw new AssertionError("interrupted", stop);
    }
  }

  private static boolean await(Process process) {
    try {
      return process.waitFor(LIMIT.toSeconds(), TimeUnit.SECONDS);
    } catch (InterruptedException stop) {
      Thread.currentThread().interrupt();
      throw new AssertionError("interrupted", stop);
    }
  }
}
