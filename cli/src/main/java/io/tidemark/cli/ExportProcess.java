// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.HostAccess;
import io.tidemark.block.ServedNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;

/// `--fork`, `--pid-file` and the options of qemu-nbd that change nothing here.
final class ExportProcess {
  /// Set for the server that `--fork` starts.
  private static final String FORKED = "tidemark.forked";

  boolean fork;

  private @Nullable Path pidFile; // null: none

  private String cache = "writeback";

  private String aio = "io_uring";

  private boolean wrotePid;

  void declare(DeclaredCommand command) {
    command.flag(
        "Goes on in the background, and returns once clients can connect.",
        v -> fork = v,
        "--fork");
    command.option(
        Path.class,
        "PATH",
        "Writes the server's process id there, and removes the file at the end.",
        v -> pidFile = v,
        "--pid-file");
    command.flag("Accepted as by qemu-nbd.", _ -> {}, "-v", "--verbose");
    command.option(
        String.class,
        "MODE",
        "writeback (the default): a client's FLUSH and FUA reach the disk; writethrough: every"
            + " change does before it is answered; unsafe: only the end does. none and directsync:"
            + " writeback and writethrough, past the page cache (O_DIRECT).",
        v -> cache = v,
        "--cache");
    command.option(
        String.class,
        "MODE",
        "With --cache none or directsync, io_uring (the default; native is the same): a client's"
            + " requests are at the disk together; threads: one after the other. By the page cache"
            + " it makes no difference.",
        v -> aio = v,
        "--aio");
  }

  /// Tells whoever waits that clients can connect.
  void ready(PrintWriter out, String uri) throws IOException {
    if (pidFile != null) {
      Files.writeString(pidFile, ProcessHandle.current().pid() + "\n");
      wrotePid = true;
    }
    out.println("ready " + uri);
    out.flush();
  }

  /// The server ends.
  void gone() throws IOException {
    if (wrotePid && pidFile != null) {
      Files.deleteIfExists(pidFile);
    }
  }

  /// Starts the same command again without `--fork`, waits until it serves, and leaves it behind.
  ///
  /// A JVM cannot fork; so the server is a new process in a session of its own. It keeps the
  /// standard error of this one until it serves, as qemu-nbd's does.
  int fork(CommandLine command) throws IOException, InterruptedException, CommandException {
    ProcessHandle.Info self = ProcessHandle.current().info();
    if (System.getProperty(FORKED) != null || self.command().isEmpty()) {
      throw new CommandException("--fork: cannot start another process like this one");
    }
    var words = new ArrayList<String>();
    words.add("setsid");
    words.add(self.command().get());
    words.add("-D" + FORKED + "=true");
    for (String word : self.arguments().orElse(new String[0])) {
      if (!word.equals("--fork")) {
        words.add(word);
      }
    }
    Process server =
        new ProcessBuilder(words)
            .redirectInput(Path.of("/dev/null").toFile())
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    try (BufferedReader lines = server.inputReader()) {
      String line = lines.readLine();
      if (line != null && line.startsWith("ready ")) {
        return ExitStatus.DONE.code();
      }
    }
    return server.waitFor();
  }

  /// Refuses what makes no sense.
  void check() throws CommandException {
    if (!cache.matches("none|writeback|writethrough|directsync|unsafe")) {
      throw CommandException.usage(
          "--cache " + cache + ": wanted writeback, writethrough, unsafe, none or directsync");
    }
    if (!aio.matches("threads|native|io_uring")) {
      throw CommandException.usage("--aio " + aio + ": wanted threads, native or io_uring");
    }
  }

  /// How the image's files are reached.
  HostAccess access() {
    if (!cache.matches("none|directsync")) {
      return HostAccess.CACHED;
    }
    return aio.equals("threads") ? HostAccess.DIRECT : HostAccess.DIRECT_QUEUED;
  }

  ServedNode.Cache caching() {
    return switch (cache) {
      case "writethrough", "directsync" -> ServedNode.Cache.WRITETHROUGH;
      case "unsafe" -> ServedNode.Cache.UNSAFE;
      default -> ServedNode.Cache.WRITEBACK;
    };
  }
}
