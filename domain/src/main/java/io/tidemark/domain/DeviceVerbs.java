// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// Plugs disks in and out, and changes media. Safe for any thread.
///
/// **Crash order.** Plugging in: the live record names the disk, then the driver opens it: a
/// restart between finds it plugged in. Taking out: the driver flushes it, stores its bitmaps and
/// closes it, then the record forgets it: a restart between finds it still there. The persistent
/// definition, when it is concerned, is written last.
///
/// Spec: libvirt 9.0.0 `virDomainAttachDeviceFlags` and its kin; refusals and words as measured.
public final class DeviceVerbs {
  private static final System.Logger LOG = System.getLogger(DeviceVerbs.class.getName());

  private static final int FORCE = 4; // VIR_DOMAIN_DEVICE_MODIFY_FORCE

  /// Device elements that libvirt knows: another refusal than for what is none.
  private static final Set<String> DEVICES =
      Set.of(
          "disk",
          "controller",
          "filesystem",
          "interface",
          "input",
          "sound",
          "video",
          "graphics",
          "hostdev",
          "redirdev",
          "rng",
          "channel",
          "console",
          "serial",
          "parallel",
          "memory",
          "memballoon",
          "watchdog",
          "smartcard",
          "shmem",
          "tpm",
          "panic",
          "lease",
          "vsock",
          "hub",
          "nvram",
          "iommu",
          "audio");

  private final DomainLife life;
  private final DomainContext context;

  DeviceVerbs(DomainLife life, DomainContext context) {
    this.life = life;
    this.context = context;
  }

