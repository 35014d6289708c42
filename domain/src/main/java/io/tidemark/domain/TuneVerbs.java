// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What clients set on disks beside their content: limits of requests, a threshold of writes. Safe
/// for any thread.
///
/// Spec: libvirt 9.0.0 `virDomainSetBlockIoTune`, `virDomainSetBlockThreshold`.
public final class TuneVerbs {
  private static final System.Logger LOG = System.getLogger(TuneVerbs.class.getName());
  private static final int STRING_OKAY = 4; // VIR_TYPED_PARAM_STRING_OKAY

  private final DomainLife life;

  TuneVerbs(DomainLife life) {
    this.life = life;
  }

  /// virDomainSetBlockIoTune.
  public void setIoTune(String disk, List<TypedParam> params, int flags) throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG, "qemuDomainSetBlockIoTune");
    life.run(() -> {
      Map<String, TypedParam> wanted = IoTune.request(params);
      Impact impact = Impact.of(life, flags);
      if (impact.config().isPresent()) {
        DiskElement element = inConfig(impact.config().get(), disk);
        IoTune.of(element).with(wanted).writeTo(element);
      }
      if (impact.live().isPresent()) {
        setLive(impact.live().get(), disk, wanted, params);
      }
      if (impact.config().isPresent()) {
        try {
          life.stored().redefine(impact.config().get());
        } catch (IOException e) {
          throw life.upkeep().cannotWrite(e);
        }
      }
    });
  }

  private static DiskElement inConfig(Definition definition, String name) throws LibvirtException {
    return definition.disks().stream()
        .filter(disk -> disk.target().equals(name) || disk.source().equals(Optional.of(name)))
        .findFirst()
        .orElseThrow(() ->
            ErrorCode.INVALID_ARG.because(
                "disk '%s' was not found in the domain config".formatted(name)));
  }

  private static LiveDisk withMedium(Session session, String name) throws LibvirtException {
    LiveDisk disk = session.live().disk(name);
    if (!disk.hasMedium()) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "disk '%s' has no medium whose requests could be limited".formatted(disk.target()));
    }
    return disk;
  }

  /// The disks of a group are limited together: all of them get what one gets.
  private void setLive(
      Session session, String name, Map<String, TypedParam> wanted, List<TypedParam> params)
      throws LibvirtException {
    LiveDisk disk = withMedium(session, name);
    IoTune before = IoTune.of(disk.element());
    String group =
        wanted.get("group_name") instanceof TypedParam.Str(_, String given)
            ? given
            : before.group();
    List<LiveDisk> members = new ArrayList<>();
    for (LiveDisk other : session.live().disks()) {
      if (other == disk || (!group.isEmpty() && IoTune.of(other.element()).group().equals(group))) {
        members.add(other);
      }
    }
    IoTune base =
        members.stream()
            .filter(member -> member != disk && !before.group().equals(group))
            .findFirst()
            .map(member -> IoTune.of(member.element()))
            .orElse(before);
    IoTune tune = base.with(wanted);
    for (LiveDisk member : members) {
      try {
        session.driver().setThrottle(member.target(), tune.spec());
      } catch (DriverException e) {
        throw DriverErrors.toClient("limit the requests of disk '%s'".formatted(name), e);
      }
      tune.writeTo(member.element());
    }
    life.stored().putLiveOrLog(session.live());
    List<TypedParam> told = new ArrayList<>();
    told.add(new TypedParam.Str("blkdeviotune.disk", disk.target()));
    for (TypedParam param : params) {
      told.add(
          param instanceof TypedParam.Str(String key, String value)
              ? new TypedParam.Str("blkdeviotune." + key, value)
              : new TypedParam.ULLong(
                  "blkdeviotune." + param.name(),
                  param instanceof TypedParam.ULLong(_, long value) ? value : 0));
    }
    life.event(new DomainEvent.Tunable(life.ref(), told));
  }

  /// virDomainGetBlockIoTune.
  ///
  /// @param disk empty: only the number of parameters is wanted
  public List<TypedParam> ioTune(Optional<String> disk, int flags) throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG | STRING_OKAY, "qemuDomainGetBlockIoTune");
    Impact.requireOne(flags);
    return life.locked(() -> {
      Impact impact = Impact.of(life, flags);
      if (disk.isEmpty()) {
        return IoTune.of(new DiskElement(new XmlElement("disk"))).params(); // to be counted
      }
      DiskElement element =
          impact.live().isPresent()
              ? withMedium(impact.live().get(), disk.get()).element()
              : inConfig(impact.config().orElseThrow(), disk.get());
      return IoTune.of(element).params();
    });
  }

  /// Gives a driver the limits that the disks' documents say, after a start.
  static void applyAll(String domain, Session session) {
    for (LiveDisk disk : session.live().disks()) {
      apply(domain, session, disk);
    }
  }

  static void apply(String domain, Session session, LiveDisk disk) {
    IoTune tune = IoTune.of(disk.element());
    if (disk.hasMedium() && tune.spec().isPresent()) {
      try {
        session.driver().setThrottle(disk.target(), tune.spec());
      } catch (DriverException e) {
        LOG.log(Level.ERROR, "%s: limits of disk %s".formatted(domain, disk.target()), e);
      }
    }
  }

  /// virDomainSetBlockThreshold.
  ///
  /// @param device `vda`, or `vda[N]` for an image of its chain
  /// @param bytes unsigned; 0: none any more
  public void setThreshold(String device, long bytes, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainSetBlockThreshold");
    life.run(() -> {
      Session session = life.requireActive();
      for (LiveDisk disk : session.live().disks()) {
        if (disk.target().equals(device) && !disk.hasMedium()) {
          throw ErrorCode.INTERNAL_ERROR.in(
              ErrorDomain.NONE, "disk '%s' has no medium".formatted(device));
        }
        for (Layer layer : disk.layers()) {
          boolean active = layer.equals(disk.active());
          if (device.equals("%s[%d]".formatted(disk.target(), layer.index()))
              || (active && device.equals(disk.target()))) {
            if (active) { // nothing is written beneath
              watch(session, disk, bytes);
            }
            return;
          }
        }
      }
      throw ErrorCode.INVALID_ARG.because("failed to find disk '%s'".formatted(device));
    });
  }

  private static void watch(Session session, LiveDisk disk, long bytes) throws LibvirtException {
    try {
      session.driver().setWriteThreshold(disk.target(), bytes);
      disk.threshold(bytes);
    } catch (DriverException e) {
      throw DriverErrors.toClient("watch the writes of disk '%s'".formatted(disk.target()), e);
    }
  }

  /// Tells clients of a write beyond a threshold, under both names of the image.
  static void passed(DomainLife life, Session session, JobWatch.Passed passed) {
    Optional<LiveDisk> found = session.live().find(passed.target());
    if (found.isEmpty() || !found.get().hasMedium()) {
      return;
    }
    LiveDisk disk = found.get();
    if (disk.threshold() == passed.threshold()) {
      disk.threshold(0);
    }
    for (String device :
        List.of(disk.target(), "%s[%d]".formatted(disk.target(), disk.active().index()))) {
      life.event(
          new DomainEvent.BlockThreshold(
              life.ref(), device, disk.active().file(), passed.threshold(), passed.excess()));
    }
  }
}
