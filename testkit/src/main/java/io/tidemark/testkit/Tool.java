// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import org.opentest4j.TestAbortedException;

/// A real program that a test asks for its opinion.
public final class Tool {
  /// How long a run may take unless the test says otherwise.
  public static final Duration TIMEOUT = Duration.ofSeconds(60);

  /// Where daemons live that an ordinary user's PATH leaves out.
  private static final List<String> MORE_FOLDERS =
      List.of("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin");

  /// How a run ended; both streams as UTF-8.
  public record Result(int exit, String out, String err) {
    /// Both streams, for messages.
    public String text() {
      return out + err;
    }
  }

  private final Path program;
  private final Map<String, String> environment = new TreeMap<>();
  private Duration timeout = TIMEOUT;
  private Path folder = Path.of("").toAbsolutePath();

  private Tool(Path program) {
    this.program = program;
  }

  /// The program of this name on PATH, or where daemons live.
  public static Optional<Tool> find(String name) {
    var folders = new ArrayList<String>();
    String path = System.getenv("PATH");
    if (path != null) {
      folders.addAll(List.of(path.split(File.pathSeparator)));
    }
    folders.addAll(MORE_FOLDERS);
    return folders.stream()
        .filter(f -> !f.isEmpty())
        .map(f -> Path.of(f, name))
        .filter(Files::isExecutable)
        .findFirst()
        .map(Tool::new);
  }

  /// The program, or the test ends here: as skipped, with the reason printed, or as failed where
  /// `TIDEMARK_INTEROP=required` says that all tools must be there.
  public static Tool require(String name) {
    Optional<Tool> tool = find(name);
    if (tool.isPresent()) {
      return tool.get();
    }
    String reason = name + " is not installed; scripts/install-peers brings it";
    if ("required".equals(System.getenv("TIDEMARK_INTEROP"))) {
      throw new AssertionError(reason);
    }
    System.err.println("SKIPPED: " + reason);
    throw new TestAbortedException(reason);
  }

  /// A program of known place, for example one that the build made.
  public static Tool at(Path program) {
    return new Tool(program);
  }

  public Path program() {
    return program;
  }

  /// Sets a variable of the program's environment.
  public Tool with(String variable, String value) {
    environment.put(variable, value);
    return this;
  }

  /// Sets the folder that the program runs in; the test's own, unless this is called.
  public Tool in(Path runFolder) {
    folder = runFolder;
    return this;
  }

  public Tool timeout(Duration limit) {
    timeout = limit;
    return this;
  }

  /// Runs to the end. A run that takes longer than the limit is killed, with what it started, and
  /// fails the test.
  public Result run(Object... arguments) {
    try {
      Process process = start(arguments);
      process.getOutputStream().close();
      var out = new Collector(process.getInputStream());
      var err = new Collector(process.getErrorStream());
      if (!process.waitFor(timeout.toMillis(), TimeUnit.MILLISECONDS)) {
        process
            .descendants()
            .forEach(ProcessHandle::destroyForcibly); // those first: they hold pipes
        process.destroyForcibly();
        throw new AssertionError(
            command(arguments) + " did not end within " + timeout + ": " + out.text() + err.text());
      }
      return new Result(process.exitValue(), out.text(), err.text());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new AssertionError(command(arguments) + " was interrupted", e);
    }
  }

  /// Runs, and fails the test unless the exit status is 0.
  public Result ok(Object... arguments) {
    Result result = run(arguments);
    if (result.exit() != 0) {
      throw new AssertionError(
          command(arguments) + " ended with " + result.exit() + ": " + result.text());
    }
    return result;
  }

  /// Starts the program; the caller reads its streams and ends it with [#end].
  public Process start(Object... arguments) throws IOException {
    var builder = new ProcessBuilder(command(arguments)).directory(folder.toFile());
    builder.environment().put("LC_ALL", "C.UTF-8");
    builder.environment().putAll(environment);
    return builder.start();
  }

  /// Ends a program that [#start] began: asks it to, and kills it when it has not ended after ten
  /// seconds. qemu-nbd for one forgets a SIGTERM that comes while it starts, though its socket is
  /// there already.
  public static void end(Process process) {
    process.destroy();
    try {
      if (!process.waitFor(10, TimeUnit.SECONDS)) {
        process.destroyForcibly().waitFor();
      }
    } catch (InterruptedException e) {
      process.destroyForcibly();
      Thread.currentThread().interrupt();
      throw new AssertionError(process.info() + " was interrupted at its end", e);
    }
  }

  private List<String> command(Object... arguments) {
    var command = new ArrayList<String>();
    command.add(program.toString());
    for (Object argument : arguments) {
      command.add(argument.toString());
    }
    return command;
  }

  /// Reads a stream beside the program, so that a full pipe does not stop it.
  private static final class Collector {
    private final Thread thread;
    private volatile String text = "";

    Collector(InputStream stream) {
      thread =
          Thread.ofVirtual()
              .start(() -> {
                try (stream) {
                  text = new String(stream.readAllBytes(), StandardCharsets.UTF_8);
                } catch (IOException e) {
                  text = "(unreadable: " + e + ")";
                }
              });
    }

    String text() throws InterruptedException {
      thread.join(Duration.ofSeconds(10));
      return text;
    }
  }
}
