// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.ImageSource;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ServedNode;
import io.tidemark.block.WindowNode;
import io.tidemark.block.ZeroMode;
import io.tidemark.nbd.Export;
import io.tidemark.nbd.ExportServer;
import io.tidemark.nbd.ServerLimits;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Model.CommandSpec;

/// `tidemark export serve`: images over NBD, with qemu-nbd's options.
final class ExportServe implements Callable<Integer> {
  /// Images of one server.
  static final int MAX_EXPORTS = 64;

  private final CommandSpec spec;
  private final ExportAddress address = new ExportAddress();
  private final ExportTls tls = new ExportTls();
  private final ExportProcess process = new ExportProcess();

  private boolean list;
  private List<String> exportNames = List.of();
  private String description = "";
  private @Nullable String format; // null: probed
  private boolean imageOptions;
  private boolean readOnly;
  private boolean temporary;
  private @Nullable String snapshot; // null: the disk
  private @Nullable Long offset; // null: from its start
  private @Nullable Long size; // null: up to its end
  private List<String> bitmaps = List.of();
  private boolean allocationDepth;
  private String discard = "unmap";
  private String detectZeroes = "off";
  private boolean persistent;
  private int shared = 1;
  private List<String> images = List.of();
  private final CountDownLatch ended = new CountDownLatch(1);
  private final List<ServedImage> served = new ArrayList<>();

  private ExportServe() {
    var command =
        new DeclaredCommand(
            "serve",
            this,
            "Offers images over NBD, in the foreground.",
            "Prints 'ready' and the URI once it serves; stops cleanly on SIGTERM, or when the last client"
                + " has left.");
    spec = command.spec();
    address.declare(command);
    tls.declare(command);
    process.declare(command);
    declare(command);
  }

  /// The command as picocli takes it.
  static CommandSpec command() {
    return new ExportServe().spec;
  }

  private void declare(DeclaredCommand command) {
    command.flag(
        "Serves nothing: lists what the server at that address offers, as qemu-nbd -L.",
        v -> list = v,
        "-L",
        "--list");
    command.options(
        "NAME",
        "Name of the export. Default: the empty name. Given once for each image where there are"
            + " several.",
        v -> exportNames = v,
        "-x",
        "--export-name");
    command.option(
        String.class,
        "TEXT",
        "Description of the export, for clients that ask.",
        v -> description = v,
        "-D",
        "--description");
    command.option(
        String.class,
        "FORMAT",
        "raw or qcow2. Default: what the first bytes of the image show.",
        v -> format = v,
        "-f",
        "--format");
    command.flag(
        "IMAGE is a list of options: driver=qcow2,….", v -> imageOptions = v, "--image-opts");
    command.flag(
        "Refuses changes, and opens the image for reading only.",
        v -> readOnly = v,
        "-r",
        "--read-only");
    command.flag(
        "Keeps what clients write in a temporary file, and the image as it is.",
        v -> temporary = v,
        "-s",
        "--snapshot");
    command.option(
        String.class,
        "SNAPSHOT",
        "Offers an internal snapshot, read-only: snapshot.id=ID, snapshot.name=NAME, or either.",
        v -> snapshot = v,
        "-l",
        "--load-snapshot");
    command.option(
        Long.class,
        "BYTES",
        "Offers the image from this offset on.",
        v -> offset = v,
        "-o",
        "--offset");
    command.option(
        Long.class,
        "BYTES",
        "Offers so much of the image. Default: up to its end.",
        v -> size = v,
        "--size");
    command.options(
        "NAME",
        "Offers this bitmap of the image as qemu:dirty-bitmap:NAME. May be given several times.",
        v -> bitmaps = v,
        "-B",
        "--bitmap");
    command.flag(
        "Offers qemu:allocation-depth: which image of the chain holds what.",
        v -> allocationDepth = v,
        "-A",
        "--allocation-depth");
    command.option(
        String.class,
        "ignore|unmap",
        "What a client's discards do. Default: unmap.",
        v -> discard = v,
        "--discard");
    command.option(
        String.class,
        "off|on|unmap",
        "Whether written zeroes become holes. Default: off.",
        v -> detectZeroes = v,
        "--detect-zeroes");
    command.flag(
        "Goes on when the last client has left.", v -> persistent = v, "-t", "--persistent");
    command.option(
        Integer.class,
        "N",
        "Clients at once; others wait. 0: no limit but the server's. Default: 1.",
        v -> shared = v,
        "-e",
        "--shared");
    command.words("IMAGE", "The image to offer: a file, json:{…}, or an NBD URI.", v -> images = v);
  }

  @Override
  public Integer call() throws Exception {
    PrintWriter out = spec.commandLine().getOut();
    if (list) {
      QemuNbdList.print(out, address.uri("", tls.client(address)));
      return ExitStatus.DONE.code();
    }
    checkOptions();
    if (process.fork) {
      return process.fork(spec.commandLine());
    }
    var server = new ExportServer(limits(), tls.server());
    Thread hook = new Thread(() -> endBySignal(server), "stop");
    try {
      String uri = serve(server);
      Runtime.getRuntime().addShutdownHook(hook);
      process.ready(out, uri);
      LogFolder.tidy();
      server.awaitLastClient();
      if (persistent) {
        ended.await(); // never: the hook ends the process
      }
    } catch (Exception e) {
      try {
        close(server);
      } catch (IOException second) {
        e.addSuppressed(second);
      }
      throw e;
    }
    close(server);
    return ExitStatus.DONE.code();
  }

