// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.Storage;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// Starts block copies of one domain: the checks of virDomainBlockCopy and of virDomainBlockRebase
/// with COPY. Every method is called with the domain's lock held.
///
/// What happens when a copy takes effect, and its crash order, is with [BlockJobs].
final class BlockCopies {
  /// Most bytes in flight that a job can be given; one with more fails.
  private static final long MAX_BUFFER_BYTES = 1L << 40;

  private static final long MIN_GRANULARITY_BYTES = 512;
  private static final long MAX_GRANULARITY_BYTES = 64 << 20;

  /// Most MiB/s that fit bytes/s.
  static final long MAX_MIB_PER_SECOND = Long.MAX_VALUE >> 20;

  private final DomainLife domain;
  private final DomainContext context;

  BlockCopies(DomainLife domain, DomainContext context) {
    this.domain = domain;
    this.context = context;
  }

  /// Where a copy goes and how.
  ///
  /// @param file path; empty for a network destination
  /// @param network an export to copy to
  /// @param format absent: the source's, or what the file shows with `reuse`
  /// @param device the client says it is a block device
  /// @param backing given in the destination's XML
  /// @param metadataCache of the destination's `<driver>`, only shown; null for none
  /// @param backingEnds whether that XML says where the chain ends
  record Request(
      String file,
      Optional<Storage> network,
      Optional<String> format,
      boolean device,
      Optional<List<DiskElement.Image>> backing,
      boolean backingEnds,
      boolean shallow,
      boolean reuse,
      boolean transientJob,
      Tuning tuning,
      @Nullable XmlElement metadataCache) {}

  /// @param bandwidthBytesPerSecond 0: no limit
  /// @param granularityBytes 0: the default
  /// @param bufferBytes 0: the default
  record Tuning(
      long bandwidthBytesPerSecond,
      long granularityBytes,
      long bufferBytes,
      boolean synchronousWrites) {}

