// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.CommitSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.StreamSpec;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

/// Pull and commit on a chain base ← s1 ← s2 ← s3, numbered 4, 3, 2, 1.
class ChainJobsTest {
  private static final Pattern SOURCE = Pattern.compile("<source file='([^']*)'");
  private static final String PULL = "pull-vda-libvirt-1-format";

  private final Daemon daemon = new Daemon(machine(false));

  private static Machine machine(boolean relative) {
    Machine machine = new Machine();
    String folder = relative ? "" : "/img/";
    machine.image("/img/base", "qcow2", 8 << 20);
    machine.image("/img/s1", "qcow2", 8 << 20, folder + "base");
    machine.image("/img/s2", "qcow2", 8 << 20, folder + "s1");
    machine.image("/img/s3", "qcow2", 8 << 20, folder + "s2");
    return machine;
  }

  private static Domain start(Daemon daemon, boolean persistent) throws LibvirtException {
    String xml = Daemon.xml(Daemon.disk("/img/s3", "qcow2", "vda"));
    Domain domain;
    if (persistent) {
      domain = daemon.domains.defineXml(xml, 0);
      domain.create(0, Daemon.CLIENT);
    } else {
      domain = daemon.domains.createXml(xml, 0, Daemon.CLIENT);
    }
    daemon.takeEvents();
    return domain;
  }

  private static List<String> chain(String xml) {
    List<String> files = new ArrayList<>();
    Matcher matcher = SOURCE.matcher(xml.replaceAll("(?s)<mirror.*</mirror>", ""));
    while (matcher.find()) {
      files.add(matcher.group(1));
    }
    return files;
  }

  private static Optional<String> backing(Daemon daemon, String file) {
    return daemon.machine.opened(file).backing().map(found -> found.name());
  }

  private static void complete(Daemon daemon, String job) {
    daemon.running().move(job, DriverJobStatus.PENDING);
  }

  @Test
  void fullPullLeavesTheActiveLayerAlone() throws LibvirtException {
    Domain domain = start(daemon, false);
    domain.blockPull("vda", 3, 0);
    assertThat(daemon.running().streams)
        .containsExactly(new StreamSpec(PULL, "vda", Optional.empty(), Optional.empty(), 3 << 20));
    assertThat(domain.xmlDesc(0)).doesNotContain("<mirror");
    complete(daemon, PULL);
    assertThat(daemon.awaitEvents(2))
        .containsExactly("BLOCK_JOB /img/s3 PULL COMPLETED", "BLOCK_JOB_2 vda PULL COMPLETED");
    assertThat(chain(domain.xmlDesc(0))).containsExactly("/img/s3");
    assertThat(backing(daemon, "/img/s3")).isEmpty();
    assertThat(daemon.running().nodes).doesNotContainKey("libvirt-2-format");
    assertThat(daemon.running().jobIds()).isEmpty();
    assertThat(domain.blockJobInfo("vda", 0)).isEmpty();
  }

  @Test
  void pullToABaseNamesItByItsAbsolutePath() throws LibvirtException {
    Domain domain = start(daemon, false);
    domain.blockRebase("vda", "vda[4]", 0, 0);
    complete(daemon, PULL);
    daemon.awaitEvents(2);
    assertThat(chain(domain.xmlDesc(0))).containsExactly("/img/s3", "/img/base");
    assertThat(backing(daemon, "/img/s3")).contains("/img/base");
  }

  /// A persistent domain whose definition says of the chain only s3 and what is given beneath it.
  private Domain startDefined(String beneath) throws LibvirtException {
    String disk = Daemon.disk("/img/s3", "qcow2", "vda");
    String xml = Daemon.xml(disk.replace("<target", beneath + "<target"));
    Domain domain = daemon.domains.defineXml(xml, 0);
    domain.create(0, Daemon.CLIENT);
    daemon.takeEvents();
    return domain;
  }

  private static String store(String file, String beneath) {
    return "<backingStore type='file'><format type='qcow2'/><source file='%s'/>%s</backingStore>"
        .formatted(file, beneath);
  }

  private static String inactive(Domain domain) throws LibvirtException {
    return domain.xmlDesc(Flags.XML_INACTIVE).replaceAll("\\s*\n\\s*", "");
  }

  private static final String REST = store("/img/base", "<backingStore/>");

