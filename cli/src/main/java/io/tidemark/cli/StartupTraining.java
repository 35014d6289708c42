// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.daemon.Daemon;
import io.tidemark.daemon.DaemonOptions;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.rpc.Calls;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.RpcClient;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.Writer;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;

/// What `scripts/startup-cache` lets the JVM watch, so that its cache holds the classes of the
/// commands whose start someone waits for. Run in the build, never by a user.
final class StartupTraining {
  private static final int BYTES = 64 * 1024;
  private static final int PAGE = 4096;
  private static final int REQUESTS = 10_000;

  private final Path folder;

  private StartupTraining(Path folder) {
    this.folder = folder;
  }

  /// @param args `image`, `serve` or `daemon`: a cache takes longer to load the more it holds; and
  ///   an empty folder, for images and sockets
  public static void main(String[] args) throws Exception {
    var training = new StartupTraining(Path.of(args[1]));
    Tidemark.prepare(args[0].equals("serve") ? "export" : args[0]);
    switch (args[0]) {
      case "image" -> training.images();
      case "serve" -> training.export();
      case "daemon" -> training.daemon();
      default -> throw new IllegalArgumentException(args[0]);
    }
  }

  private static int run(String... words) {
    var nowhere = new PrintWriter(Writer.nullWriter());
    return Tidemark.run(nowhere, nowhere, words);
  }

  private static void ok(String... words) {
    int code = run(words);
    if (code != ExitStatus.DONE.code()) {
      throw new IllegalStateException(String.join(" ", words) + ": exit code " + code);
    }
  }

  private String in(String name) {
    return folder.resolve(name).toString();
  }

  private String chain() {
    String qcow2 = in("disk.qcow2");
    String overlay = in("overlay.qcow2");
    ok("image", "create", "-q", "-f", "qcow2", qcow2, "64M");
    ok("image", "create", "-q", "-f", "qcow2", "-b", qcow2, "-F", "qcow2", overlay);
    return overlay;
  }

  private void images() throws IOException {
    String raw = in("disk.raw");
    byte[] bytes = new byte[64 * BYTES];
    new Random(1).nextBytes(bytes);
    Arrays.fill(bytes, 8 * BYTES, 24 * BYTES, (byte) 0);
    Arrays.fill(bytes, 32 * BYTES, 48 * BYTES, (byte) 'a');
    Files.write(folder.resolve("disk.raw"), bytes);
    ok("--version");
    String overlay = chain();
    String qcow2 = in("disk.qcow2");
    ok("image", "info", overlay);
    ok("image", "info", "--output", "json", qcow2);
    ok("image", "check", qcow2);
    ok("image", "map", "--output", "json", overlay);
    ok("image", "convert", "-f", "raw", "-O", "qcow2", raw, in("copy.qcow2"));
    ok("image", "convert", "-O", "raw", in("copy.qcow2"), in("copy.raw"));
    ok("image", "convert", "-c", "-W", "-O", "qcow2", raw, in("zlib.qcow2"));
    ok(
        "image",
        "convert",
        "-c",
        "-W",
        "-O",
        "qcow2",
        "-o",
        "compression_type=zstd",
        raw,
        in("zstd.qcow2"));
    ok("image", "convert", "-O", "raw", in("zlib.qcow2"), in("copy.raw"));
    ok("image", "convert", "-W", "-O", "qcow2", in("zstd.qcow2"), in("copy.qcow2"));
    ok("image", "compare", raw, in("copy.qcow2"));
    ok("image", "measure", "-O", "qcow2", raw);
    ok("image", "snapshot", "-c", "before", in("copy.qcow2"));
    ok("image", "resize", in("copy.qcow2"), "128M");
    ok("image", "info", in("copy.qcow2"));
    run("image", "info", in("missing"));
  }

  private void export() throws Exception {
    String image = in("served.qcow2");
    ok(
        "image",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=4k",
        "-b",
        chain(),
        "-F",
        "qcow2",
        image);
    Path socket = folder.resolve("export.sock");
    var code = new AtomicInteger(-1);
    var server =
        Thread.ofPlatform()
            .start(() -> code.set(run("export", "serve", "-k", socket.toString(), image)));
    while (!Files.exists(socket)) {
      if (server.join(Duration.ofMillis(5))) {
        throw new IllegalStateException("export serve: exit code " + code.get());
      }
    }
    try (var client = NbdClient.connect(NbdUri.unix(socket, ""))) {
      client.write(0, ByteBuffer.allocateDirect(BYTES));
      client.read(0, ByteBuffer.allocateDirect(BYTES));
      client.flush();
      requests(client);
    }
    server.join();
  }

  /// What a busy guest does, so often that the cache holds profiles of it: a server under load then
  /// compiles at once what it runs. The image has small clusters: each write is to take a new one,
  /// and little is to be written.
  private static void requests(NbdClient client) throws IOException {
    ByteBuffer page = ByteBuffer.allocateDirect(PAGE);
    for (int round = 0; round < 2; round++) { // new clusters, then the same
      for (int i = 0; i < REQUESTS; i++) {
        client.write((long) i * PAGE, page.clear());
      }
    }
    for (int i = 0; i < REQUESTS; i++) {
      client.read((long) i * PAGE, page.clear());
    }
  }

  private void daemon() throws Exception {
    var options =
        DaemonOptions.of(folder.resolve("state"), folder.resolve("run"), Tidemark.Version.number());
    try (var daemon = Daemon.start(options);
        var client = RpcClient.open(daemon.socket(), "qemu:///system", _ -> {})) {
      client.call(Remote.CONNECT_GET_LIB_VERSION, new Calls.Nothing());
      client.call(Remote.CONNECT_LIST_ALL_DOMAINS, new Calls.ListAll(1, 0));
      backups(daemon.socket());
    }
  }

  /// The first backup of a daemon is not to wait for classes either: schemas, jobs, events.
  private void backups(Path socket) throws Exception {
    String disk = chain();
    String xml =
        """
        <domain type='tidemark'><name>training</name><os><type>hvm</type></os><devices>
          <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/>
            <target dev='vda' bus='virtio'/></disk></devices></domain>\
        """
            .formatted(disk);
    Path guest = folder.resolve("run/guest/training.sock");
    try (var domain = DemoDomain.create(socket, xml);
        var client = NbdClient.connect(NbdUri.unix(guest, DemoDomain.DISK))) {
      client.write(0, ByteBuffer.allocateDirect(32 * BYTES));
      backUp(domain, "first", "");
      client.write(0, ByteBuffer.allocateDirect(BYTES));
      backUp(domain, "second", "<incremental>first</incremental>");
      domain.destroy();
    }
  }

  private void backUp(DemoDomain domain, String name, String since) throws Exception {
    domain.backup(
        "<domainbackup>%s<disks><disk name='vda' type='file'><target file='%s'/></disk></disks></domainbackup>"
            .formatted(since, in(name + ".qcow2")),
        "<domaincheckpoint><name>%s</name></domaincheckpoint>".formatted(name));
    DemoDomain.Outcome outcome = DemoDomain.Outcome.RUNNING;
    while (outcome == DemoDomain.Outcome.RUNNING) {
      outcome = domain.await(10_000);
    }
    if (outcome != DemoDomain.Outcome.DONE) {
      throw new IllegalStateException("backup " + name + ": " + outcome);
    }
  }
}
