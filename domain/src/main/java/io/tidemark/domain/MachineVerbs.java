// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;

/// Calls about processor and memory of a domain that has neither. Suspending holds its disks'
/// requests; what needs memory is refused with the reason, after what libvirt refuses first. Safe
/// for any thread.
///
/// Spec: libvirt 9.0.0; order and words of its refusals as measured.
public final class MachineVerbs {
  private static final int SAVE_FLAGS = 1 | 2 | 4; // BYPASS_CACHE RUNNING PAUSED
  private static final int DUMP_FLAGS = 1 | 2 | 4 | 8 | 16; // CRASH LIVE BYPASS RESET MEMORY_ONLY

  /// VIR_MIGRATE_UNSAFE.
  private static final int MIGRATE_UNSAFE = 512;

  private final DomainLife life;
  private final JobVerbs jobs;

  MachineVerbs(DomainLife life, JobVerbs jobs) {
    this.life = life;
    this.jobs = jobs;
  }

  void suspend() throws LibvirtException {
    life.run(() -> {
      Session running = life.requireActive();
      if (running.live().state().isPaused()) {
        return;
      }
      try {
        running.driver().suspend();
      } catch (DriverException e) {
        throw DriverErrors.toClient("suspend", e);
      }
      turn(running, DomainState.PAUSED_USER, Lifecycle.SUSPENDED_PAUSED);
    });
  }

  void resume() throws LibvirtException {
    life.run(() -> {
      Session running = life.requireActive();
      if (!running.live().state().isPaused()) {
        throw ErrorCode.OPERATION_INVALID.because("domain is already running");
      }
      try {
        running.driver().resume();
      } catch (DriverException e) {
        throw DriverErrors.toClient("resume", e);
      }
      turn(running, DomainState.RUNNING_UNPAUSED, Lifecycle.RESUMED_UNPAUSED);
    });
  }

  private void turn(Session running, DomainState state, Lifecycle told) {
    running.live().state(state);
    life.stored().putLiveOrLog(running.live());
    life.lifecycle(told);
  }

  /// virDomainReset. There is no processor to start anew; clients are told that it happened.
  public void reset(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainReset");
    life.run(this::reboot);
  }

  /// virDomainReboot: nobody is asked, as nobody is there; least of all an agent.
  public void reboot(int flags) throws LibvirtException {
    Flags.check(
        flags, Flags.SHUTDOWN_ACPI_POWER_BTN | Flags.SHUTDOWN_GUEST_AGENT, "qemuDomainReboot");
    life.run(() -> {
      GuestAgent.refuse(life, flags);
      reboot();
    });
  }

  /// virDomainHasManagedSaveImage.
  ///
  /// @return false: none is ever there
  public boolean hasManagedSave(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainHasManagedSaveImage");
    return life.locked(() -> false);
  }

  /// virDomainGetControlInfo: the domain's processor, which it has not, waits for nothing.
  public void controlInfo(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainGetControlInfo");
    life.locked(life::requireActive);
  }

  private void reboot() throws LibvirtException {
    Session running = life.requireActive();
    assert life.isCurrent(running);
    life.event(new DomainEvent.Rebooted(life.ref()));
  }

  /// virDomainSaveFlags.
  public void save(int flags) throws LibvirtException {
    Flags.check(flags, SAVE_FLAGS, "qemuDomainSaveFlags");
    life.run(() -> {
      Session running = life.requireActive();
      throw noMemory(running, "save");
    });
  }

  /// virDomainManagedSave.
  public void managedSave(int flags) throws LibvirtException {
    Flags.check(flags, SAVE_FLAGS, "qemuDomainManagedSave");
    life.run(() -> {
      Session running = life.requireActive();
      if (life.persistentDefinition().isEmpty()) {
        throw ErrorCode.OPERATION_INVALID.because("cannot do managed save for transient domain");
      }
      throw noMemory(running, "save");
    });
  }

  /// virDomainManagedSaveRemove: none is ever there.
  public void managedSaveRemove(int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainManagedSaveRemove");
    life.run(() -> {
      throw ErrorCode.SYSTEM_ERROR.because(
          "Failed to remove managed save file of domain '%s': No such file or directory"
              .formatted(life.name()));
    });
  }

  /// virDomainCoreDumpWithFormat.
  public void coreDump(int format, int flags) throws LibvirtException {
    Flags.check(flags, DUMP_FLAGS, "qemuDomainCoreDumpWithFormat");
    life.run(() -> {
      Session running = life.requireActive();
      jobs.awaitNoBackup();
      throw unsupported(running, "dump (format %d)".formatted(format));
    });
  }

  /// Every way of migrating: its disks are this host's own files, which is what libvirt refuses
  /// unless it is told to take the risk; and then there is no memory to send.
  public void migrate(int flags) throws LibvirtException {
    life.run(() -> {
      Session running = life.requireActive();
      jobs.awaitNoBackup();
      requireIdle(running);
      if (!Flags.has(flags, MIGRATE_UNSAFE)) {
        throw ErrorCode.MIGRATE_UNSAFE.because("Migration without shared storage is unsafe");
      }
      throw unsupported(running, "migrate");
    });
  }

  private LibvirtException noMemory(Session running, String what) throws LibvirtException {
    jobs.awaitNoBackup();
    requireIdle(running);
    return unsupported(running, what);
  }

  private static void requireIdle(Session running) throws LibvirtException {
    if (running.live().hasBlockJob()) {
      throw ErrorCode.OPERATION_INVALID.because("domain has active block job");
    }
  }

  private static LibvirtException unsupported(Session running, String what) {
    return ErrorCode.OPERATION_UNSUPPORTED.because(
        "a domain of type '%s' has no processor and no memory to %s"
            .formatted(running.live().definition().type(), what));
  }
}