  @Test
  void definitionIsCutWhereAPullCutsTheChain() throws LibvirtException {
    Domain domain = startDefined(store("/img/s2", store("/img/s1", REST)));
    domain.blockRebase("vda", "/img/s1", 0, 0);
    complete(daemon, PULL);
    daemon.awaitEvents(2);
    assertThat(inactive(domain)).contains("<source file='/img/s3'/>" + store("/img/s1", REST));
    domain.blockPull("vda", 0, 0);
    complete(daemon, PULL);
    daemon.awaitEvents(2);
    assertThat(inactive(domain)).contains("<source file='/img/s3'/><backingStore/>");
  }

  @Test
  void definitionThatLeavesTheChainOpenSaysNothingOfItAfterAPullOfAll() throws LibvirtException {
    Domain domain = startDefined(store("/img/s2", store("/img/s1", store("/img/base", ""))));
    domain.blockPull("vda", 0, 0);
    complete(daemon, PULL);
    daemon.awaitEvents(2);
    assertThat(inactive(domain)).doesNotContain("<backingStore");
  }

  @Test
  void definitionThatSaysNothingOfTheBaseSaysNothingOfTheChainAnyMore() throws LibvirtException {
    String open = "<backingStore type='file'><format type='qcow2'/><source file='/img/s2'/>";
    Domain domain = startDefined(open + "</backingStore>");
    domain.blockCommit("vda", "/img/base", "/img/s2", 0, 0);
    complete(daemon, "commit-vda-libvirt-2-format");
    daemon.awaitEvents(2);
    assertThat(chain(domain.xmlDesc(0))).containsExactly("/img/s3", "/img/base");
    assertThat(inactive(domain)).doesNotContain("<backingStore");
  }

  @Test
  void definitionIsCutWhereACommitCutsTheChain() throws LibvirtException {
    Domain domain = startDefined(store("/img/s2", store("/img/s1", REST)));
    domain.blockCommit("vda", "/img/base", "/img/s1", 0, 0);
    complete(daemon, "commit-vda-libvirt-3-format");
    daemon.awaitEvents(2);
    assertThat(inactive(domain)).contains("<source file='/img/s3'/>" + store("/img/s2", REST));
  }

  @Test
  void definitionIsWhatItSaidOfTheBaseOfAnActiveCommit() throws LibvirtException {
    Domain domain = startDefined(store("/img/s2", store("/img/s1", REST)));
    domain.blockCommit("vda", "/img/s1", null, 0, Flags.COMMIT_ACTIVE);
    daemon.running().ready("commit-vda-libvirt-1-format");
    daemon.awaitEvents(2);
    domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
    assertThat(inactive(domain)).contains("<source file='/img/s1'/>" + REST);
  }

  @Test
  void definitionThatSaidNothingOfTheBaseOfAnActiveCommitSaysThatTheChainEnds()
      throws LibvirtException {
    Domain domain = startDefined("");
    domain.blockCommit("vda", null, null, 0, Flags.COMMIT_ACTIVE);
    daemon.running().ready("commit-vda-libvirt-1-format");
    daemon.awaitEvents(2);
    domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
    assertThat(inactive(domain)).contains("<source file='/img/base'/><backingStore/>");
  }

  @Test
  void commitBesideAJobIsRefusedForTheJobBeforeItsPlaces() throws LibvirtException {
    Domain domain = start(daemon, false);
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    assertRefused(() -> domain.blockCommit("vda", null, null, 0, 0), 83, 10);
    assertRefused(() -> domain.blockCommit("vda", "/img/nope", null, 0, 0), 8, 18);
    assertRefused(() -> domain.blockRebase("vda", "copy", 0, Flags.REBASE_COPY), 8, 10);
  }

  @Test
  void relativeNamesAreComposedLayerByLayer() throws LibvirtException {
    Daemon relative = new Daemon(machine(true));
    relative.machine.image("/img/deep/s2", "qcow2", 8 << 20, "../s1");
    relative.machine.image("/img/s3", "qcow2", 8 << 20, "deep/s2");
    assertThat(
            new ChainLookup(
                    relative.view,
                    "vda",
                    List.of(
                        new Layer(1, "/img/s3", "qcow2"),
                        new Layer(2, "/img/deep/s2", "qcow2"),
                        new Layer(3, "/img/s1", "qcow2")))
                .relativeName(1, 2))
        .isEqualTo("deep/../s1");
  }