  private static XmlElement device(String xml) throws LibvirtException {
    XmlElement device = Xml.parse(xml, "device_definition", ErrorDomain.DOMAIN);
    if (!DEVICES.contains(device.name())) {
      throw ErrorCode.CONFIG_UNSUPPORTED.in(
          ErrorDomain.DOMAIN, "unknown device type '%s'".formatted(device.name()));
    }
    if (!device.name().equals("disk")) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "a device of type '%s' cannot be changed here, only disks can".formatted(device.name()));
    }
    return device;
  }

  private void redefine(Impact impact) throws LibvirtException {
    if (impact.config().isPresent()) {
      try {
        life.stored().redefine(impact.config().get());
      } catch (IOException e) {
        throw life.upkeep().cannotWrite(e);
      }
    }
  }

  /// virDomainAttachDeviceFlags.
  public void attach(String xml, int flags) throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG, "qemuDomainAttachDeviceLiveAndConfig");
    life.run(() -> {
      Impact impact = Impact.of(life, flags);
      XmlElement device = DiskCheck.complete(device(xml));
      DiskElement disk = new DiskElement(device);
      if (impact.config().isPresent()) {
        Definition config = impact.config().get();
        if (config.disk(disk.target()).isPresent()) {
          throw ErrorCode.OPERATION_INVALID.because(
              "target %s already exists".formatted(disk.target()));
        }
        config.addDisk(device.copy());
      }
      if (impact.live().isPresent()) {
        attachLive(impact.live().get(), disk);
      }
      redefine(impact);
    });
  }

  private void attachLive(Session session, DiskElement disk) throws LibvirtException {
    if (!disk.device().equals("disk")) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "%s device hotplug isn't supported".formatted(disk.device()));
    }
    Live live = session.live();
    Definition definition = live.definition();
    Optional<DiskElement> same = definition.disk(disk.target());
    if (same.isPresent()) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.DOMAIN,
          "target '%s' duplicated for disk sources '%s' and '%s'"
              .formatted(disk.target(), same.get().source().orElse(""), disk.source().orElse("")));
    }
    if (live.disks().size() >= Definition.MAX_DISKS) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "domain has %d disks, that is the most".formatted(live.disks().size()));
    }
    LiveDisk plugged = new Launch(context).plug(disk, live);
    definition.addDisk(disk.element());
    live.addDisk(plugged);
    boolean done = false;
    try {
      life.stored().putLive(session.live());
      session.driver().addDrive(plugged.driveSpec());
      done = true;
    } catch (DriverException e) {
      throw DriverErrors.toClient("add disk '%s'".formatted(disk.target()), e);
    } catch (IOException e) {
      throw life.upkeep().cannotWrite(e);
    } finally {
      if (!done) {
        live.removeDisk(plugged);
        definition.removeDisk(disk.target());
        life.stored().putLiveOrLog(session.live());
      }
    }
    TuneVerbs.apply(life.name(), session, plugged);
    life.event(new DomainEvent.DeviceAdded(life.ref(), plugged.alias()));
  }

  /// virDomainDetachDeviceFlags. Of the document only the target counts.
  public void detach(String xml, int flags) throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG, "qemuDomainDetachDeviceLiveAndConfig");
    life.run(() -> {
      Impact impact = Impact.of(life, flags);
      DiskElement disk = new DiskElement(device(xml));
      if (disk.target().isEmpty()) {
        throw new LibvirtException(
            ErrorCode.NO_TARGET,
            ErrorDomain.DOMAIN,
            "missing target information for device " + disk.source().orElse(""));
      }
      detach(impact, disk.target());
    });
  }

  private void detach(Impact impact, String target) throws LibvirtException {
    if (impact.config().isPresent() && !impact.config().get().removeDisk(target)) {
      throw ErrorCode.DEVICE_MISSING.because("no target device " + target);
    }
    if (impact.live().isPresent()) {
      Session session = impact.live().get();
      LiveDisk disk =
          session.live().disks().stream()
              .filter(found -> found.target().equals(target))
              .findFirst()
              .orElseThrow(
                  () -> ErrorCode.DEVICE_MISSING.because("disk %s not found".formatted(target)));
      detachLive(session, disk);
    }
    redefine(impact);
  }

  private void detachLive(Session session, LiveDisk disk) throws LibvirtException {
    String kind = disk.element().device();
    if (!kind.equals("disk")) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "disk device type '%s' cannot be detached".formatted(kind));
    }
    BlockJobs.checkIdle(disk, session.live());
    takeOut(session, disk);
    session.live().removeDisk(disk);
    session.live().definition().removeDisk(disk.target());
    life.stored().putLiveOrLog(session.live());
    life.event(new DomainEvent.DeviceRemoved(life.ref(), disk.alias()));
  }

  /// Out it is in any case; what could not be flushed is said in the log.
  private void takeOut(Session session, LiveDisk disk) throws LibvirtException {
    try {
      session.driver().removeDrive(disk.target());
    } catch (DriverException e) {
      if (e.kind() == DriverException.Kind.NOT_FOUND) {
        throw DriverErrors.toClient("remove disk '%s'".formatted(disk.target()), e);
      }
      LOG.log(Level.ERROR, "%s: disk %s is out".formatted(life.name(), disk.target()), e);
    }
  }

  /// virDomainDetachDeviceAlias.
  public void detachAlias(String alias, int flags) throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG, "qemuDomainDetachDeviceAliasLiveAndConfig");
    life.run(() -> {
      Impact impact = Impact.of(life, flags);
      Optional<String> target =
          impact.live().stream()
              .flatMap(session -> session.live().disks().stream())
              .filter(disk -> disk.alias().equals(alias))
              .map(LiveDisk::target)
              .findFirst();
      if (target.isEmpty()) { // a definition keeps no aliases
        throw ErrorCode.INTERNAL_ERROR.in(
            ErrorDomain.DOMAIN, "no device found with alias " + alias);
      }
      detach(impact, target.get());
    });
  }

  /// virDomainUpdateDeviceFlags: another medium in a drive that takes media; anything else only
  /// when it is as it was.
  public void update(String xml, int flags) throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG | FORCE, "qemuDomainUpdateDeviceFlags");
    life.run(() -> {
      Impact impact = Impact.of(life, flags);
      XmlElement device = DiskCheck.complete(device(xml));
      DiskElement disk = new DiskElement(device);
      if (impact.config().isPresent()) {
        Definition config = impact.config().get();
        if (!config.removeDisk(disk.target())) {
          throw ErrorCode.INVALID_ARG.because("target %s doesn't exist.".formatted(disk.target()));
        }
        config.addDisk(device.copy());
      }
      if (impact.live().isPresent()) {
        updateLive(impact.live().get(), disk);
      }
      redefine(impact);
    });
  }

  private void updateLive(Session session, DiskElement wanted) throws LibvirtException {
    LiveDisk disk =
        session.live().disks().stream()
            .filter(found -> found.target().equals(wanted.target()))
            .findFirst()
            .orElseThrow(() ->
                ErrorCode.INTERNAL_ERROR.because("disk '%s' not found".formatted(wanted.target())));
    boolean removable = disk.element().device().equals("cdrom");
    boolean sameSource = disk.element().source().equals(wanted.source());
    if (!sameSource && !removable) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "disk source can be changed only in removable drives");
    }
    requireSame(disk.element(), wanted);
    if (!sameSource) {
      BlockJobs.checkIdle(disk, session.live());
      changeMedium(session, disk, wanted);
    }
  }

  private static void requireSame(DiskElement is, DiskElement wanted) throws LibvirtException {
    for (String field :
        List.of("readonly", "shareable", "transient", "serial", "wwn", "vendor", "product")) {
      boolean same =
          is.element().child(field).isPresent() == wanted.element().child(field).isPresent()
              && is.element().childText(field).equals(wanted.element().childText(field));
      if (!same) {
        throw cannotModify(field);
      }
    }
    if (!is.bus().equals(wanted.bus())) {
      throw cannotModify("bus");
    }
    requireSameDriver(is, wanted);
    List<TypedParam> limits = IoTune.of(is).params();
    List<TypedParam> others = IoTune.of(wanted).params();
    for (int i = 0; i < limits.size(); i++) {
      if (!limits.get(i).equals(others.get(i))) {
        throw cannotModify("blkdeviotune " + limits.get(i).name());
      }
    }
  }

  /// What a document does not say is not asked to be changed; another `detect_zeroes` libvirt
  /// accepts, and does nothing.
  private static void requireSameDriver(DiskElement is, DiskElement wanted)
      throws LibvirtException {
    XmlElement old = is.element().childOrNew("driver");
    XmlElement other = wanted.element().childOrNew("driver");
    for (String field :
        List.of("cache", "error_policy", "rerror_policy", "io", "copy_on_read", "discard")) {
      if (other.hasAttribute(field) && !other.attribute(field).equals(old.attribute(field))) {
        throw cannotModify(field);
      }
    }
  }

  private static LibvirtException cannotModify(String field) {
    return ErrorCode.OPERATION_UNSUPPORTED.because(
        "cannot modify field '%s' of the disk".formatted(field));
  }

  /// The old medium goes out, the new one in; the record says so in between, so that a restart
  /// finds the new one. A new medium that cannot be opened leaves the drive empty.
  private void changeMedium(Session session, LiveDisk disk, DiskElement wanted)
      throws LibvirtException {
    Live live = session.live();
    LiveDisk loaded =
        wanted.source().isPresent()
            ? new Launch(context).plug(wanted, live)
            : new LiveDisk(wanted, List.of(), false);
    if (disk.hasMedium()) {
      takeOut(session, disk);
    }
    exchange(session, disk, loaded);
    if (loaded.hasMedium()) {
      try {
        session.driver().addDrive(loaded.driveSpec());
      } catch (DriverException e) {
        DiskElement empty = new DiskElement(wanted.element().copy());
        empty.element().removeChildren("source");
        exchange(session, loaded, new LiveDisk(empty, List.of(), false));
        throw DriverErrors.toClient("open the medium of disk '%s'".formatted(disk.target()), e);
      }
    }
    for (int reason : List.of(0, 1)) { // the tray opens, and closes
      life.event(new DomainEvent.TrayChanged(life.ref(), loaded.alias(), reason));
    }
  }

  private void exchange(Session session, LiveDisk old, LiveDisk next) throws LibvirtException {
    Live live = session.live();
    live.removeDisk(old);
    if (!live.definition().removeDisk(old.target())) {
      throw new IllegalStateException("disk " + old.target() + " is not in its definition");
    }
    live.definition().addDisk(next.element().element());
    live.addDisk(next);
    life.stored().putLiveOrLog(session.live());
  }
}
