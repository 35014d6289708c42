// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.RequestFailure;
import io.tidemark.domain.spi.RunningDomain;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Requests of a guest that fail at its disks: who hears of it, and the pause of a domain that is
/// to wait until somebody has mended the cause. Called with the domain's lock held.
///
/// The driver holds the request from the moment of its failure; the rest of the guest is held a
/// moment later, here. A daemon that is killed takes the domain up again paused: its record says
/// so, or the guest sends the request again and it fails again.
///
/// Spec: libvirt 9.0.0, VIR_DOMAIN_EVENT_ID_IO_ERROR, virDomainGetDiskErrors.
final class DiskErrors {
  private static final System.Logger LOG = System.getLogger(DiskErrors.class.getName());

  private DiskErrors() {}

  /// Tells of a failure, then pauses the domain if the request is held still.
  static void happened(DomainLife life, Session session, RequestFailure failure) {
    Optional<LiveDisk> disk = session.live().find(failure.target()).filter(LiveDisk::hasMedium);
    if (disk.isEmpty()) {
      return;
    }
    life.event(
        new DomainEvent.IoError(
            life.ref(),
            disk.get().active().file(),
            disk.get().alias(),
            failure.action(),
            failure.noSpace()));
    try {
      if (session.live().state().isRunning()
          && session.driver().trouble(failure.target()).isPresent()) {
        session.driver().suspend();
        session.live().state(DomainState.PAUSED_IO_ERROR);
        life.stored().putLiveOrLog(session.live());
        life.lifecycle(Lifecycle.SUSPENDED_IO_ERROR);
      }
    } catch (DriverException e) {
      LOG.log(Level.ERROR, "%s: pause after a failure".formatted(life.name()), e);
    }
  }

  /// virDomainGetDiskErrors: the disks whose requests are held, each with what it met first.
  static List<DiskError> of(Session session) throws LibvirtException {
    List<DiskError> errors = new ArrayList<>();
    for (LiveDisk disk : session.live().disks()) {
      if (disk.hasMedium()) {
        try {
          session
              .driver()
              .trouble(disk.target())
              .ifPresent(trouble -> errors.add(new DiskError(disk.target(), code(trouble))));
        } catch (DriverException e) {
          throw DriverErrors.toClient("ask disk '%s'".formatted(disk.target()), e);
        }
      }
    }
    return errors;
  }

  private static int code(RunningDomain.Trouble trouble) {
    return switch (trouble) { // virDomainDiskErrorCode
      case OTHER -> 1;
      case NO_SPACE -> 2;
    };
  }
}
