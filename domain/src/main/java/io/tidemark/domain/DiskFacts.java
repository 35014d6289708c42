// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriveStatistics;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageSizes;
import io.tidemark.domain.spi.Storage;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Sizes and statistics of disks. Every method is called with the domain's lock held.
final class DiskFacts {
  private final DomainLife domain;
  private final DomainContext context;

  DiskFacts(DomainLife domain, DomainContext context) {
    this.domain = domain;
    this.context = context;
  }

  ImageSizes blockInfo(String name) throws LibvirtException {
    Optional<Session> session = domain.runningSession();
    try {
      if (session.isPresent()) {
        LiveDisk disk = session.get().live().find(name).orElseThrow(() -> notAssigned(name));
        if (!disk.hasMedium()) {
          throw ErrorCode.INVALID_ARG.because(
              "disk '%s' does not currently have a source assigned".formatted(name));
        }
        return session.get().driver().sizes(disk.target());
      }
      DiskElement disk = definedDisk(name).orElseThrow(() -> notAssigned(name));
      String file =
          disk.source()
              .orElseThrow(() ->
                  ErrorCode.INVALID_ARG.because(
                      "disk '%s' does not currently have a source assigned".formatted(name)));
      return context.images().sizes(DiskElement.path(file), disk.format());
    } catch (DriverException e) {
      throw DriverErrors.toClient("ask the size of disk '%s'".formatted(name), e);
    }
  }

  private Optional<DiskElement> definedDisk(String name) {
    return domain.persistentDefinition().stream()
        .flatMap(definition -> definition.disks().stream())
        .filter(
            disk -> disk.target().equals(name) || disk.source().filter(name::equals).isPresent())
        .findFirst();
  }

  private static final long MAX_KIB = (1L << 54) - 1;
  private static final long SECTOR = 512;

  /// Most bytes of one peek, the protocol's limit.
  private static final int MAX_PEEK_BYTES = 4 << 20;

  /// The size that virDomainBlockResize means.
  static long bytes(long size, boolean inBytes) throws LibvirtException {
    if (inBytes) {
      return size;
    }
    if (size < 0 || size > MAX_KIB) {
      throw ErrorCode.OVERFLOW.because("size must be less than " + MAX_KIB);
    }
    return size << 10;
  }