  void start(Session session, String diskName, Request request) throws LibvirtException {
    Live live = session.live();
    LiveDisk disk = live.disk(diskName);
    Storage destination = destination(request);
    BlockJobs.checkSupported(disk);
    BlockJobs.checkIdle(disk, live);
    if (domain.persistentDefinition().isPresent() && !request.transientJob()) {
      throw ErrorCode.OPERATION_INVALID.because("domain is not transient");
    }
    if (!disk.hasMedium()) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "failed to update capacity data for block node of empty drive '%s'"
              .formatted(disk.target()));
    }
    if (request.backing().filter(chain -> !chain.isEmpty()).isPresent() && !request.shallow()) {
      throw ErrorCode.INVALID_ARG.because(
          "backingStore of mirror without VIR_DOMAIN_BLOCK_COPY_SHALLOW doesn't make sense");
    }
    boolean shallow = request.shallow() && disk.layers().size() > 1;
    if (shallow && !request.reuse() && request.format().filter("raw"::equals).isPresent()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "shallow copy of disk '%s' into a raw file is not possible".formatted(disk.target()));
    }
    boolean existed = true;
    if (destination.path().isPresent()) {
      existed = checkDestination(disk, destination, request);
      checkUnused(live, destination.path().get());
    }
    String format = formatOf(request, disk, destination);
    DiskCheck.checkFormat(format, "destination");
    if (destination instanceof Storage.Nbd && !format.equals("raw")) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "a copy over the network in format '%s' is not supported, only 'raw' is"
              .formatted(format));
    }
    startChecked(session, disk, new Plan(request, destination, format, shallow, existed));
  }

  /// A request whose checks are behind.
  ///
  /// @param existed the destination was there before, so is not ours to remove
  private record Plan(
      Request request, Storage storage, String format, boolean shallow, boolean existed) {
    /// Whether an image is made. A raw one on a device or an export is there already, with whatever
    /// bytes.
    boolean creates() {
      return !request.reuse() && (storage instanceof Storage.LocalFile || format.equals("qcow2"));
    }

    Path file() {
      return storage.path().orElseThrow();
    }
  }

  private void startChecked(Session session, LiveDisk disk, Plan plan) throws LibvirtException {
    if (plan.creates()) {
      create(session, disk, plan);
    }
    boolean started = false;
    try {
      addAndStart(session, disk, plan);
      started = true;
    } finally {
      if (!started && plan.creates() && !plan.existed()) {
        domain.upkeep().deleteFile(plan.file());
      }
    }
  }

  private void create(Session session, LiveDisk disk, Plan plan) throws LibvirtException {
    try {
      long capacity = session.driver().sizes(disk.target()).capacity();
      Optional<ImageService.Backing> backing = Optional.empty();
      if (plan.shallow()) {
        Layer beneath = disk.layers().get(1);
        backing =
            Optional.of(new ImageService.Backing(beneath.file(), Optional.of(beneath.format())));
      }
      context.images().create(plan.file(), plan.format(), capacity, backing);
    } catch (DriverException e) {
      throw new LibvirtException(
          ErrorCode.SYSTEM_ERROR,
          ErrorDomain.HYPERVISOR,
          "failed to create copy target: " + domain.upkeep().whyNotCreated(plan.file(), e),
          e);
    }
  }

  private void addAndStart(Session session, LiveDisk disk, Plan plan) throws LibvirtException {
    Live live = session.live();
    List<Layer> mirror = mirrorChain(live, disk, plan);
    boolean shares = plan.shallow() && plan.creates();
    boolean terminated = !plan.shallow() || endsChain(plan);
    Layer top = mirror.getFirst();
    boolean updatesDefinition =
        plan.request().transientJob() && domain.persistentDefinition().isPresent();
    BlockJob job =
        new BlockJob(
            "copy-%s-%s".formatted(disk.target(), disk.active().nodeName()),
            new ChainChange.Copy(mirror, shares, terminated, updatesDefinition),
            disk.active().file());
    Optional<NodeSpec> beneath =
        shares
            ? Optional.of(Layer.nodes(disk.layers().subList(1, disk.layers().size()), true))
            : Layer.nodes(mirror, false).backing();
    job.metadataCache(plan.request().metadataCache());
    try {
      session
          .driver()
          .addNode(
              new NodeSpec(top.nodeName(), top.storage(), top.format(), false, beneath)
                  .by(disk.element().way()));
    } catch (DriverException e) {
      if (e.kind() != DriverException.Kind.IMAGE_BUSY || !standsOnActive(mirror, disk)) {
        throw DriverErrors.toClient("add the copy's image", e);
      }
      addAlone(session, top, job);
    }
    boolean begun = false;
    try {
      checkGranularity(plan.request().tuning().granularityBytes());
      boolean fits = fits(session, disk, plan, top.nodeName());
      domain
          .jobs()
          .begin(
              session,
              disk,
              job,
              "block copy",
              () -> {
                if (fits) {
                  session.driver().startMirror(mirrorSpec(disk, job, plan));
                } else {
                  // The call succeeds and the job fails, as with QEMU: the next round finds no job.
                  job.fail("the copy's size is not that of disk '%s'".formatted(disk.target()));
                  session.watch().poke();
                }
              });
      begun = true;
    } finally {
      if (!begun) {
        domain.upkeep().removeNode(session, top.nodeName());
      }
    }
  }

  /// Whether the copy's own chain holds the image that the guest writes.
  private static boolean standsOnActive(List<Layer> mirror, LiveDisk disk) {
    return mirror.stream().skip(1).anyMatch(layer -> layer.file().equals(disk.active().file()));
  }

  /// libvirt opens what a reused copy stands on at the pivot only, so such a job runs, and its
  /// pivot is refused.
  private static void addAlone(Session session, Layer top, BlockJob job) throws LibvirtException {
    try {
      session
          .driver()
          .addNode(
              new NodeSpec(top.nodeName(), top.storage(), top.format(), false, Optional.empty()));
    } catch (DriverException e) {
      throw DriverErrors.toClient("add the copy's image", e);
    }
    job.refusePivot("what the copy stands on is in use: Failed to get shared \"write\" lock");
  }

  private static void checkGranularity(long bytes) throws LibvirtException {
    if (bytes != 0 && (bytes < MIN_GRANULARITY_BYTES || bytes > MAX_GRANULARITY_BYTES)) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "granularity of %d bytes, a value in range 512 bytes to 64 MiB is expected"
              .formatted(bytes));
    }
  }

  /// Whether what was there has the disk's size, and the buffer is one that can be had.
  private static boolean fits(Session session, LiveDisk disk, Plan plan, String node)
      throws LibvirtException {
    if (plan.request().tuning().bufferBytes() > MAX_BUFFER_BYTES) {
      return false;
    }
    if (plan.creates()) {
      return true;
    }
    try {
      return session.driver().virtualSize(node) == session.driver().sizes(disk.target()).capacity();
    } catch (DriverException e) {
      throw DriverErrors.toClient("ask the size of '%s'".formatted(plan.storage().location()), e);
    }
  }

  /// Whether the chain of a shallow copy is known to end: a header says so, or an empty
  /// `<backingStore>`. Nobody says it of a raw one, or where the client's XML leaves it open.
  private static boolean endsChain(Plan plan) {
    return plan.request().backing().isPresent()
        ? plan.request().backingEnds()
        : plan.format().equals("qcow2");
  }

  private static MirrorSpec mirrorSpec(LiveDisk disk, BlockJob job, Plan plan) {
    Tuning tuning = plan.request().tuning();
    return new MirrorSpec(
        job.id(),
        disk.target(),
        job.mirror().getFirst().nodeName(),
        plan.shallow(),
        plan.creates(),
        (int) tuning.granularityBytes(),
        tuning.bandwidthBytesPerSecond(),
        tuning.bufferBytes(),
        tuning.synchronousWrites());
  }

  /// The copy and, for a shallow copy onto a file that is there, what that file stands on: given in
  /// the XML, else as its header says.
  private List<Layer> mirrorChain(Live live, LiveDisk disk, Plan plan) throws LibvirtException {
    Request request = plan.request();
    List<Layer> chain = new ArrayList<>();
    chain.add(new Layer(live.takeIndex(), plan.storage(), plan.format()));
    if (plan.storage().path().isEmpty()) {
      return chain;
    }
    if (plan.shallow() && request.reuse()) {
      List<DiskElement.Image> beneath;
      if (request.backing().isPresent()) {
        beneath = request.backing().get();
      } else {
        List<DiskElement.Image> walked =
            context.chains().walk(plan.file().toString(), plan.format());
        beneath = walked.subList(1, walked.size());
      }
      for (DiskElement.Image image : beneath) {
        chain.add(new Layer(live.takeIndex(), image.storage(), image.format()));
      }
    } else if (request.reuse()) {
      context.chains().inspect(plan.file(), plan.format());
    }
    return chain;
  }

  private static Storage destination(Request request) throws LibvirtException {
    if (request.network().isPresent()) {
      return request.network().get();
    }
    if (!request.file().startsWith("/")) {
      throw ErrorCode.INVALID_ARG.because("absolute path must be used as block copy target");
    }
    Path file = DiskElement.path(request.file());
    return request.device() ? new Storage.Device(file) : new Storage.LocalFile(file);
  }

  private boolean checkDestination(LiveDisk disk, Storage destination, Request request)
      throws LibvirtException {
    Path file = destination.path().orElseThrow();
    Optional<ImageService.FileStatus> status = domain.upkeep().fileStatus(file);
    if (status.isEmpty()) {
      if (request.reuse() || request.device()) {
        throw ErrorCode.SYSTEM_ERROR.because(
            "missing destination file for disk %s: %s: No such file or directory"
                .formatted(disk.target(), file));
      }
      return false;
    }
    ImageService.FileKind kind = status.get().kind();
    boolean device = kind == ImageService.FileKind.BLOCK_DEVICE;
    boolean empty = kind == ImageService.FileKind.REGULAR && status.get().lengthBytes() == 0;
    boolean node = kind == ImageService.FileKind.OTHER;
    if (!request.reuse() && !device && !empty && !(node && request.device())) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "external destination file for disk %s already exists and is not a block device: %s"
              .formatted(disk.target(), file));
    }
    if (request.device() && !device) {
      throw ErrorCode.INVALID_ARG.because(
          "blockdev flag requested for disk %s, but file '%s' is not a block device"
              .formatted(disk.target(), file));
    }
    if (device && !request.device()) {
      if (!request.reuse() && request.format().filter("raw"::equals).isPresent()) {
        throw ErrorCode.OPERATION_FAILED.because(
            "failed to format image: 'Could not resize file: Invalid argument'");
      }
      throw ErrorCode.INTERNAL_ERROR.because(
          "'%s' is a block device, a regular file is required".formatted(file));
    }
    return true;
  }

  /// A file of this domain's own chains or jobs is no destination; those of others are found out by
  /// their locks.
  static void checkUnused(Live live, Path file) throws LibvirtException {
    Path wanted = file.normalize();
    for (LiveDisk disk : live.disks()) {
      List<Layer> inUse = new ArrayList<>(disk.layers());
      BlockJob job = disk.job();
      if (job != null) {
        inUse.addAll(job.mirror());
      }
      if (inUse.stream()
          .flatMap(layer -> layer.storage().path().stream())
          .anyMatch(path -> path.normalize().equals(wanted))) {
        throw ErrorCode.INTERNAL_ERROR.because(
            "'%s' is in use by disk '%s': Failed to get \"write\" lock"
                .formatted(file, disk.target()));
      }
    }
    BackupJob backup = live.backup();
    if (backup != null
        && backup.disks().stream().anyMatch(disk -> Path.of(disk.node().file()).equals(wanted))) {
      throw ErrorCode.INTERNAL_ERROR.because(
          "'%s' is in use by a backup: Failed to get \"write\" lock".formatted(file));
    }
  }

  private String formatOf(Request request, LiveDisk disk, Storage destination)
      throws LibvirtException {
    if (request.format().isPresent()) {
      return request.format().get();
    }
    if (!request.reuse()) {
      return disk.active().format();
    }
    if (destination.path().isEmpty()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "reused mirror destination format must be specified");
    }
    Path file = destination.path().get();
    if (domain.upkeep().fileStatus(file).stream()
        .anyMatch(status -> status.kind() == ImageService.FileKind.DIRECTORY)) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "'directory' storage format is not directly supported by QEMU, use 'dir' disk type"
              + " instead");
    }
    try {
      String probed = context.images().probe(file);
      DiskCheck.checkFormat(probed, "'%s'".formatted(file));
      return probed;
    } catch (DriverException e) {
      throw DriverErrors.toClient("probe '%s'".formatted(file), e);
    }
  }
}
