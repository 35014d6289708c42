// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/// `tidemark demo`: the main job before one's eyes.
@Command(
    name = "demo",
    description = {
      "Shows the main job, with nothing else installed: a daemon, a domain, a guest that writes without"
          + " pause and can prove what it wrote; a live copy with pivot, a full and two incremental backups,"
          + " each restored and compared bit for bit. Exit status 0 only if all of it held."
    },
    mixinStandardHelpOptions = true,
    exitCodeOnInvalidInput = Tidemark.USAGE)
final class DemoCommand implements Callable<Integer> {
  private static final long MIB = 1024 * 1024;

  @Option(
      names = "--keep",
      paramLabel = "DIR",
      description = "Work in this folder, which must be empty or new, and leave everything there.")
  private @Nullable Path keep; // absent: a temporary folder, removed at the end

  @Option(
      names = "--size",
      paramLabel = "MIB",
      defaultValue = "1024",
      description = "Size of the disk in MiB, 64 to 65536 (default: ${DEFAULT-VALUE}).")
  private long sizeMib;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "What the guest's writes follow from (default: ${DEFAULT-VALUE}).")
  private long seed;

  @Spec private CommandSpec spec = CommandSpec.create();

  @Override
  public Integer call() throws IOException, CommandException {
    if (sizeMib < 64 || sizeMib > 65536) {
      throw new ParameterException(
          spec.commandLine(), "--size " + sizeMib + ": wanted 64 to 65536 MiB");
    }
    var screen =
        new DemoScreen(spec.commandLine().getOut(), DemoScreen.onTerminal(), System::nanoTime);
    Optional<Path> kept = Optional.ofNullable(keep);
    Path folder =
        kept.isPresent() ? keptFolder(kept.get()) : Files.createTempDirectory("tidemark-demo");
    try {
      return run(folder, kept.isEmpty(), screen);
    } finally {
      if (kept.isEmpty()) {
        remove(folder);
      } else {
        screen.line("Kept in " + folder);
      }
    }
  }

  private int run(Path folder, boolean temporary, DemoScreen screen)
      throws IOException, CommandException {
    try (var demo = new Demo(folder, sizeMib * MIB, seed, screen)) {
      // Ctrl-C leaves nothing behind either.
      var brokenOff =
          new Thread(
              () -> {
                demo.abandon();
                if (temporary) {
                  remove(folder);
                }
              },
              "demo-broken-off");
      Runtime.getRuntime().addShutdownHook(brokenOff);
      boolean held = demo.run();
      Runtime.getRuntime().removeShutdownHook(brokenOff);
      return (held ? ExitStatus.DONE : ExitStatus.FAILED).code();
    }
  }

  private static Path keptFolder(Path path) throws IOException, CommandException {
    Files.createDirectories(path);
    try (Stream<Path> there = Files.list(path)) {
      if (there.findAny().isPresent()) {
        throw new CommandException(path + ": not empty, wanted an empty or a new folder");
      }
    }
    return path.toAbsolutePath();
  }

  private static void remove(Path folder) {
    try (Stream<Path> all = Files.walk(folder)) {
      for (Path path : all.sorted(Comparator.reverseOrder()).toList()) {
        Files.deleteIfExists(path);
      }
    } catch (IOException | UncheckedIOException e) {
      System.getLogger("tidemark").log(System.Logger.Level.WARNING, folder + ": not removed: " + e);
    }
  }
}