  @Test
  void activeCommitShowsItsBaseAndPivotsToIt() throws LibvirtException {
    Domain domain = start(daemon, false);
    domain.blockCommit("vda", null, null, 0, Flags.COMMIT_ACTIVE | Flags.COMMIT_DELETE);
    String job = "commit-vda-libvirt-1-format";
    assertThat(daemon.running().commits)
        .containsExactly(
            new CommitSpec(
                job, "vda", "libvirt-1-format", "libvirt-4-format", Optional.empty(), 0));
    assertThat(domain.xmlDesc(0).replaceAll(">\\s+<", "><"))
        .contains(
            "<mirror type='file' job='active-commit'><format type='qcow2'/>"
                + "<source file='/img/base' index='4'/></mirror>");
    assertRefused(
        () -> domain.blockJobAbort("vda", Flags.ABORT_PIVOT),
        83,
        10,
        "block copy still active: block job '" + job + "' not ready for pivot yet");
    daemon.running().ready(job);
    assertThat(daemon.awaitEvents(2))
        .containsExactly(
            "BLOCK_JOB /img/s3 ACTIVE_COMMIT READY", "BLOCK_JOB_2 vda ACTIVE_COMMIT READY");
    domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
    assertThat(daemon.takeEvents())
        .containsExactly(
            "BLOCK_JOB /img/base ACTIVE_COMMIT COMPLETED",
            "BLOCK_JOB_2 vda ACTIVE_COMMIT COMPLETED");
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/base");
    assertThat(chain(domain.xmlDesc(0))).containsExactly("/img/base");
    assertThat(daemon.machine.files()).containsExactly("/img/base");
  }

  @Test
  void abortedActiveCommitDeletesNothing() throws LibvirtException {
    Domain domain = start(daemon, false);
    domain.blockCommit("vda", null, null, 0, Flags.COMMIT_ACTIVE | Flags.COMMIT_DELETE);
    daemon.running().ready("commit-vda-libvirt-1-format");
    daemon.awaitEvents(2);
    domain.blockJobAbort("vda", 0);
    assertThat(daemon.takeEvents()).last().isEqualTo("BLOCK_JOB_2 vda ACTIVE_COMMIT CANCELED");
    assertThat(daemon.machine.files()).hasSize(4);
    assertThat(chain(domain.xmlDesc(0))).hasSize(4);
  }

  @Test
  void aPivotThatTheDriverRefusesToFinalizeIsTakenBack() throws LibvirtException {
    Domain domain = start(daemon, false);
    domain.blockPull("vda", 0, 0);
    daemon.running().refuseFinalize = true;
    complete(daemon, PULL);
    assertThat(daemon.awaitEvents(2)).last().isEqualTo("BLOCK_JOB_2 vda PULL FAILED");
    assertThat(chain(domain.xmlDesc(0))).hasSize(4);
    assertThat(backing(daemon, "/img/s3")).contains("/img/s2");
  }

  @Test
  void failureIsToldOnceAndTheChainStays() throws LibvirtException {
    Domain domain = start(daemon, false);
    domain.blockCommit("vda", null, "vda[2]", 0, 0);
    daemon
        .running()
        .fail("commit-vda-libvirt-2-format", DriverException.Kind.OUT_OF_SPACE, "no space");
    assertThat(daemon.awaitEvents(2))
        .containsExactly("BLOCK_JOB /img/s3 COMMIT FAILED", "BLOCK_JOB_2 vda COMMIT FAILED");
    assertThat(chain(domain.xmlDesc(0))).hasSize(4);
    domain.blockPull("vda", 0, 0); // the disk is free
  }

  @Test
  void secondJobIsRefusedByTheKindOfTheFirst() throws LibvirtException {
    Domain domain = start(daemon, false);
    domain.blockPull("vda", 0, 0);
    String text = "disk 'vda' already in active block job";
    assertRefused(() -> domain.blockPull("vda", 0, 0), 84, 10, "Operation not supported: " + text);
    domain.blockJobAbort("vda", 0);
    domain.blockCommit("vda", null, null, 0, Flags.COMMIT_ACTIVE);
    assertRefused(() -> domain.blockPull("vda", 0, 0), 83, 10, "block copy still active: " + text);
  }

