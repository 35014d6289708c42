// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.SIZE;
import static io.tidemark.engine.Rig.drive;
import static io.tidemark.engine.Rig.node;
import static io.tidemark.engine.Rig.refuses;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.domain.spi.TransactionAction.StartView;
import io.tidemark.domain.spi.ViewExportSpec;
import io.tidemark.domain.spi.ViewServerSpec;
import io.tidemark.domain.spi.ViewServerSpec.Address;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.ModelDisk;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PullBackupTest {
  /// More than a guest of these tests may wait for one request on a busy machine.
  private static final long GUEST_LIMIT_NANOS = 5_000_000_000L;

  @TempDir private Path dir;
  private Rig rig;
  private Path socket;

  @BeforeEach
  void makeRig() {
    rig = new Rig(dir);
    socket = dir.resolve("pull.sock");
  }

  private ViewServerSpec server() {
    return new ViewServerSpec(new Address.Unix(socket), false);
  }

  private NbdClient client(String export) throws BlockException {
    return NbdClient.connect(NbdUri.unix(socket, export), ClientOptions.defaults());
  }

  private static StartView view(String target, String node, Optional<String> bitmap) {
    return new StartView(target, "pull-" + target, node, bitmap);
  }

  private static byte[] read(NbdClient client, long offset, int length) throws BlockException {
    var bytes = ByteBuffer.allocate(length);
    client.read(offset, bytes);
    return bytes.array();
  }

  @Test
  void clientsReadTheInstantOfTwoDisksWhileTheGuestWrites() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    Path vdb = rig.create("b.raw", "raw");
    RunningDomain domain =
        rig.launch(drive("vda", node("n1", vda, "qcow2")), drive("vdb", node("n2", vdb, "raw")));
    var modelA = new ModelDisk(SIZE);
    var modelB = new ModelDisk(SIZE);
    try (NbdClient a = rig.guest("vda");
        NbdClient b = rig.guest("vdb");
        var writerA = new GuestWriter(a, modelA, 1);
        var writerB = new GuestWriter(b, modelB, 2)) {
      writerA.awaitRequests(50);
      writerB.awaitRequests(50);
      domain.addNode(node("n3", rig.create("scratch-a", "qcow2"), "qcow2"));
      domain.addNode(node("n4", rig.create("scratch-b", "qcow2"), "qcow2"));
      domain.startViewServer(server());
      ModelDisk[] atInstant = new ModelDisk[2];
      atInstant[0] =
          writerA.between(() ->
              atInstant[1] =
                  writerB.between(() ->
                      domain.transaction(
                          List.of(
                              new AddBitmap("vda", "c1", 65536, false),
                              view("vda", "n3", Optional.empty()),
                              view("vdb", "n4", Optional.empty())))));
      domain.exportView(new ViewExportSpec("pull-vda", "vda", Optional.empty()));
      domain.exportView(new ViewExportSpec("pull-vdb", "vdb", Optional.empty()));
      var random = new Random(3);
      try (NbdClient pullA = client("vda");
          NbdClient again = client("vda");
          NbdClient pullB = client("vdb")) {
        assertThat(pullA.readOnly()).isTrue();
        for (int n = 0; n < 40; n++) {
          int length = 1 + random.nextInt(300_000);
          long offset = random.nextLong(SIZE - length);
          assertThat(read(pullA, offset, length)).isEqualTo(atInstant[0].read(offset, length));
          assertThat(read(again, offset, length)).isEqualTo(atInstant[0].read(offset, length));
          assertThat(read(pullB, offset, length)).isEqualTo(atInstant[1].read(offset, length));
        }
        domain.stopViewServer();
        assertThat(socket).doesNotExist();
        end(domain, "pull-vda", "n3");
        end(domain, "pull-vdb", "n4");
        assertThatThrownBy(() -> read(pullA, 0, 512)).isInstanceOf(BlockException.class);
      }
      writerA.awaitRequests(20);
    }
    domain.stop();
  }

  private void end(RunningDomain domain, String job, String node) throws DriverException {
    if (domain.jobs().stream().anyMatch(state -> state.id().equals(job) && !state.cancelled())) {
      domain.cancelJob(job);
    }
    rig.statuses.await(job, DriverJobStatus.CONCLUDED);
    domain.dismissJob(job);
    domain.removeNode(node);
  }

  /// A client asks for much and never reads its answers.
  @Test
  void clientThatStopsReadingHoldsUpNoGuestAndNoEnd() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    try (NbdClient guest = rig.guest("vda")) {
      guest.write(0, ByteBuffer.wrap(filled((int) SIZE, 7)));
      domain.addNode(node("n2", rig.create("scratch", "qcow2"), "qcow2"));
      domain.startViewServer(server());
      domain.transaction(List.of(view("vda", "n2", Optional.empty())));
      domain.exportView(new ViewExportSpec("pull-vda", "vda", Optional.empty()));
      try (var silent = new SlowReader(socket, "vda", false);
          NbdClient reader = client("vda")) {
        for (int n = 0; n < 64; n++) {
          silent.ask(0, (int) SIZE);
        }
        long worst = 0;
        for (long at = 0; at < SIZE; at += 65536) {
          long since = System.nanoTime();
          guest.write(at, ByteBuffer.wrap(filled(65536, 8)));
          worst = Math.max(worst, System.nanoTime() - since);
        }
        System.getLogger(PullBackupTest.class.getName())
            .log(System.Logger.Level.INFO, "worst guest write: {0} us", worst / 1000);
        assertThat(worst).isLessThan(GUEST_LIMIT_NANOS);
        assertThat(read(reader, 0, (int) SIZE)).isEqualTo(filled((int) SIZE, 7));
        domain.stopViewServer();
      }
      end(domain, "pull-vda", "n2");
    }
    domain.stop();
  }

  private static byte[] filled(int length, long seed) {
    byte[] bytes = new byte[length];
    new Random(seed).nextBytes(bytes);
    return bytes;
  }

  @Test
  void failsPastTheBoundOfItsScratchAndTheGuestDoesNot() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    rig.fill(vda, "qcow2", 0, Rig.bytes(8 * 65536, 1));
    RunningDomain domain =
        new EmbeddedDriver(rig.config.withScratchLimit(2 * 65536))
            .launch(rig.spec(drive("vda", node("n1", vda, "qcow2"))), rig.statuses);
    domain.addNode(node("n2", rig.create("scratch", "qcow2"), "qcow2"));
    domain.startViewServer(server());
    domain.transaction(List.of(view("vda", "n2", Optional.empty())));
    domain.exportView(new ViewExportSpec("pull-vda", "vda", Optional.empty()));
    try (NbdClient guest = rig.guest("vda");
        NbdClient client = client("vda")) {
      guest.write(0, ByteBuffer.wrap(Rig.bytes(2 * 65536, 2)));
      assertThat(read(client, 0, 65536)).isEqualTo(Rig.bytes(65536, 1));
      guest.write(2 * 65536, ByteBuffer.wrap(Rig.bytes(6 * 65536, 2)));
      rig.statuses.await("pull-vda", DriverJobStatus.CONCLUDED);
      assertThat(read(guest, 0, 8 * 65536)).isEqualTo(Rig.bytes(8 * 65536, 2));
      assertThatThrownBy(() -> read(client, 0, 65536)).isInstanceOf(BlockException.class);
    }
    assertThat(domain.jobs())
        .singleElement()
        .satisfies(job -> assertThat(job.error().orElseThrow()).hasMessageContaining("131072"));
    domain.dismissJob("pull-vda");
    domain.removeNode("n2");
    domain.stop();
  }

  @Test
  void refusesWhatDoesNotFitTogether() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    RunningDomain domain = rig.launch(drive("vda", node("n1", vda, "qcow2")));
    domain.addNode(node("n2", rig.create("scratch", "qcow2"), "qcow2"));
    refuses(
        () -> domain.exportView(new ViewExportSpec("pull-vda", "vda", Optional.empty())),
        Kind.GENERIC,
        "NBD server not running");
    Files.writeString(socket, "mine");
    refuses(() -> domain.startViewServer(server()), Kind.GENERIC, "is a file and no socket");
    assertThat(socket).hasContent("mine");
    Files.writeString(socket, "");
    domain.startViewServer(server());
    refuses(() -> domain.startViewServer(server()), Kind.GENERIC, "already running");
    domain.transaction(List.of(view("vda", "n2", Optional.empty())));
    domain.exportView(new ViewExportSpec("pull-vda", "vda", Optional.empty()));
    refuses(
        () -> domain.exportView(new ViewExportSpec("pull-vda", "vda", Optional.empty())),
        Kind.GENERIC,
        "already has export named 'vda'");
    domain.stop();
    assertThat(socket).doesNotExist();
  }

  @Test
  void tlsWithoutCertificatesIsRefused() throws Exception {
    Path vda = rig.create("a.qcow2", "qcow2");
    var config = rig.config.withBackupTls(new EngineConfig.BackupTls(dir.resolve("no-pki"), true));
    RunningDomain domain =
        new EmbeddedDriver(config)
            .launch(rig.spec(drive("vda", node("n1", vda, "qcow2"))), rig.statuses);
    refuses(
        () -> domain.startViewServer(new ViewServerSpec(new Address.Unix(socket), true)),
        Kind.GENERIC,
        "no-pki");
    assertThat(socket).doesNotExist();
    domain.stop();
  }
}
