// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.DirtyBitmap;
import io.tidemark.nbd.Export;
import io.tidemark.nbd.ExportServer;
import io.tidemark.nbd.NbdUri;
import io.tidemark.nbd.ServerLimits;
import java.io.IOException;
import java.io.PrintWriter;
import java.net.InetSocketAddress;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark export serve`: one image over NBD, with qemu-nbd's options, in the foreground.
@Command(
    name = "serve",
    description = {
      "Offers an image over NBD, in the foreground.",
      "Prints 'ready' and the URI once it serves; stops cleanly on SIGTERM, or when the last client"
          + " has left."
    },
    mixinStandardHelpOptions = true,
    exitCodeOnInvalidInput = Tidemark.USAGE)
final class ExportServe implements Callable<Integer> {
  @Spec CommandSpec spec = CommandSpec.create();

  @Option(
      names = {"-k", "--socket"},
      paramLabel = "PATH",
      description = "Listens on this unix socket.")
  @Nullable Path socket; // null: TCP

  @Option(
      names = {"-b", "--bind"},
      paramLabel = "ADDRESS",
      description = "Listens on this loopback address. Default: 127.0.0.1.")
  @Nullable String bind; // null: the default

  @Option(
      names = {"-p", "--port"},
      paramLabel = "PORT",
      description = "TCP port; 0 takes a free one. Default: 10809.")
  @Nullable Integer port; // null: the default

  @Option(
      names = {"-x", "--export-name"},
      paramLabel = "NAME",
      description = "Name of the export. Default: the empty name.")
  String exportName = "";

  @Option(
      names = {"-D", "--description"},
      paramLabel = "TEXT",
      description = "Description of the export, for clients that ask.")
  String description = "";

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = "raw or qcow2. Default: what the first bytes of the image show.")
  @Nullable String format; // null: probed

  @Option(
      names = {"-r", "--read-only"},
      description = "Refuses changes, and opens the image for reading only.")
  boolean readOnly;

  @Option(
      names = {"-B", "--bitmap"},
      paramLabel = "NAME",
      description =
          "Offers this bitmap of the image as qemu:dirty-bitmap:NAME. May be given several times.")
  List<String> bitmaps = new ArrayList<>();

  @Option(
      names = {"-t", "--persistent"},
      description = "Goes on when the last client has left.")
  boolean persistent;

  @Option(
      names = {"-e", "--shared"},
      paramLabel = "N",
      description = "Clients at once; others wait. 0: no limit but the server's. Default: 1.")
  int shared = 1;

  @Parameters(paramLabel = "IMAGE", description = "The image to offer.")
  String image = "";

  private final CountDownLatch ended = new CountDownLatch(1);

  @Override
  public Integer call() throws Exception {
    checkOptions();
    Path path = ImageFiles.path(image);
    var served = ServedImage.open(path, format(path), readOnly);
    var server = new ExportServer(limits());
    Thread hook = new Thread(() -> endBySignal(server, served), "stop");
    try {
      String uri = serve(server, served);
      Runtime.getRuntime().addShutdownHook(hook);
      PrintWriter out = spec.commandLine().getOut();
      out.println("ready " + uri);
      out.flush();
      server.awaitLastClient();
      if (persistent) {
        ended.await(); // never: the hook ends the process
      }
    } catch (Exception e) {
      try {
        close(server, served);
      } catch (IOException second) {
        e.addSuppressed(second);
      }
      throw e;
    }
    close(server, served);
    return ExitStatus.DONE.code();
  }

  private void checkOptions() throws CommandException {
    if (socket != null && (bind != null || port != null)) {
      throw CommandException.usage("a unix socket has neither address nor port: give -k alone");
    }
    if (shared < 0) {
      throw CommandException.usage("--shared " + shared + ": wanted 0 or more clients");
    }
    if (port != null && (port < 0 || port > 65535)) {
      throw CommandException.usage("--port " + port + ": wanted 0 to 65535");
    }
  }

  private ServerLimits limits() {
    ServerLimits limits = ServerLimits.defaults();
    return shared == 0 ? limits : limits.withConnections(shared);
  }

  private String format(Path path) throws IOException {
    if (format != null) {
      return format;
    }
    String probed = new ImageFiles().opener().probe(path);
    if (probed.equals("raw") && !readOnly) {
      spec.commandLine()
          .getErr()
          .println(
              "tidemark: warning: "
                  + path
                  + ": no format was given and raw was guessed; a client could write another"
                  + " format's header there, which the next guess would believe: give -f raw");
    }
    return probed;
  }

  /// Listens, and returns the URI.
  private String serve(ExportServer server, ServedImage served)
      throws IOException, CommandException {
    var offered = new ArrayList<DirtyBitmap>();
    for (String name : bitmaps) {
      offered.add(served.bitmap(name));
    }
    server.addExport(export(served, offered));
    if (socket != null) {
      Path path = socket.toAbsolutePath();
      server.listen(path);
      return NbdUri.unix(path, exportName).toString();
    }
    String host = bind == null ? "127.0.0.1" : bind;
    InetSocketAddress taken =
        server.listen(new InetSocketAddress(host, port == null ? NbdUri.DEFAULT_PORT : port));
    return NbdUri.tcp(host, taken.getPort(), exportName).toString();
  }

  private Export export(ServedImage served, List<DirtyBitmap> offered) throws CommandException {
    try {
      return new Export(exportName, served.drive(), description, readOnly, offered);
    } catch (IllegalArgumentException e) { // names that are too long or given twice
      throw CommandException.usage(String.valueOf(e.getMessage()));
    }
  }

  /// On SIGTERM or SIGINT. The JVM would report the signal; a server that was asked to stop and did
  /// is done.
  private void endBySignal(ExportServer server, ServedImage served) {
    try {
      if (!close(server, served)) {
        return; // the command ended by itself, and its exit runs this hook
      }
      Runtime.getRuntime().halt(ExitStatus.DONE.code());
    } catch (IOException | RuntimeException e) {
      PrintWriter err = spec.commandLine().getErr();
      err.println("tidemark: " + e.getMessage());
      err.flush();
      Runtime.getRuntime().halt(ExitStatus.FAILED.code());
    }
  }

  /// Ends service, then flushes and closes the image; once. Whoever comes second waits for the
  /// first. Returns whether this was the first.
  private synchronized boolean close(ExportServer server, ServedImage served) throws IOException {
    if (ended.getCount() == 0) {
      return false;
    }
    ended.countDown();
    server.close();
    if (server.connections() > 0) {
      throw new IOException(
          image + ": " + server.connections() + " requests did not end: not closed cleanly");
    }
    served.close();
    return true;
  }
}
