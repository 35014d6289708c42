// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Drive;
import io.tidemark.block.FileNode;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ZeroMode;
import io.tidemark.job.BackupGroup;
import io.tidemark.job.BackupJob;
import io.tidemark.job.BackupOptions;
import io.tidemark.job.JobStatus;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.Export;
import io.tidemark.nbd.ExportServer;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.qcow2.Qcow2Image;
import io.tidemark.testkit.BlockHistory;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.PromisedBlocks;
import io.tidemark.testkit.RacingRequests;
import io.tidemark.testkit.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

/// A qcow2 chain as a guest has it, over NBD, under several clients whose requests overlap: what
/// each of them sees, and what a backup taken amid them holds, is what some order of the requests
/// explains ([BlockHistory]).
class SharedChainTest {
  private static final int SIZE = 1 << 20;
  private static final int CLIENTS = 6;
  private static final int REQUESTS = 120;
  private static final int WRITERS = 4;

  @TempDir Path folder;
  private Path socket;
  private final ExportServer server = new ExportServer();
  private final ConcurrentLinkedQueue<Throwable> faults = new ConcurrentLinkedQueue<>();
  private final AtomicInteger sent = new AtomicInteger();

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    server.listen(socket);
  }

  @AfterEach
  void close() {
    server.close();
  }

  /// An overlay of random shape over a raw image with data in it.
  private FormatNode chain(Random random) throws IOException {
    byte[] old = new byte[SIZE / 2 + 4096];
    random.nextBytes(old);
    Arrays.fill(old, 1000, 200_000, (byte) 0);
    Files.write(folder.resolve("base.raw"), old);
    Path top = folder.resolve("top.qcow2");
    Map<String, String> options = shape(random, random.nextInt(3) == 0);
    var opener =
        new ImageOpener(
            ImageOpener.Probing.REFUSED, Optional.of(Files.createDirectories(runDir())));
    opener.create(
        top,
        "qcow2",
        new CreateOptions(
            SIZE, Optional.of(new BackingReference("base.raw", Optional.of("raw"))), options));
    return opener.open(top, "qcow2", OpenOptions.readWrite().withRunDir(runDir()));
  }

  private static Map<String, String> shape(Random random, boolean extended) {
    int bits = extended ? 14 + random.nextInt(3) : 9 + random.nextInt(8);
    return Map.of("cluster_size", "" + (1 << bits), "extended_l2", extended ? "on" : "off");
  }

  private Path runDir() {
    return folder.resolve("run");
  }

  /// Clients of their own, and threads that share one over several connections.
  private List<Thread> race(long seed, BlockHistory history, List<NbdClient> disks) {
    var threads = new ArrayList<Thread>();
    for (int i = 0; i < CLIENTS; i++) {
      var requests = new RacingRequests(seed, i, history, 150_000);
      NbdClient disk = disks.get(i % disks.size());
      threads.add(
          Thread.ofPlatform()
              .start(() -> {
                try {
                  for (int n = 0; n < REQUESTS; n++) {
                    history.send(requests.next(), disk);
                    sent.incrementAndGet();
                    if (requests.forced()) {
                      disk.flush();
                    }
                  }
                } catch (IOException | RuntimeException | Error e) {
                  faults.add(e);
                }
              }));
    }
    return threads;
  }

  private void join(List<Thread> threads) throws InterruptedException {
    for (Thread thread : threads) {
      thread.join();
    }
    if (!faults.isEmpty()) {
      throw new AssertionError("a client failed", faults.peek());
    }
  }

  private List<NbdClient> connect() throws IOException {
    NbdUri uri = NbdUri.unix(socket, "vda");
    return List.of(
        NbdClient.connect(uri, ClientOptions.defaults().withConnections(3)),
        NbdClient.connect(uri));
  }

  @ParameterizedTest
  @Seeds(4)
  void isLinearizable(long seed) throws Exception {
    var random = new Random(seed);
    try (FormatNode top = chain(random)) {
      // A plain node, as `export serve` has it, and a drive, as a domain has.
      BlockNode disk = random.nextBoolean() ? top : new Drive("vda", top);
      server.addExport(Export.of("vda", disk));
      var history = new BlockHistory(disk);
      List<NbdClient> disks = connect();
      join(race(seed, history, disks));
      sawAll(history, top);
      history.check();
      disks.forEach(NbdClient::close);
      assertThat(server.removeExport("vda")).isTrue();
    }
    try (FormatNode again =
        new ImageOpener(ImageOpener.Probing.REFUSED)
            .open(folder.resolve("top.qcow2"), "qcow2", OpenOptions.reading())) {
      assertThat(again.virtualSize()).isEqualTo(SIZE);
    }
  }

  private static void sawAll(BlockHistory history, BlockNode disk) throws IOException {
    BlockHistory.Request last = history.begin(BlockHistory.Kind.READ, 0, SIZE);
    last.answered(content(disk));
  }

  private static byte[] content(BlockNode disk) throws IOException {
    byte[] bytes = new byte[SIZE];
    disk.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }

  /// Several backups, each a read of the whole disk at one moment of its start.
  @ParameterizedTest
  @Seeds(3)
  void backupsAmidTheRequestsAreMomentsOfIt(long seed) throws Exception {
    var random = new Random(seed);
    var drive = new Drive("vda", chain(random));
    server.addExport(Export.of("vda", drive));
    var history = new BlockHistory(drive);
    List<NbdClient> disks = connect();
    List<Thread> threads = race(seed, history, disks);
    for (int n = 0; n < 3; n++) {
      int until = CLIENTS * REQUESTS * (n + 1) / 5;
      while (sent.get() < until && faults.isEmpty()) {
        Thread.onSpinWait();
      }
      backup(n, drive, history);
    }
    join(threads);
    sawAll(history, drive);
    history.check();
    disks.forEach(NbdClient::close);
    server.close();
    drive.close();
  }

  private void backup(int number, Drive drive, BlockHistory history) throws Exception {
    try (FileNode target = file("backup-" + number);
        FileNode scratch = file("scratch-" + number)) {
      var group =
          new BackupGroup(
              List.of(BackupOptions.of("backup-" + number, drive, target, scratch, 1L << 30)));
      BackupJob job = group.jobs().getFirst();
      var concluded = new CountDownLatch(1);
      job.addListener((_, status) -> {
        if (status == JobStatus.CONCLUDED) {
          concluded.countDown();
        }
      });
      BlockHistory.Request moment = history.begin(BlockHistory.Kind.READ, 0, SIZE);
      group.start(() -> {});
      moment.answered();
      if (!concluded.await(60, TimeUnit.SECONDS)) {
        throw new AssertionError("the backup is " + job.status());
      }
      assertThat(job.error()).isEmpty();
      moment.saw(content(target));
    }
  }

  private FileNode file(String name) throws IOException {
    Path path = folder.resolve(name);
    Files.write(path, new byte[SIZE]);
    return FileNode.open(path, OpenOptions.readWrite());
  }

  /// On an image whose file loses power: what anyone had written when somebody's flush was sent.
  @ParameterizedTest
  @Seeds(25)
  void whatWasFlushedSurvivesAPowerCut(long seed) throws Exception {
    var random = new Random(seed);
    var blocks = new PromisedBlocks(WRITERS, 64);
    var file = new CrashingFile(seed);
    boolean extended = random.nextInt(3) == 0;
    Qcow2Image.create(
        file, new CreateOptions(blocks.size(), Optional.empty(), shape(random, extended)));
    Qcow2Image image = Qcow2Image.open(file, OpenOptions.readWrite());
    server.addExport(Export.of("vda", random.nextBoolean() ? image : new Drive("vda", image)));
    file.cutPowerAt(1 + random.nextInt(1500));
    var threads = new ArrayList<Thread>();
    List<NbdClient> disks = connect();
    for (int i = 0; i < WRITERS; i++) {
      int writer = i;
      var guest = new Guest(disks.get(i % disks.size()));
      threads.add(Thread.ofPlatform().start(() -> blocks.write(writer, seed, guest)));
    }
    join(threads);
    assertThat(file.powerIsCut()).isTrue();
    for (long crash = 0; crash < 3; crash++) {
      try (Qcow2Image left =
          Qcow2Image.open(file.crash(seed * 10 + crash), OpenOptions.readWrite())) {
        blocks.verify(left);
        assertThat(left.check().corruptions()).isZero();
      }
    }
  }

  private record Guest(NbdClient disk) implements PromisedBlocks.Guest {
    @Override
    public void write(long offset, byte[] bytes, boolean forced) throws IOException {
      disk.write(offset, ByteBuffer.wrap(bytes));
      flushIf(forced);
    }

    @Override
    public void zero(long offset, int length, boolean forced) throws IOException {
      disk.writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
      flushIf(forced);
    }

    private void flushIf(boolean forced) throws IOException {
      if (forced) {
        flush();
      }
    }

    @Override
    public void flush() throws IOException {
      disk.flush();
    }
  }
}
