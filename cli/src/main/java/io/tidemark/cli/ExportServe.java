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
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark export serve`: images over NBD, with qemu-nbd's options.
@Command(
    name = "serve",
    description = {
      "Offers images over NBD, in the foreground.",
      "Prints 'ready' and the URI once it serves; stops cleanly on SIGTERM, or when the last client"
          + " has left."
    },
    mixinStandardHelpOptions = true,
    exitCodeOnInvalidInput = Tidemark.USAGE)
final class ExportServe implements Callable<Integer> {
  /// Images of one server.
  static final int MAX_EXPORTS = 64;

  @Spec CommandSpec spec = CommandSpec.create();
  @Mixin ExportAddress address = new ExportAddress();
  @Mixin ExportTls tls = new ExportTls();
  @Mixin ExportProcess process = new ExportProcess();

  @Option(
      names = {"-L", "--list"},
      description = "Serves nothing: lists what the server at that address offers, as qemu-nbd -L.")
  boolean list;

  @Option(
      names = {"-x", "--export-name"},
      paramLabel = "NAME",
      description =
          "Name of the export. Default: the empty name. Given once for each image where there are"
              + " several.")
  List<String> exportNames = new ArrayList<>();

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

  @Option(names = "--image-opts", description = "IMAGE is a list of options: driver=qcow2,….")
  boolean imageOptions;

  @Option(
      names = {"-r", "--read-only"},
      description = "Refuses changes, and opens the image for reading only.")
  boolean readOnly;

  @Option(
      names = {"-s", "--snapshot"},
      description = "Keeps what clients write in a temporary file, and the image as it is.")
  boolean temporary;

  @Option(
      names = {"-l", "--load-snapshot"},
      paramLabel = "SNAPSHOT",
      description =
          "Offers an internal snapshot, read-only: snapshot.id=ID, snapshot.name=NAME, or either.")
  @Nullable String snapshot; // null: the disk

  @Option(
      names = {"-o", "--offset"},
      paramLabel = "BYTES",
      description = "Offers the image from this offset on.")
  @Nullable Long offset; // null: from its start

  @Option(
      names = "--size",
      paramLabel = "BYTES",
      description = "Offers so much of the image. Default: up to its end.")
  @Nullable Long size; // null: up to its end

  @Option(
      names = {"-B", "--bitmap"},
      paramLabel = "NAME",
      description =
          "Offers this bitmap of the image as qemu:dirty-bitmap:NAME. May be given several times.")
  List<String> bitmaps = new ArrayList<>();

  @Option(
      names = {"-A", "--allocation-depth"},
      description = "Offers qemu:allocation-depth: which image of the chain holds what.")
  boolean allocationDepth;

  @Option(
      names = "--discard",
      paramLabel = "ignore|unmap",
      description = "What a client's discards do. Default: unmap.")
  String discard = "unmap";

  @Option(
      names = "--detect-zeroes",
      paramLabel = "off|on|unmap",
      description = "Whether written zeroes become holes. Default: off.")
  String detectZeroes = "off";

  @Option(
      names = {"-t", "--persistent"},
      description = "Goes on when the last client has left.")
  boolean persistent;

  @Option(
      names = {"-e", "--shared"},
      paramLabel = "N",
      description = "Clients at once; others wait. 0: no limit but the server's. Default: 1.")
  int shared = 1;

  @Parameters(
      paramLabel = "IMAGE",
      arity = "0..*",
      description = "The image to offer: a file, json:{…}, or an NBD URI.")
  List<String> images = new ArrayList<>();

  private final CountDownLatch ended = new CountDownLatch(1);
  private final List<ServedImage> served = new ArrayList<>();

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
