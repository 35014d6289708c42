// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.daemon.Daemon;
import io.tidemark.daemon.DaemonOptions;
import io.tidemark.domain.LibvirtException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/// `tidemark daemon`: serves libvirt's clients until SIGTERM or SIGINT.
@Command(
    name = "daemon",
    description = {
      "Runs domains and serves libvirt's clients in the foreground.",
      "Prints 'ready' and the URI for clients once it serves; stops cleanly on SIGTERM."
    },
    mixinStandardHelpOptions = true,
    exitCodeOnInvalidInput = Tidemark.USAGE)
final class DaemonCommand implements Callable<Integer> {
  @Spec CommandSpec spec = CommandSpec.create();

  @Option(
      names = "--state-dir",
      paramLabel = "DIR",
      description =
          "Definitions and checkpoints. Default: /var/lib/tidemark, for an ordinary user"
              + " $XDG_STATE_HOME/tidemark.")
  @Nullable Path stateDir; // null: the default

  @Option(
      names = "--run-dir",
      paramLabel = "DIR",
      description =
          "Sockets and what is known of running domains. Default: /run/tidemark, for an ordinary"
              + " user $XDG_RUNTIME_DIR/tidemark.")
  @Nullable Path runDir; // null: the default

  @Option(
      names = "--scratch-dir",
      paramLabel = "DIR",
      description =
          "Where a push backup keeps what the guest overwrites before it is copied. Default:"
              + " scratch in the state folder.")
  @Nullable Path scratchDir; // null: the default

  @Option(
      names = "--scratch-limit",
      paramLabel = "SIZE",
      description =
          "Most bytes there for one disk (k, M, G...); past it the backup fails, the guest goes on."
              + " Default: the disk's size.")
  @Nullable String scratchLimit; // null: the default

  @Option(
      names = "--backup-tls-dir",
      paramLabel = "DIR",
      description =
          "Certificates of pull backups with tls='yes'. Default: /etc/pki/libvirt-backup, when"
              + " that is not there /etc/pki/qemu.")
  @Nullable Path backupTlsDir; // null: the default

  @Option(
      names = "--backup-tls-no-verify",
      description = "Let clients of those backups in that have no certificate of that authority.")
  boolean backupTlsNoVerify;

  @Override
  public Integer call() throws Exception {
    if (System.getProperty(LoggerFinder.LEVEL) == null) {
      System.setProperty(LoggerFinder.LEVEL, "INFO");
    }
    Map<String, String> environment = System.getenv();
    boolean root = "root".equals(System.getProperty("user.name"));
    Path state = stateDir != null ? stateDir : stateDir(root, environment);
    Path run = runDir != null ? runDir : runDir(root, environment);
    serve(DaemonOptions.of(state, run, Tidemark.Version.number()).withBackups(backups()));
    return ExitStatus.DONE.code();
  }

  private DaemonOptions.Backups backups() throws CommandException {
    OptionalLong limit = OptionalLong.empty();
    if (scratchLimit != null) {
      limit = OptionalLong.of(ImageSize.parse("--scratch-limit", scratchLimit));
    }
    return new DaemonOptions.Backups(
        Optional.ofNullable(scratchDir),
        limit,
        Optional.ofNullable(backupTlsDir).map(Path::toAbsolutePath),
        !backupTlsNoVerify);
  }

  /// Returns never: the process ends in the hook, with the code of a clean end.
  private void serve(DaemonOptions options) throws Exception {
    Daemon daemon = start(options);
    PrintWriter out = spec.commandLine().getOut();
    CountDownLatch never = new CountDownLatch(1);
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  daemon.close();
                  // The JVM would report the signal; a daemon that was asked to stop and did is
                  // done.
                  Runtime.getRuntime().halt(ExitStatus.DONE.code());
                },
                "stop"));
    out.println("ready " + daemon.uri());
    out.flush();
    never.await();
  }

  private static Daemon start(DaemonOptions options) throws Exception {
    try {
      return Daemon.start(options);
    } catch (LibvirtException e) {
      throw new CommandException(String.valueOf(e.getMessage()));
    }
  }

  static Path stateDir(boolean root, Map<String, String> environment) throws CommandException {
    if (root) {
      return Path.of("/var/lib/tidemark");
    }
    return absolute(environment, "XDG_STATE_HOME")
        .or(() -> absolute(environment, "HOME").map(home -> home.resolve(".local/state")))
        .orElseThrow(() -> CommandException.usage("HOME is not set: give --state-dir"))
        .resolve("tidemark");
  }

  static Path runDir(boolean root, Map<String, String> environment) throws CommandException {
    if (root) {
      return Path.of("/run/tidemark");
    }
    return absolute(environment, "XDG_RUNTIME_DIR")
        .orElseThrow(() -> CommandException.usage("XDG_RUNTIME_DIR is not set: give --run-dir"))
        .resolve("tidemark");
  }

  private static Optional<Path> absolute(Map<String, String> environment, String name) {
    return Optional.ofNullable(environment.get(name)).map(Path::of).filter(Path::isAbsolute);
  }
}