  /// What a kill at any change of what survives leaves behind.
  @FunctionalInterface
  private interface Work {
    void on(Daemon daemon, Domain domain) throws LibvirtException;
  }

  private static int killEverywhere(Work work, List<String> after, List<String> deleted)
      throws LibvirtException {
    List<String> before = List.of("/img/s3", "/img/s2", "/img/s1", "/img/base");
    int kills = 0;
    int changed = 0;
    for (int at = 0; ; at++) {
      boolean killed = false;
      for (boolean first : new boolean[] {true, false}) {
        Daemon dying = new Daemon(machine(false));
        Domain domain = start(dying, true);
        dying.view.killAtWrite(at, first);
        try {
          work.on(dying, domain);
        } catch (Machine.Killed e) {
          assertThat(dying.view.isDead()).isTrue();
        }
        boolean wasKilled = dying.view.isDead();
        dying.view.kill();
        Daemon next = new Daemon(dying.machine);
        next.domains.restore();
        List<String> chain = chain(next.domains.lookupByName("vm").xmlDesc(0));
        String kill = "kill at " + at + (first ? " before" : " after");
        assertThat(chain).as(kill).isIn(before, after);
        for (int n = 0; n < chain.size(); n++) {
          Optional<String> beneath =
              n + 1 < chain.size() ? Optional.of(chain.get(n + 1)) : Optional.empty();
          assertThat(backing(next, chain.get(n))).as(kill + ", header").isEqualTo(beneath);
        }
        boolean done = chain.equals(after);
        if (done) {
          deleted.forEach(file -> assertThat(next.machine.has(file)).as(kill).isFalse());
        } else {
          assertThat(next.machine.files()).as(kill).containsAll(before);
        }
        String definition = next.domains.lookupByName("vm").xmlDesc(Flags.XML_INACTIVE);
        assertThat(chain(definition)).as(kill).first().isEqualTo(chain.getFirst());
        assertThat(next.domains.lookupByName("vm").blockJobInfo("vda", 0)).isEmpty();
        killed |= wasKilled;
        kills += wasKilled ? 1 : 0;
        changed += done ? 1 : 0;
      }
      if (!killed) {
        assertThat(changed).isPositive();
        return kills;
      }
    }
  }

  private static void await(Daemon daemon) {
    List<String> seen = new ArrayList<>();
    Daemon.await(() -> {
      seen.addAll(daemon.takeEvents());
      return daemon.view.isDead() || seen.stream().anyMatch(text -> text.contains("COMPLETED"));
    });
  }

  @Test
  void killedAnywherePullIsWholeOrNotAtAll() throws LibvirtException {
    int kills =
        killEverywhere(
            (daemon, domain) -> {
              domain.blockRebase("vda", "/img/base", 0, 0);
              complete(daemon, PULL);
              await(daemon);
            },
            List.of("/img/s3", "/img/base"),
            List.of());
    assertThat(kills).isGreaterThanOrEqualTo(8);
  }

  @Test
  void killedAnywhereCommitIsWholeOrNotAtAll() throws LibvirtException {
    int kills =
        killEverywhere(
            (daemon, domain) -> {
              domain.blockCommit("vda", null, "/img/s2", 0, Flags.COMMIT_DELETE);
              complete(daemon, "commit-vda-libvirt-2-format");
              await(daemon);
            },
            List.of("/img/s3", "/img/base"),
            List.of("/img/s2", "/img/s1"));
    assertThat(kills).isGreaterThanOrEqualTo(8);
  }

  @Test
  void killedAnywhereActiveCommitIsWholeOrNotAtAll() throws LibvirtException {
    int kills =
        killEverywhere(
            (daemon, domain) -> {
              domain.blockCommit(
                  "vda", "/img/s1", null, 0, Flags.COMMIT_ACTIVE | Flags.COMMIT_DELETE);
              daemon.running().ready("commit-vda-libvirt-1-format");
              daemon.awaitEvents(2);
              domain.blockJobAbort("vda", Flags.ABORT_PIVOT | Flags.ABORT_ASYNC);
              await(daemon);
            },
            List.of("/img/s1", "/img/base"),
            List.of("/img/s3", "/img/s2"));
    assertThat(kills).isGreaterThanOrEqualTo(8);
  }
}
