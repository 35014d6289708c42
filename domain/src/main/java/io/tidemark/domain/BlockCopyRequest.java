// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.Storage;
import java.util.List;
import java.util.Optional;

/// Reads the arguments of the two calls that start a block copy, refusing what libvirt refuses
/// before it looks at the domain.
final class BlockCopyRequest {
  private BlockCopyRequest() {}

  /// virDomainBlockCopy.
  static BlockCopies.Request ofCopy(String destXml, List<TypedParam> params, int flags)
      throws LibvirtException {
    Flags.check(
        flags,
        Flags.COPY_SHALLOW
            | Flags.COPY_REUSE_EXT
            | Flags.COPY_TRANSIENT_JOB
            | Flags.COPY_SYNCHRONOUS_WRITES,
        "qemuDomainBlockCopy");
    BlockCopies.Tuning tuning = tuning(params, Flags.has(flags, Flags.COPY_SYNCHRONOUS_WRITES));
    XmlElement disk = Xml.parse(destXml, "disk_definition", ErrorDomain.DOMAIN, "disk");
    String type = disk.hasAttribute("type") ? disk.attribute("type") : "file";
    if (!DiskCheck.isDiskType(type)) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.XML,
          "Invalid value for attribute 'type' in element 'disk': '%s'.".formatted(type));
    }
    DiskElement element = new DiskElement(disk);
    if (disk.child("source").filter(source -> !source.attributes().isEmpty()).isEmpty()) {
      throw noSource();
    }
    checkType(type, disk.childOrNew("source"));
    XmlElement source = disk.childOrNew("source");
    if (source.child("slices").isPresent()) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because(
          "creation of images with slice type='storage' is not supported");
    }
    if (source.child("encryption").isPresent()) {
      String secret =
          source
              .childOrNew("encryption")
              .child("secret")
              .map(found -> found.attribute("uuid"))
              .orElse("");
      throw ErrorCode.NO_SECRET.in(
          ErrorDomain.SECRET, "no secret with matching uuid '%s'".formatted(secret));
    }
    boolean device = type.equals("block");
    Optional<Storage> network = type.equals("network") ? StorageXml.read(disk) : Optional.empty();
    String file = source.attribute(device ? "dev" : "file");
    if (network.isEmpty() && file.isEmpty()) {
      throw noSource();
    }
    Optional<String> format = Optional.of(element.format()).filter(text -> !text.isEmpty());
    DiskCheck.checkBacking(element);
    return new BlockCopies.Request(
        file,
        network,
        format,
        device,
        element.backing(),
        backingEnds(disk),
        Flags.has(flags, Flags.COPY_SHALLOW),
        Flags.has(flags, Flags.COPY_REUSE_EXT),
        Flags.has(flags, Flags.COPY_TRANSIENT_JOB),
        tuning,
        disk.child("driver").flatMap(driver -> driver.child("metadata_cache")).orElse(null));
  }

  private static LibvirtException noSource() {
    return new LibvirtException(
        ErrorCode.NO_SOURCE, ErrorDomain.DOMAIN, "missing source information for device");
  }

  private static boolean backingEnds(XmlElement disk) {
    Optional<XmlElement> store = disk.child("backingStore");
    while (store.isPresent() && store.get().child("source").isPresent()) {
      store = store.get().child("backingStore");
    }
    return store.isPresent();
  }

  private static void checkType(String type, XmlElement source) throws LibvirtException {
    switch (type) {
      case "file", "block", "network" -> {}
      case "volume" ->
          throw ErrorCode.INTERNAL_ERROR.because(
              "storage source pool '%s' volume '%s' is not translated"
                  .formatted(source.attribute("pool"), source.attribute("volume")));
      case "dir" ->
          throw new LibvirtException(
              ErrorCode.SYSTEM_ERROR,
              ErrorDomain.HYPERVISOR,
              "unable to stat block copy target '%s': Function not implemented"
                  .formatted(source.attribute("dir")));
      default ->
          throw ErrorCode.INTERNAL_ERROR.because(
              "block copy to a destination of type '%s' is not supported".formatted(type));
    }
  }

  private static BlockCopies.Tuning tuning(List<TypedParam> params, boolean synchronous)
      throws LibvirtException {
    long bandwidth = 0;
    long granularity = 0;
    long buffer = 0;
    for (TypedParam param : params) {
      switch (param.name()) {
        case "bandwidth" -> bandwidth = unsigned(param, "ullong");
        case "granularity" -> granularity = unsigned(param, "uint");
        case "buf-size" -> buffer = unsigned(param, "ullong");
        default ->
            throw ErrorCode.ARGUMENT_UNSUPPORTED.in(
                ErrorDomain.NONE, "parameter '%s' not supported".formatted(param.name()));
      }
    }
    if (Long.bitCount(granularity) > 1) {
      throw ErrorCode.INVALID_ARG.because("granularity must be power of 2");
    }
    requireSigned(bandwidth);
    if (buffer < 0) {
      throw ErrorCode.INTERNAL_ERROR.because("buf-size of 2^63 bytes or more");
    }
    return new BlockCopies.Tuning(bandwidth, granularity, buffer, synchronous);
  }

  private static void requireSigned(long bytesPerSecond) throws LibvirtException {
    if (bytesPerSecond < 0) {
      throw ErrorCode.INVALID_ARG.because(
          "bandwidth must be less than '%d' bytes/s (%d MiB/s)"
              .formatted(Long.MAX_VALUE, BlockCopies.MAX_MIB_PER_SECOND));
    }
  }

  private static long unsigned(TypedParam param, String wanted) throws LibvirtException {
    return switch (param) {
      case TypedParam.UInt(_, int value) when wanted.equals("uint") ->
          Integer.toUnsignedLong(value);
      case TypedParam.ULLong(_, long value) when wanted.equals("ullong") -> value;
      case TypedParam.Int _,
          TypedParam.UInt _,
          TypedParam.LLong _,
          TypedParam.ULLong _,
          TypedParam.Dbl _,
          TypedParam.Bool _,
          TypedParam.Str _ ->
          throw ErrorCode.INVALID_ARG.in(
              ErrorDomain.NONE,
              "invalid type for parameter '%s', expected '%s'".formatted(param.name(), wanted));
    };
  }

  /// virDomainBlockRebase: of its two meanings one is there.
  record Rebase(Optional<BlockCopies.Request> copy, Optional<ChainJobs.PullRequest> pull) {}

  /// virDomainBlockRebase.
  static Rebase ofRebase(Optional<String> base, long bandwidth, int flags) throws LibvirtException {
    boolean copy = Flags.has(flags, Flags.REBASE_COPY);
    int copyOnly =
        Flags.REBASE_SHALLOW
            | Flags.REBASE_REUSE_EXT
            | Flags.REBASE_COPY_RAW
            | Flags.REBASE_COPY_DEV;
    if (copy && base.isEmpty()) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          ErrorDomain.DOMAIN,
          "base in virDomainBlockRebase must not be NULL");
    }
    if (!copy && (flags & copyOnly) != 0) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG, ErrorDomain.DOMAIN, "use of flags requires a copy job");
    }
    Flags.check(
        flags,
        copyOnly | Flags.REBASE_COPY | Flags.REBASE_RELATIVE | Flags.REBASE_BANDWIDTH_BYTES,
        "qemuDomainBlockRebase");
    boolean relative = Flags.has(flags, Flags.REBASE_RELATIVE);
    if (copy && relative) {
      throw ErrorCode.ARGUMENT_UNSUPPORTED.because(
          "Relative backing during copy not supported yet");
    }
    if (relative && base.isEmpty()) {
      throw ErrorCode.INVALID_ARG.because(
          "flag VIR_DOMAIN_BLOCK_REBASE_RELATIVE is valid only with non-null base");
    }
    boolean inBytes = Flags.has(flags, Flags.REBASE_BANDWIDTH_BYTES);
    if (copy && inBytes) {
      requireSigned(bandwidth);
    }
    long bytes = bytesPerSecond(bandwidth, inBytes);
    if (!copy) {
      return new Rebase(
          Optional.empty(), Optional.of(new ChainJobs.PullRequest(base, relative, bytes)));
    }
    BlockCopies.Request request =
        new BlockCopies.Request(
            base.orElseThrow(),
            Optional.empty(),
            Flags.has(flags, Flags.REBASE_COPY_RAW) ? Optional.of("raw") : Optional.empty(),
            Flags.has(flags, Flags.REBASE_COPY_DEV),
            Optional.empty(),
            false,
            Flags.has(flags, Flags.REBASE_SHALLOW),
            Flags.has(flags, Flags.REBASE_REUSE_EXT),
            false,
            new BlockCopies.Tuning(bytes, 0, 0, false),
            null);
    return new Rebase(Optional.of(request), Optional.empty());
  }

  /// A bandwidth argument as bytes/s.
  ///
  /// @param bandwidth as the wire has it, unsigned
  static long bytesPerSecond(long bandwidth, boolean inBytes) throws LibvirtException {
    if (inBytes) {
      if (bandwidth < 0) {
        throw ErrorCode.INTERNAL_ERROR.in(
            ErrorDomain.NONE, "argument key 'speed' must not be negative");
      }
      return bandwidth;
    }
    if (bandwidth < 0 || bandwidth > BlockCopies.MAX_MIB_PER_SECOND) {
      throw ErrorCode.OVERFLOW.because(
          "bandwidth must be less than " + BlockCopies.MAX_MIB_PER_SECOND);
    }
    return bandwidth << 20;
  }
}
