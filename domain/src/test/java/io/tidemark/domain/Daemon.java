// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;

/// One daemon's life on a [Machine]: the registry with fakes behind it, and what it told.
final class Daemon {
  static final Duration LIMIT = Duration.ofSeconds(60);
  static final Object CLIENT = new Object();
  static final UUID UUID_A = UUID.fromString("c7a5fdbd-edaf-9455-926a-d65c16db1809");

  final Machine machine;
  final Machine.View view;
  final FakeDriver driver;
  final Domains domains;
  private final List<String> events = new ArrayList<>();

  Daemon(Machine machine) {
    this(machine, Duration.ofMillis(50));
  }

  Daemon(Machine machine, Duration patience) {
    this.machine = machine;
    view = machine.new View();
    driver = new FakeDriver(view);
    AtomicLong uuids = new AtomicLong(1);
    domains =
        new Domains(
            view,
            view,
            List.of(driver),
            new Environment(
                () -> Instant.ofEpochSecond(1_800_000_000),
                () -> new UUID(uuids.getAndIncrement() << 32, 7),
                patience,
                0,
                0));
    domains.addListener(this::heard);
  }

  /// A machine with a chain of two under vda, one qcow2 under vdb.
  static Machine usualMachine() {
    Machine machine = new Machine();
    machine.image("/img/base.qcow2", "qcow2", 8 << 20);
    machine.image("/img/a.qcow2", "qcow2", 8 << 20, "/img/base.qcow2");
    machine.image("/img/b.qcow2", "qcow2", 8 << 20);
    return machine;
  }

  static String disk(String file, String format, String target) {
    return "<disk type='file'><driver type='%s'/><source file='%s'/><target dev='%s'/></disk>"
        .formatted(format, file, target);
  }

  static String xml(String... disks) {
    return "<domain type='tidemark'><name>vm</name><uuid>%s</uuid><devices>%s</devices></domain>"
        .formatted(UUID_A, String.join("", disks));
  }

  static String usualXml() {
    return xml(disk("/img/a.qcow2", "qcow2", "vda"), disk("/img/b.qcow2", "qcow2", "vdb"));
  }

  Domain startTransient() throws LibvirtException {
    Domain domain = domains.createXml(usualXml(), 0, CLIENT);
    takeEvents();
    return domain;
  }

  Domain startPersistent() throws LibvirtException {
    Domain domain = domains.defineXml(usualXml(), 0);
    domain.create(0, CLIENT);
    takeEvents();
    return domain;
  }

  FakeDomain running() {
    return driver.of("vm");
  }

  private void heard(DomainEvent event) {
    synchronized (events) {
      events.add(shown(event));
      events.notifyAll();
    }
  }

  private static String shown(DomainEvent event) {
    return switch (event) {
      case DomainEvent.LifecycleChanged(_, Lifecycle change) -> change.name();
      case DomainEvent.BlockJob(_, String path, BlockJobType type, BlockJobStatus status) ->
          "BLOCK_JOB %s %s %s".formatted(path, type, status);
      case DomainEvent.BlockJob2(_, String target, BlockJobType type, BlockJobStatus status) ->
          "BLOCK_JOB_2 %s %s %s".formatted(target, type, status);
      case DomainEvent.Rebooted _ -> "REBOOT";
      case DomainEvent.MetadataChanged(_, int type, var uri) ->
          "METADATA " + type + " " + uri.orElse("-");
      case DomainEvent.IoError(_, String path, String alias, var action, boolean noSpace) ->
          "IO_ERROR %s %s %s%s".formatted(path, alias, action, noSpace ? " enospc" : "");
      case DomainEvent.DiskChanged(_, String path, String alias, int reason) ->
          "DISK_CHANGE %s %s %d".formatted(path, alias, reason);
      case DomainEvent.TrayChanged(_, String alias, int reason) -> "TRAY " + alias + " " + reason;
      case DomainEvent.DeviceRemoved(_, String alias) -> "DEVICE_REMOVED " + alias;
      case DomainEvent.DeviceAdded(_, String alias) -> "DEVICE_ADDED " + alias;
      case DomainEvent.Tunable(_, List<TypedParam> params) -> "TUNABLE " + params(params);
      case DomainEvent.BlockThreshold(_, String device, String path, long at, long excess) ->
          "BLOCK_THRESHOLD %s %s %d %d".formatted(device, path, at, excess);
      case DomainEvent.JobCompleted(_, List<TypedParam> params) ->
          "JOB_COMPLETED " + params(params);
    };
  }

  static String params(List<TypedParam> params) {
    StringBuilder text = new StringBuilder();
    for (TypedParam param : params) {
      Object value =
          switch (param) {
            case TypedParam.Int(_, int number) -> number;
            case TypedParam.UInt(_, int number) -> number;
            case TypedParam.LLong(_, long number) -> number;
            case TypedParam.ULLong(_, long number) -> number;
            case TypedParam.Dbl(_, double number) -> number;
            case TypedParam.Bool(_, boolean truth) -> truth;
            case TypedParam.Str(_, String string) -> string;
          };
      text.append(text.isEmpty() ? "" : " ").append(param.name()).append('=').append(value);
    }
    return text.toString();
  }

  List<String> takeEvents() {
    synchronized (events) {
      List<String> taken = List.copyOf(events);
      events.clear();
      return taken;
    }
  }

  /// Waits until so many events came, and takes them.
  List<String> awaitEvents(int count) {
    await(() -> {
      synchronized (events) {
        return events.size() >= count;
      }
    });
    return takeEvents();
  }

  static void await(BooleanSupplier condition) {
    long end = System.nanoTime() + LIMIT.toNanos();
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).as("waited %s in vain", LIMIT).isLessThan(end);
      LockSupport.parkNanos(200_000);
    }
  }
}
