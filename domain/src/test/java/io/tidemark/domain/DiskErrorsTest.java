// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.DriveManners;
import io.tidemark.domain.spi.DriveManners.OnError;
import io.tidemark.domain.spi.DriveManners.WrittenZeroes;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.RequestFailure.Action;
import org.junit.jupiter.api.Test;

class DiskErrorsTest {
  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  private DomainState awaitState(Domain domain, DomainState state) throws LibvirtException {
    Daemon.await(() -> {
      try {
        return domain.state() == state;
      } catch (LibvirtException e) {
        throw new AssertionError(e);
      }
    });
    return domain.state();
  }

  @Test
  void domainIsPausedWhileARequestIsHeldAndGoesOnWhenItIsResumed() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    daemon.running().requestFails("vda", Action.HELD, true);
    assertThat(daemon.awaitEvents(2))
        .containsExactly("IO_ERROR /img/a.qcow2 virtio-disk0 HELD enospc", "SUSPENDED_IO_ERROR");
    assertThat(domain.state()).isEqualTo(DomainState.PAUSED_IO_ERROR);
    assertThat(daemon.running().paused).isTrue();
    assertThat(domain.diskErrors(0)).containsExactly(new DiskError("vda", 2));

    domain.resume();
    assertThat(daemon.takeEvents()).containsExactly("RESUMED_UNPAUSED");
    assertThat(domain.diskErrors(0)).isEmpty();
    assertThat(daemon.running().paused).isFalse();
  }

  @Test
  void pauseOutlivesTheDaemon() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    daemon.running().requestFails("vdb", Action.HELD, false);
    awaitState(domain, DomainState.PAUSED_IO_ERROR);
    assertThat(domain.diskErrors(0)).containsExactly(new DiskError("vdb", 1));
    daemon.view.kill();
    Daemon second = new Daemon(machine);
    second.domains.restore();
    assertThat(second.domains.lookupByName("vm").state()).isEqualTo(DomainState.PAUSED_IO_ERROR);
    assertThat(second.running().paused).isTrue();
  }

  @Test
  void otherFailuresAreToldAndPauseNothing() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    daemon.running().requestFails("vda", Action.REPORTED, false);
    daemon.running().requestFails("vdb", Action.IGNORED, true);
    assertThat(daemon.awaitEvents(2))
        .containsExactly(
            "IO_ERROR /img/a.qcow2 virtio-disk0 REPORTED",
            "IO_ERROR /img/b.qcow2 virtio-disk1 IGNORED enospc");
    assertThat(domain.state().isRunning()).isTrue();
  }

  @Test
  void domainThatAClientPausedStaysPausedByTheClient() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    domain.suspend();
    daemon.running().requestFails("vda", Action.HELD, true);
    assertThat(daemon.awaitEvents(2))
        .containsExactly("SUSPENDED_PAUSED", "IO_ERROR /img/a.qcow2 virtio-disk0 HELD enospc");
    assertThat(domain.state()).isEqualTo(DomainState.PAUSED_USER);
    assertThat(domain.diskErrors(0)).containsExactly(new DiskError("vda", 2));
  }

  @Test
  void failureThatWasMendedMeanwhilePausesNothing() throws LibvirtException {
    Domain domain = daemon.startPersistent();
    FakeDomain running = daemon.running();
    running.listener.requestFailed(
        new io.tidemark.domain.spi.RequestFailure("vda", Action.HELD, true));
    assertThat(daemon.awaitEvents(1))
        .containsExactly("IO_ERROR /img/a.qcow2 virtio-disk0 HELD enospc");
    assertThat(domain.state().isRunning()).isTrue();
  }

  private DriveManners manners(String attributes) throws LibvirtException {
    String disk = Daemon.disk("/img/b.qcow2", "qcow2' " + attributes + " cache='writeback", "vda");
    Domain domain = daemon.domains.createXml(Daemon.xml(disk), 0, Daemon.CLIENT);
    DriveSpec drive = daemon.running().spec.drives().getFirst();
    domain.destroy(0);
    return drive.manners();
  }

  @Test
  void driverAttributesSayHowRequestsAreTaken() throws LibvirtException {
    assertThat(manners("")).isEqualTo(DriveManners.USUAL);
    assertThat(DriveManners.USUAL)
        .isEqualTo(
            new DriveManners(OnError.REPORT, OnError.STOP_WITHOUT_SPACE, true, WrittenZeroes.DATA));
    assertThat(manners("error_policy='stop'"))
        .extracting(DriveManners::onReadError, DriveManners::onWriteError)
        .containsExactly(OnError.STOP, OnError.STOP);
    assertThat(manners("error_policy='enospace'"))
        .extracting(DriveManners::onReadError, DriveManners::onWriteError)
        .containsExactly(OnError.REPORT, OnError.STOP_WITHOUT_SPACE);
    assertThat(manners("error_policy='report' rerror_policy='ignore'"))
        .extracting(DriveManners::onReadError, DriveManners::onWriteError)
        .containsExactly(OnError.IGNORE, OnError.REPORT);
    assertThat(manners("discard='ignore' detect_zeroes='unmap'"))
        .extracting(DriveManners::discard, DriveManners::zeroes)
        .containsExactly(false, WrittenZeroes.ZEROES);
    assertThat(manners("detect_zeroes='unmap'").zeroes()).isEqualTo(WrittenZeroes.UNMAP);
    assertThat(manners("discard='unmap' detect_zeroes='on'").zeroes())
        .isEqualTo(WrittenZeroes.ZEROES);
  }

  private void assertRefused(String attributes, int domain, int code, String text) {
    String disk = Daemon.disk("/img/b.qcow2", "qcow2' " + attributes + " cache='writeback", "vda");
    Refusals.assertRefused(() -> daemon.domains.defineXml(Daemon.xml(disk), 0), code, domain, text);
  }

  @Test
  void valuesThatMeanNothingAreRefusedAsLibvirtRefusesThem() {
    assertRefused(
        "error_policy='foo'",
        5,
        27,
        "XML error: Invalid value for attribute 'error_policy' in element 'driver': 'foo'.");
    assertRefused(
        "discard='foo'",
        5,
        27,
        "XML error: Invalid value for attribute 'discard' in element 'driver': 'foo'.");
    assertRefused(
        "rerror_policy='enospace'",
        20,
        67,
        "unsupported configuration: Invalid disk read error policy: 'enospace'");
    assertRefused(
        "io='native'",
        10,
        67,
        "unsupported configuration: io='native' needs either no disk cache or directsync cache"
            + " mode");
  }

  @Test
  void updateRefusesOtherMannersAndKeepsThoseItDoesNotName() throws LibvirtException {
    String is = "qcow2' error_policy='stop' discard='unmap' detect_zeroes='off";
    Domain domain =
        daemon.domains.createXml(
            Daemon.xml(Daemon.disk("/img/b.qcow2", is, "vda")), 0, Daemon.CLIENT);
    for (String field : new String[] {"error_policy", "rerror_policy", "discard", "cache", "io"}) {
      String value = field.equals("cache") ? "none" : field.equals("io") ? "threads" : "ignore";
      String other = Daemon.disk("/img/b.qcow2", "qcow2' " + field + "='" + value, "vda");
      Refusals.assertRefused(
          () -> domain.devices().update(other, 1),
          84,
          10,
          "Operation not supported: cannot modify field '" + field + "' of the disk");
    }
    domain.devices().update(Daemon.disk("/img/b.qcow2", "qcow2' detect_zeroes='on", "vda"), 1);
    assertThat(domain.xmlDesc(0))
        .contains(
            "<driver name='qemu' type='qcow2' error_policy='stop' discard='unmap'"
                + " detect_zeroes='off'/>");
  }
}