  void resize(String name, long bytes) throws LibvirtException {
    Session session = domain.requireActive();
    LiveDisk disk =
        session
            .live()
            .find(name)
            .orElseThrow(() ->
                ErrorCode.INVALID_ARG.because(
                    "disk '%s' was not found in the domain config".formatted(name)));
    if (!disk.hasMedium() || disk.element().readOnly()) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "can't resize empty or readonly disk '%s'".formatted(disk.target()));
    }
    if (bytes < 0 || bytes > Long.MAX_VALUE - SECTOR) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "a size of %s bytes is too large".formatted(Long.toUnsignedString(bytes)));
    }
    try {
      session.driver().resize(disk.target(), (bytes + SECTOR - 1) / SECTOR * SECTOR);
    } catch (DriverException e) {
      throw DriverErrors.toClient("resize disk '%s'".formatted(disk.target()), e);
    }
  }

  ByteBuffer peek(String name, long offset, int size) throws LibvirtException {
    Optional<Session> session = domain.runningSession();
    Optional<DiskElement> disk =
        session.isPresent()
            ? session.get().live().find(name).map(LiveDisk::element)
            : definedDisk(name);
    DiskElement found =
        disk.orElseThrow(
            () -> ErrorCode.INVALID_ARG.because("disk '%s' not found in domain".formatted(name)));
    String format = found.source().isPresent() ? found.format() : "none";
    if (!format.equals("raw")) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "peeking is only supported for disk with 'raw' format not '%s'".formatted(format));
    }
    Path file =
        found
            .storage()
            .flatMap(Storage::path)
            .orElseThrow(() ->
                ErrorCode.OPERATION_UNSUPPORTED.because(
                    "peeking is not supported for the network disk '%s'".formatted(name)));
    if (size < 0 || size > MAX_PEEK_BYTES) {
      throw ErrorCode.INVALID_ARG.because(
          "size %s is larger than %d bytes"
              .formatted(Integer.toUnsignedString(size), MAX_PEEK_BYTES));
    }
    if (size == 0) {
      throw new LibvirtException(
          ErrorCode.SYSTEM_ERROR,
          ErrorDomain.STORAGE,
          "cannot read header '%s': Invalid argument".formatted(file));
    }
    if (offset < 0) {
      throw new LibvirtException(
          ErrorCode.SYSTEM_ERROR,
          ErrorDomain.STORAGE,
          "cannot seek into '%s': Invalid argument".formatted(file));
    }
    ByteBuffer bytes = read(file, offset, size);
    if (bytes.remaining() < size) {
      throw ErrorCode.INVALID_ARG.because(
          "'%s' starting from %s has only %d bytes available"
              .formatted(name, Long.toUnsignedString(offset), bytes.remaining()));
    }
    return bytes;
  }

  private ByteBuffer read(Path file, long offset, int size) throws LibvirtException {
    try {
      return context.images().peek(file, offset, size);
    } catch (DriverException e) {
      throw DriverErrors.toClient("read '%s'".formatted(file), e);
    }
  }

  /// The target of a disk of a domain that does not run.
  String definedTarget(String name) throws LibvirtException {
    return definedDisk(name)
        .map(DiskElement::target)
        .orElseThrow(
            () -> ErrorCode.INVALID_ARG.because("disk '%s' not found in domain".formatted(name)));
  }

  private static LibvirtException notAssigned(String name) {
    return ErrorCode.INVALID_ARG.because("invalid path %s not assigned to domain".formatted(name));
  }

  private DriveStatistics statistics(String name) throws LibvirtException {
    Session session = domain.requireActive();
    DriveStatistics sum = new DriveStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0);
    if (name.isEmpty()) {
      for (LiveDisk disk : session.live().disks()) {
        sum = plus(sum, statistics(session, disk));
      }
      return sum;
    }
    LiveDisk disk =
        session
            .live()
            .find(name)
            .orElseThrow(() -> ErrorCode.INVALID_ARG.because("invalid path: " + name));
    return statistics(session, disk);
  }

  private static DriveStatistics statistics(Session session, LiveDisk disk)
      throws LibvirtException {
    if (!disk.hasMedium()) {
      return new DriveStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0);
    }
    try {
      return session.driver().statistics(disk.target());
    } catch (DriverException e) {
      throw DriverErrors.toClient("ask statistics of disk '%s'".formatted(disk.target()), e);
    }
  }

  private static DriveStatistics plus(DriveStatistics a, DriveStatistics b) {
    return new DriveStatistics(
        a.readOperations() + b.readOperations(),
        a.readBytes() + b.readBytes(),
        a.readNanos() + b.readNanos(),
        a.writeOperations() + b.writeOperations(),
        a.writeBytes() + b.writeBytes(),
        a.writeNanos() + b.writeNanos(),
        a.flushOperations() + b.flushOperations(),
        a.flushNanos() + b.flushNanos(),
        a.errors() + b.errors());
  }

  BlockStats blockStats(String name) throws LibvirtException {
    DriveStatistics all = statistics(name);
    return new BlockStats(
        all.readOperations(), all.readBytes(), all.writeOperations(), all.writeBytes(), -1);
  }

  List<TypedParam> blockStatsParams(String name) throws LibvirtException {
    DriveStatistics all = statistics(name);
    return List.of(
        new TypedParam.LLong("wr_bytes", all.writeBytes()),
        new TypedParam.LLong("wr_operations", all.writeOperations()),
        new TypedParam.LLong("rd_bytes", all.readBytes()),
        new TypedParam.LLong("rd_operations", all.readOperations()),
        new TypedParam.LLong("flush_operations", all.flushOperations()),
        new TypedParam.LLong("wr_total_times", all.writeNanos()),
        new TypedParam.LLong("rd_total_times", all.readNanos()),
        new TypedParam.LLong("flush_total_times", all.flushNanos()));
  }

  List<TypedParam> stats(int types, int flags) throws LibvirtException {
    int wanted = types == 0 ? -1 : types;
    List<TypedParam> params = new ArrayList<>();
    if (Flags.has(wanted, Flags.STATS_STATE)) {
      DomainState state = domain.state();
      params.add(new TypedParam.Int("state.state", state.state()));
      params.add(new TypedParam.Int("state.reason", state.reason()));
    }
    domain.definition().ifPresent(definition -> machine(definition, wanted, params));
    if (Flags.has(wanted, Flags.STATS_BLOCK)) {
      blocks(Flags.has(flags, Flags.STATS_BACKING), params);
    }
    return params;
  }

  private static void machine(Definition definition, int wanted, List<TypedParam> params) {
    if (Flags.has(wanted, Flags.STATS_BALLOON)) {
      params.add(new TypedParam.ULLong("balloon.current", definition.currentMemoryKib()));
      params.add(new TypedParam.ULLong("balloon.maximum", definition.memoryKib()));
    }
    if (Flags.has(wanted, Flags.STATS_VCPU)) {
      params.add(new TypedParam.UInt("vcpu.current", definition.vcpus()));
      params.add(new TypedParam.UInt("vcpu.maximum", definition.vcpus()));
    }
    if (Flags.has(wanted, Flags.STATS_INTERFACE)) {
      params.add(new TypedParam.UInt("net.count", 0));
    }
  }

  private void blocks(boolean backing, List<TypedParam> params) throws LibvirtException {
    List<TypedParam> blocks = new ArrayList<>();
    int count = 0;
    Optional<Session> session = domain.runningSession();
    if (session.isPresent()) {
      for (LiveDisk disk : session.get().live().disks()) {
        List<Layer> shown = new ArrayList<>(disk.layers());
        BlockJob job = disk.job();
        if (job != null && job.change() instanceof ChainChange.Copy copy) {
          shown.add(copy.mirror().getFirst());
        }
        int most = backing ? shown.size() : 1;
        for (int i = 0; i < Math.max(1, most); i++) {
          Optional<Layer> layer = i < shown.size() ? Optional.of(shown.get(i)) : Optional.empty();
          runningBlock(session.get(), disk, layer, "block." + count + ".", blocks);
          count++;
        }
      }
    } else {
      for (DiskElement disk : domain.definition().map(Definition::disks).orElse(List.of())) {
        definedBlock(disk, "block." + count + ".", blocks);
        count++;
      }
    }
    params.add(new TypedParam.UInt("block.count", count));
    params.addAll(blocks);
  }

  private void runningBlock(
      Session session, LiveDisk disk, Optional<Layer> shown, String prefix, List<TypedParam> params)
      throws LibvirtException {
    params.add(new TypedParam.Str(prefix + "name", disk.target()));
    if (shown.isEmpty()) {
      return;
    }
    Layer layer = shown.get();
    params.add(new TypedParam.Str(prefix + "path", layer.file()));
    params.add(new TypedParam.UInt(prefix + "backingIndex", layer.index()));
    try {
      if (layer.equals(disk.active())) {
        counters(session.driver().statistics(disk.target()), prefix, params);
        sizes(session.driver().sizes(disk.target()), prefix, params);
        if (disk.threshold() != 0) {
          params.add(new TypedParam.ULLong(prefix + "threshold", disk.threshold()));
        }
      } else if (layer.storage().path().isPresent()) {
        sizes(
            context.images().sizes(DiskElement.path(layer.file()), layer.format()), prefix, params);
      }
    } catch (DriverException e) {
      throw DriverErrors.toClient("ask statistics of disk '%s'".formatted(disk.target()), e);
    }
  }

  private void definedBlock(DiskElement disk, String prefix, List<TypedParam> params)
      throws LibvirtException {
    params.add(new TypedParam.Str(prefix + "name", disk.target()));
    Optional<String> file = disk.source();
    if (file.isEmpty()) {
      return;
    }
    params.add(new TypedParam.Str(prefix + "path", file.get()));
    try {
      sizes(context.images().sizes(DiskElement.path(file.get()), disk.format()), prefix, params);
    } catch (DriverException e) {
      // Safe because a definition may name images that are not there yet: no sizes are shown.
      return;
    }
  }

  private static void counters(DriveStatistics all, String prefix, List<TypedParam> params) {
    params.add(new TypedParam.ULLong(prefix + "rd.reqs", all.readOperations()));
    params.add(new TypedParam.ULLong(prefix + "rd.bytes", all.readBytes()));
    params.add(new TypedParam.ULLong(prefix + "rd.times", all.readNanos()));
    params.add(new TypedParam.ULLong(prefix + "wr.reqs", all.writeOperations()));
    params.add(new TypedParam.ULLong(prefix + "wr.bytes", all.writeBytes()));
    params.add(new TypedParam.ULLong(prefix + "wr.times", all.writeNanos()));
    params.add(new TypedParam.ULLong(prefix + "fl.reqs", all.flushOperations()));
    params.add(new TypedParam.ULLong(prefix + "fl.times", all.flushNanos()));
  }

  private static void sizes(ImageSizes sizes, String prefix, List<TypedParam> params) {
    params.add(new TypedParam.ULLong(prefix + "allocation", sizes.allocation()));
    params.add(new TypedParam.ULLong(prefix + "capacity", sizes.capacity()));
    params.add(new TypedParam.ULLong(prefix + "physical", sizes.physical()));
  }
}
