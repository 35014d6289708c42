// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.FileNode;
import io.tidemark.cli.Subcommands.Subcommand;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintWriter;
import java.io.UncheckedIOException;
import java.net.StandardProtocolFamily;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.FileSystemException;
import java.util.List;
import java.util.Objects;
import java.util.Properties;
import java.util.Set;
import picocli.CommandLine;
import picocli.CommandLine.IVersionProvider;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParameterException;

/// The `tidemark` command: finds the subcommand, and turns its outcome into text and exit code.
///
/// A subcommand is a `Callable<Integer>` of its own file, listed below. It writes what was asked to
/// `spec.commandLine().getOut()`, and throws: [CommandException] or an [IOException] (every
/// `BlockException` is one) for what its user can act on; anything else is our own bug and is
/// printed with its stack.
public final class Tidemark implements Runnable {
  /// [ExitStatus#USAGE], for `exitCodeOnInvalidInput` of every command outside `image` (an
  /// annotation takes only a constant).
  static final int USAGE = 64;

  /// The commands that open images for writing and stay.
  private static final Set<String> SERVING = Set.of("daemon", "demo", "export", "image");

  private static final Subcommands BENEATH =
      Subcommands.of(
          Subcommand.of("daemon", DaemonCommand::new),
          Subcommand.of("completion", CompletionCommand::new),
          new Subcommand("export", ExportCommand::command, ExportCommand.BENEATH),
          Subcommand.of("demo", DemoCommand::new),
          Subcommand.of("demo-guest", DemoGuestCommand::new),
          new Subcommand("image", ImageCommand::new, ImageCommand.BENEATH));

  private final CommandSpec spec =
      new DeclaredCommand(
              "tidemark", this, "Copies, moves and backs up the disks of running virtual machines.")
          .withCommands()
          .spec()
          .versionProvider(new Version());

  private Tidemark() {}

  /// Runs the command and ends the process with its code.
  public static void main(String[] args) {
    prepare(args);
    int code =
        run(
            new PrintWriter(System.out, true, UTF_8),
            new PrintWriter(System.err, true, UTF_8),
            args);
    if (args.length > 0 && args[0].equals("image")) {
      // Safe because these commands leave nothing to the end of the process; an exit would load the
      // logger of exits first.
      Runtime.getRuntime().halt(code);
    }
    System.exit(code);
  }

  /// Before [#run] in a process of its own: what can be done while the options are read.
  static void prepare(String... args) {
    // picocli looks for Groovy in every jar, and makes converters for types that no option here
    // has.
    System.setProperty("picocli.disable.closures", "true");
    System.setProperty("picocli.converters.excludes", "java\\.(sql|time)\\..*");
    if (args.length > 0 && SERVING.contains(args[0])) {
      // While the options are read: each takes as long.
      Thread.ofPlatform().daemon().name("bind").start(FileNode::bindSystemCalls);
      if (!args[0].equals("image")) {
        Thread.ofPlatform().daemon().name("load").start(Tidemark::loadSockets);
      }
    }
  }

  /// What a server needs of the JDK before it listens: logging, for which the JDK looks into every
  /// jar, and sockets, for which it makes a source of random numbers. What goes wrong here goes
  /// wrong again where it is needed.
  private static void loadSockets() {
    System.Logger log = System.getLogger(Tidemark.class.getName());
    try {
      ServerSocketChannel.open(StandardProtocolFamily.UNIX).close();
    } catch (IOException e) {
      log.log(System.Logger.Level.DEBUG, "no unix sockets", e);
    }
  }

  /// Runs the command within this process.
  ///
  /// @return the exit code
  public static int run(PrintWriter out, PrintWriter err, String... args) {
    int code =
        commandFor(args)
            .setOut(out)
            .setErr(err)
            .setCaseInsensitiveEnumValuesAllowed(true)
            .setPosixClusteredShortOptionsAllowed(true)
            .setOverwrittenOptionsAllowed(true)
            .setExpandAtFiles(false) // an image may be called @disk
            .setExecutionExceptionHandler(Tidemark::failed)
            .setParameterExceptionHandler(Tidemark::misused)
            .execute(args);
    boolean unwritten = out.checkError();
    if (unwritten && code == ExitStatus.DONE.code()) {
      err.println("tidemark: standard output: cannot be written");
      code = ExitStatus.FAILED.code();
    }
    err.flush();
    return code;
  }

  /// The command with what these words need of it; whole when there are none.
  static CommandLine commandFor(String... words) {
    var command = new CommandLine(new Tidemark().spec);
    BENEATH.addTo(command, List.of(words));
    return command;
  }

  /// Without a subcommand there is nothing to do.
  @Override
  public void run() {
    throw new ParameterException(spec.commandLine(), "no command given");
  }

  private static int misused(ParameterException misuse, String[] args) {
    CommandLine command = misuse.getCommandLine();
    PrintWriter err = command.getErr();
    err.println("tidemark: " + lowerFirst(String.valueOf(misuse.getMessage())));
    err.println(
        "Try '" + command.getCommandSpec().qualifiedName() + " --help' for more information.");
    return command.getCommandSpec().exitCodeOnInvalidInput();
  }

  private static int failed(
      Exception failure, CommandLine command, CommandLine.ParseResult parsed) {
    PrintWriter err = command.getErr();
    command.getOut().flush();
    switch (failure) {
      case CommandException known -> {
        err.println("tidemark: " + known.getMessage());
        return known.exitCode();
      }
      case IOException io -> err.println("tidemark: " + text(io));
      case UncheckedIOException io ->
          err.println("tidemark: " + text(Objects.requireNonNull(io.getCause())));
      default -> {
        err.println("tidemark: internal error: " + failure);
        failure.printStackTrace(err);
      }
    }
    return ExitStatus.FAILED.code();
  }

  /// The JDK's file exceptions say only the path when the kind of exception says the rest.
  static String text(IOException failure) {
    String message = failure.getMessage();
    return switch (failure) {
      case java.nio.file.NoSuchFileException missing -> missing.getFile() + ": no such file";
      case java.nio.file.AccessDeniedException denied -> denied.getFile() + ": permission denied";
      case java.nio.file.FileAlreadyExistsException there -> there.getFile() + ": already exists";
      case FileSystemException other when other.getReason() == null ->
          other.getFile() + ": " + other.getClass().getSimpleName();
      default -> message == null ? failure.toString() : message;
    };
  }

  /// picocli begins its sentences with a capital; ours do not.
  private static String lowerFirst(String text) {
    boolean word = text.length() > 1 && Character.isLowerCase(text.charAt(1));
    return word ? Character.toLowerCase(text.charAt(0)) + text.substring(1) : text;
  }

  /// The version the build wrote.
  static final class Version implements IVersionProvider {
    @Override
    public String[] getVersion() throws IOException {
      return new String[] {"tidemark " + number()};
    }

    static String number() throws IOException {
      Properties properties = new Properties();
      try (InputStream in = Tidemark.class.getResourceAsStream("version.properties")) {
        properties.load(Objects.requireNonNull(in, "version.properties"));
      }
      return properties.getProperty("version", "unknown");
    }
  }
}
