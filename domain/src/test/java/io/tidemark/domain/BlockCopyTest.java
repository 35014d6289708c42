// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.StateStore;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.Test;

class BlockCopyTest {
  private static final String JOB = "copy-vda-libvirt-2-format";
  private static final String DEST = "<disk type='file'><source file='/img/copy'/></disk>";
  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  private static String part(String xml, String from, String to) {
    int start = xml.indexOf(from);
    return xml.substring(start, xml.indexOf(to, start) + to.length());
  }

  /// The live `<disk>` of vda without white space between elements.
  private static String vda(Domain domain, int flags) throws LibvirtException {
    return part(domain.xmlDesc(flags), "<disk", "</disk>").replaceAll(">\\s+<", "><");
  }

  @Test
  void pivotMovesTheGuestToTheCopy() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    assertThat(vda(domain, 0))
        .contains(
            "<mirror type='file' file='/img/copy' format='qcow2' job='copy'>"
                + "<format type='qcow2'/><source file='/img/copy' index='4'/><backingStore/></mirror>"
                + "<target");
    daemon.running().ready(JOB);
    assertThat(daemon.awaitEvents(2))
        .containsExactly("BLOCK_JOB /img/a.qcow2 COPY READY", "BLOCK_JOB_2 vda COPY READY");
    assertThat(vda(domain, 0)).contains("job='copy' ready='yes'>");
    domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
    assertThat(daemon.takeEvents())
        .containsExactly("BLOCK_JOB /img/copy COPY COMPLETED", "BLOCK_JOB_2 vda COPY COMPLETED");
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/copy");
    assertThat(vda(domain, 0))
        .isEqualTo(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
                + "<source file='/img/copy' index='4'/><backingStore/>"
                + "<target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>");
    assertThat(domain.blockJobInfo("vda", 0)).isEmpty();
    assertThat(daemon.running().nodes)
        .containsOnlyKeys("libvirt-1-format", "libvirt-3-format", "libvirt-4-format");
    assertThat(daemon.running().jobIds()).isEmpty();
  }

  @Test
  void shallowCopyStandsOnTheSourcesBackingChain() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("/img/a.qcow2", "/img/copy", 0, Flags.REBASE_COPY | Flags.REBASE_SHALLOW);
    assertThat(machine.opened("/img/copy").backing())
        .hasValueSatisfying(backing -> assertThat(backing.name()).isEqualTo("/img/base.qcow2"));
    assertThat(vda(domain, 0))
        .contains("<source file='/img/copy' index='4'/></mirror>")
        .doesNotContain("index='4'/><backingStore/>");
    MirrorSpec mirror = daemon.running().mirrors.getFirst();
    assertThat(mirror.shallow()).isTrue();
    assertThat(mirror.targetIsZero()).isTrue();
    daemon.running().ready(JOB);
    daemon.awaitEvents(2);
    domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
    assertThat(vda(domain, 0))
        .contains(
            "<source file='/img/copy' index='4'/><backingStore type='file' index='3'>"
                + "<format type='qcow2'/><source file='/img/base.qcow2'/><backingStore/>");
  }

  @Test
  void reusedShallowTargetKeepsTheChainInItsHeader() throws LibvirtException {
    machine.image("/img/other.qcow2", "qcow2", 8 << 20);
    machine.image("/img/copy", "qcow2", 8 << 20, "/img/other.qcow2");
    Domain domain = daemon.startTransient();
    domain.blockRebase(
        "vda", "/img/copy", 0, Flags.REBASE_COPY | Flags.REBASE_SHALLOW | Flags.REBASE_REUSE_EXT);
    assertThat(vda(domain, 0))
        .contains(
            "index='4'/><backingStore type='file' index='5'><format type='qcow2'/>"
                + "<source file='/img/other.qcow2'/><backingStore/></backingStore></mirror>");
    assertThat(daemon.running().mirrors.getFirst().targetIsZero()).isFalse();
  }

  @Test
  void abortLeavesTheCopyAndTheGuestWhereTheyAre() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockCopy("vda", DEST, List.of(), 0);
    domain.blockJobAbort("vda", 0);
    assertThat(daemon.takeEvents())
        .containsExactly("BLOCK_JOB /img/a.qcow2 COPY CANCELED", "BLOCK_JOB_2 vda COPY CANCELED");
    assertThat(machine.has("/img/copy")).isTrue();
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/a.qcow2");
    assertThat(vda(domain, 0)).doesNotContain("mirror");
    // the disk is free again, and numbers go on
    domain.blockCopy("vda", DEST.replace("copy", "copy2"), List.of(), 0);
    assertThat(vda(domain, 0)).contains("<source file='/img/copy2' index='5'/>");
  }

  @Test
  void asynchronousAbortReturnsAtOnce() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockCopy("vda", DEST, List.of(), 0);
    domain.blockJobAbort("vda", Flags.ABORT_ASYNC);
    assertThat(daemon.awaitEvents(2)).last().isEqualTo("BLOCK_JOB_2 vda COPY CANCELED");
  }

  @Test
  void reusedTargetOfAnotherSizeFailsTheJobNotTheCall() throws LibvirtException {
    machine.image("/img/copy", "qcow2", 4 << 20);
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY | Flags.REBASE_REUSE_EXT);
    assertThat(daemon.awaitEvents(2))
        .containsExactly("BLOCK_JOB /img/a.qcow2 COPY FAILED", "BLOCK_JOB_2 vda COPY FAILED");
    assertThat(daemon.running().mirrors).isEmpty();
    assertThat(daemon.running().nodes).doesNotContainKey("libvirt-4-format");
    assertThat(domain.blockJobInfo("vda", 0)).isEmpty();
    assertThat(machine.has("/img/copy")).isTrue();
  }

  @Test
  void failureDropsTheMirrorAndSaysSo() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockCopy("vda", DEST, List.of(), 0);
    daemon.running().fail(JOB, DriverException.Kind.OUT_OF_SPACE, "write: no space");
    assertThat(daemon.awaitEvents(2))
        .containsExactly("BLOCK_JOB /img/a.qcow2 COPY FAILED", "BLOCK_JOB_2 vda COPY FAILED");
    assertThat(vda(domain, 0)).doesNotContain("mirror");
    assertRefused(
        () -> domain.blockJobAbort("vda", 0),
        8,
        10,
        "invalid argument: disk vda does not have an active block job");
  }

  @Test
  void persistentDefinitionFollowsATransientJobsPivot() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    assertRefused(
        () -> domain.blockCopy("vda", DEST, List.of(), 0),
        55,
        10,
        "Requested operation is not valid: domain is not transient");
    assertThat(machine.has("/img/copy")).isFalse();
    domain.blockCopy("vda", DEST.replace("</disk>", "<driver type='raw'/></disk>"), List.of(), 4);
    daemon.running().ready(JOB);
    daemon.awaitEvents(2);
    domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
    assertThat(vda(domain, Flags.XML_INACTIVE))
        .isEqualTo(
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
                + "<source file='/img/copy'/><backingStore/>"
                + "<target dev='vda' bus='virtio'/></disk>");
    domain.destroy(0);
    domain.create(0, Daemon.CLIENT);
    assertThat(vda(domain, 0)).contains("<source file='/img/copy' index='2'/>");
  }

  /// Pivots vda to /img/copy while the definition cannot be written.
  private Domain pivotWithoutRoomForTheDefinition() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    domain.blockCopy("vda", DEST, List.of(), Flags.COPY_TRANSIENT_JOB);
    daemon.running().ready(JOB);
    daemon.awaitEvents(2);
    daemon.view.failKind = StateStore.Kind.DEFINITION;
    domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
    assertThat(daemon.awaitEvents(2)).last().isEqualTo("BLOCK_JOB_2 vda COPY COMPLETED");
    assertThat(vda(domain, Flags.XML_INACTIVE)).contains("/img/copy");
    assertThat(definition()).contains("/img/a.qcow2").doesNotContain("/img/copy");
    return domain;
  }

  private String definition() {
    return machine.document(StateStore.Kind.DEFINITION, "vm").orElseThrow();
  }

  @Test
  void definitionThatAPivotCouldNotWriteIsWrittenWhenTheDomainEnds() throws LibvirtException {
    Domain domain = pivotWithoutRoomForTheDefinition();
    daemon.view.failKind = null;
    domain.destroy(0);
    assertThat(definition()).contains("/img/copy").doesNotContain("/img/a.qcow2");
  }

  @Test
  void definitionThatAPivotCouldNotWriteIsWrittenAfterAKill() throws LibvirtException {
    pivotWithoutRoomForTheDefinition();
    daemon.view.kill();
    Daemon next = new Daemon(machine);
    next.domains.restore();
    assertThat(definition()).contains("/img/copy").doesNotContain("/img/a.qcow2");
    assertThat(vda(next.domains.lookupByName("vm"), Flags.XML_INACTIVE)).contains("/img/copy");
    assertThat(next.running().writesTo("vda")).isEqualTo("/img/copy");
  }

  @Test
  void currentReachesTheEndOnlyWhenReady() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 1_500_000, 8 | 64);
    FakeJob job = daemon.running().job(JOB);
    job.current = job.total;
    assertThat(domain.blockJobInfo("vda", 0))
        .hasValue(new BlockJobInfo(BlockJobType.COPY, 2, (1 << 20) - 1, 1 << 20));
    assertThat(domain.blockJobInfo("vda", Flags.BANDWIDTH_BYTES))
        .hasValue(new BlockJobInfo(BlockJobType.COPY, 1_500_000, (1 << 20) - 1, 1 << 20));
    job.current = 0;
    job.total = 0;
    assertThat(domain.blockJobInfo("vda", 0))
        .hasValue(new BlockJobInfo(BlockJobType.COPY, 2, 0, 1));
    daemon.running().ready(JOB);
    daemon.awaitEvents(2);
    assertThat(domain.blockJobInfo("vda", 0))
        .hasValue(new BlockJobInfo(BlockJobType.COPY, 2, 1, 1));
    domain.blockJobSetSpeed("vda", 3, 0);
    assertThat(job.bandwidth).isEqualTo(3 << 20);
  }

  @Test
  void secondEndOfAJobIsRefused() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    assertRefused(
        () -> domain.blockJobAbort("vda", Flags.ABORT_PIVOT),
        83,
        10,
        "block copy still active: block job 'copy-vda-libvirt-2-format' not ready for pivot yet");
    assertThat(domain.blockJobInfo("vda", 0)).isPresent();
  }

  @Test
  void destroyDuringACopyReleasesWhoWaitsForItsEnd() throws Exception {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    daemon.running().ready(JOB);
    daemon.awaitEvents(2);
    daemon.running().holdCompletion = true;
    var done = new CountDownLatch(1);
    Thread.ofVirtual()
        .start(() -> {
          try {
            domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
          } catch (LibvirtException e) {
            throw new IllegalStateException(e);
          }
          done.countDown();
        });
    Daemon.await(() -> daemon.running().calls.contains("completeJob " + JOB));
    domain.destroy(0);
    assertThat(done.await(10, java.util.concurrent.TimeUnit.SECONDS)).isTrue();
    assertThat(daemon.takeEvents()).containsExactly("STOPPED_DESTROYED");
  }

  @Test
  void recordThatCannotBeWrittenGivesThePivotUp() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    daemon.running().ready(JOB);
    daemon.awaitEvents(2);
    daemon.view.failWrites(true);
    assertRefused(
        () -> domain.blockJobAbort("vda", Flags.ABORT_PIVOT),
        9,
        10,
        "operation failed: block job 'copy-vda-libvirt-2-format' failed while pivoting:"
            + " cannot write the live record: no space left");
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/a.qcow2");
    assertThat(vda(domain, 0)).contains("/img/a.qcow2");
    assertThat(daemon.takeEvents()).last().isEqualTo("BLOCK_JOB_2 vda COPY FAILED");
  }

  @Test
  void pivotThatCannotBeFinalizedIsTakenBack() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    daemon.running().ready(JOB);
    daemon.awaitEvents(2);
    daemon.running().refuseFinalize = true;
    assertThatThrownBy(() -> domain.blockJobAbort("vda", Flags.ABORT_PIVOT))
        .isInstanceOf(LibvirtException.class)
        .hasMessageContaining("cannot finalize");
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/a.qcow2");
    assertThat(vda(domain, 0)).contains("/img/a.qcow2").doesNotContain("copy");
    assertThat(machine.document(io.tidemark.domain.spi.StateStore.Kind.LIVE, "vm").orElseThrow())
        .contains("/img/a.qcow2")
        .doesNotContain("pivoted");
  }

  @Test
  void startThatFailsRemovesWhatItMadeAndOnlyThat() throws LibvirtException {
    Domain domain = daemon.startTransient();
    daemon.running().failOn("startMirror", DriverException.Kind.IMAGE_BUSY, "write lock");
    assertRefused(
        () -> domain.blockCopy("vda", DEST, List.of(), 0),
        1,
        10,
        "internal error: unable to start the block copy: write lock");
    assertThat(machine.has("/img/copy")).isFalse();
    assertThat(daemon.running().nodes).doesNotContainKey("libvirt-4-format");
    assertThat(machine.document(io.tidemark.domain.spi.StateStore.Kind.LIVE, "vm").orElseThrow())
        .doesNotContain("<copy ");
    machine.image("/img/copy", "qcow2", 8 << 20);
    daemon.running().failOn("startMirror", DriverException.Kind.IMAGE_BUSY, "write lock");
    assertThatThrownBy(() -> domain.blockCopy("vda", DEST, List.of(), Flags.COPY_REUSE_EXT))
        .isInstanceOf(LibvirtException.class);
    assertThat(machine.has("/img/copy")).isTrue();
  }

  @Test
  void tuningReachesTheDriver() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockCopy(
        "vda",
        DEST,
        List.of(
            new TypedParam.ULLong("bandwidth", 5),
            new TypedParam.UInt("granularity", 4096),
            new TypedParam.ULLong("buf-size", 1 << 20)),
        Flags.COPY_SYNCHRONOUS_WRITES);
    assertThat(daemon.running().mirrors)
        .containsExactly(
            new MirrorSpec(JOB, "vda", "libvirt-4-format", false, true, 4096, 5, 1 << 20, true));
  }

  @Test
  void jobStatesThatMeanNothingYetChangeNothing() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    for (DriverJobStatus status :
        List.of(
            DriverJobStatus.CREATED,
            DriverJobStatus.PAUSED,
            DriverJobStatus.RUNNING,
            DriverJobStatus.WAITING,
            DriverJobStatus.ABORTING)) {
      daemon.running().move(JOB, status);
    }
    daemon.running().ready(JOB);
    assertThat(daemon.awaitEvents(2)).hasSize(2).last().isEqualTo("BLOCK_JOB_2 vda COPY READY");
  }
}