  private void checkOptions() throws CommandException {
    address.check();
    process.check();
    if (images.isEmpty()) {
      throw CommandException.usage("Missing required parameter: 'IMAGE'");
    }
    if (images.size() > MAX_EXPORTS) {
      throw CommandException.usage(
          images.size() + " images, at most " + MAX_EXPORTS + " can be offered by one server");
    }
    if (images.size() > 1 && exportNames.size() != images.size()) {
      throw CommandException.usage(
          images.size() + " images and " + exportNames.size() + " names: give -x once for each");
    }
    if (shared < 0) {
      throw CommandException.usage("--shared " + shared + ": wanted 0 or more clients");
    }
    if (!discard.matches("ignore|off|unmap|on")) {
      throw CommandException.usage("--discard " + discard + ": wanted ignore or unmap");
    }
    if (!detectZeroes.matches("off|on|unmap")) {
      throw CommandException.usage("--detect-zeroes " + detectZeroes + ": wanted off, on or unmap");
    }
    if (detectZeroes.equals("unmap") && discard.matches("ignore|off")) {
      throw CommandException.usage("--detect-zeroes unmap needs --discard unmap");
    }
    if (snapshot != null && temporary) {
      throw CommandException.usage("--snapshot and --load-snapshot exclude each other");
    }
  }

  private ServerLimits limits() {
    ServerLimits limits = ServerLimits.defaults();
    return shared == 0 ? limits : limits.withConnections(shared);
  }

  /// Opens the images, listens, and returns the first one's URI.
  private String serve(ExportServer server) throws IOException, CommandException {
    for (int i = 0; i < images.size(); i++) {
      ServedImage image = open(images.get(i));
      served.add(image);
      String name =
          exportNames.isEmpty() ? "" : exportNames.get(Math.min(i, exportNames.size() - 1));
      addExport(server, name, image);
    }
    return address.listen(server, exportNames.isEmpty() ? "" : exportNames.getFirst(), tls);
  }

  private ServedImage open(String image) throws IOException, CommandException {
    var opener = new ImageOpener(ImageOpener.Probing.ALLOWED, LogFolder.present());
    ImageSource source =
        tls.resolve(imageOptions ? ImageSource.ofOptions(image) : ImageSource.parse(image));
    boolean reading = readOnly || temporary || snapshot != null;
    OpenOptions options = reading ? OpenOptions.reading() : OpenOptions.readWrite();
    options = options.with(process.access());
    Optional<Path> logs = reading ? Optional.empty() : LogFolder.made();
    if (logs.isPresent()) {
      options = options.withRunDir(logs.get());
    }
    FormatNode node = opener.open(source, Optional.ofNullable(format), options);
    if (format == null && source.driver().isEmpty() && node.format().equals("raw") && !reading) {
      spec.commandLine()
          .getErr()
          .println(
              "tidemark: warning: "
                  + image
                  + ": no format was given and raw was guessed; writes that would make it look like"
                  + " another format are refused: give -f raw to allow them");
    }
    if (temporary) {
      node = ServedImage.overlay(node, opener);
    }
    return ServedImage.of(node, Optional.ofNullable(snapshot).map(ExportServe::snapshotName));
  }

  /// `-l` takes options as well as a plain id or name.
  private static String snapshotName(String given) {
    for (String prefix : List.of("snapshot.id=", "snapshot.name=")) {
      if (given.startsWith(prefix)) {
        return given.substring(prefix.length());
      }
    }
    return given;
  }

  private void addExport(ExportServer server, String name, ServedImage image)
      throws IOException, CommandException {
    var offered = new ArrayList<DirtyBitmap>();
    for (String bitmap : bitmaps) {
      offered.add(image.bitmap(bitmap).orElseThrow(() -> image.noBitmap(bitmap)));
    }
    BlockNode node =
        WindowNode.of(image.drive(), Optional.ofNullable(offset), Optional.ofNullable(size));
    if (node instanceof WindowNode && !offered.isEmpty()) {
      throw CommandException.usage("--bitmap cannot be offered for a part of an image");
    }
    ServedNode.Manners manners = manners();
    if (!manners.plain()) {
      node = new ServedNode(node, manners);
    }
    try {
      server.addExport(new Export(name, node, description, readOnly, offered, allocationDepth));
    } catch (IllegalArgumentException e) { // names that are too long or given twice
      throw CommandException.usage(String.valueOf(e.getMessage()));
    }
  }

  private ServedNode.Manners manners() {
    Optional<ZeroMode> zeroes =
        switch (detectZeroes) {
          case "on" -> Optional.of(ZeroMode.NO_UNMAP);
          case "unmap" -> Optional.of(ZeroMode.MAY_UNMAP);
          default -> Optional.empty();
        };
    return new ServedNode.Manners(process.caching(), discard.matches("unmap|on"), zeroes);
  }

  /// On SIGTERM or SIGINT. The JVM would report the signal; a server that was asked to stop and did
  /// is done.
  private void endBySignal(ExportServer server) {
    try {
      if (!close(server)) {
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

  /// Ends service, then flushes and closes the images; once. Whoever comes second waits for the
  /// first. Returns whether this was the first.
  private synchronized boolean close(ExportServer server) throws IOException {
    if (ended.getCount() == 0) {
      return false;
    }
    ended.countDown();
    server.close();
    process.gone();
    if (server.connections() > 0) {
      throw new IOException(
          images + ": " + server.connections() + " requests did not end: not closed cleanly");
    }
    IOException failure = null;
    for (ServedImage image : served) {
      try {
        image.close();
      } catch (IOException e) {
        failure = e;
      }
    }
    if (failure != null) {
      throw failure;
    }
    return true;
  }
}
