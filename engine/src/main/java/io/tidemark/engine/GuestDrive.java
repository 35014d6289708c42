// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.Drive;
import io.tidemark.block.FailurePolicy;
import io.tidemark.block.FormatNode;
import io.tidemark.block.IoStatistics;
import io.tidemark.block.ResizeOptions;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriveStatistics;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageSizes;
import io.tidemark.domain.spi.RequestFailure;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.nbd.Export;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/// A disk of a running domain: the drive that the guest sees, the node that is its top now, and its
/// bitmaps.
///
/// Not thread-safe: guarded by the domain's lock.
final class GuestDrive {
  private static final Logger LOG = System.getLogger(GuestDrive.class.getName());

  private final DriveSpec spec;
  private final Drive drive;
  private final DriveBitmaps bitmaps;
  private final FailurePolicy failures;
  private NodeGraph.Node top;
  // Null while no offset is watched.
  private @Nullable WriteThreshold threshold;

  /// @param listener hears of the guest's requests that fail, see [FailurePolicy.Listener]
  GuestDrive(DriveSpec spec, NodeGraph.Node top, Consumer<RequestFailure> listener) {
    this.spec = spec;
    this.top = top;
    this.drive = new Drive(spec.target(), top.format());
    this.bitmaps = new DriveBitmaps(drive);
    this.failures = Manners.failurePolicy(spec, listener);
    drive.onFailure(failures);
    top.use();
  }

  String target() {
    return spec.target();
  }

  Drive drive() {
    return drive;
  }

  DriveBitmaps bitmaps() {
    return bitmaps;
  }

  NodeGraph.Node top() {
    return top;
  }

  Export export() {
    return new Export(
        spec.target(),
        Manners.served(drive, spec.manners()),
        "",
        spec.readOnly() || top.format().readOnly(),
        List.of());
  }

  /// Why requests that failed are held, if some are.
  Optional<RunningDomain.Trouble> trouble() {
    return failures
        .heldForSpace()
        .map(space -> space ? RunningDomain.Trouble.NO_SPACE : RunningDomain.Trouble.OTHER);
  }

  /// Has them made again.
  void retry() {
    failures.retry();
  }

  /// Has them fail, and all that fail from now on.
  void endRetries() {
    failures.end();
  }

  /// Takes the top image's bitmaps into memory. Only with the drive drained.
  void loadBitmaps() throws DriverException {
    Optional<BitmapStore> store = top.format().bitmapStore();
    if (store.isPresent()) {
      bitmaps.load(
          store.get(),
          StoredBitmaps.storesFrom(top.backing()),
          !spec.readOnly() && !top.format().readOnly());
    }
  }

  /// Takes a bitmap that is gone from the top out of the images beneath it, durably, as libvirt
  /// does. An image that cannot be changed, since another program reads it, keeps it until the
  /// drive stands on it again.
  void removeBeneath(String bitmap) {
    Optional<NodeGraph.Node> node = top.backing();
    while (node.isPresent()) {
      removeFrom(node.get(), bitmap);
      node = node.get().backing();
    }
  }

  private void removeFrom(NodeGraph.Node node, String bitmap) {
    FormatNode image = node.format();
    node.bitmaps().ifPresent(followed -> followed.forget(bitmap));
    if (!holds(image, bitmap)) {
      return;
    }
    boolean readOnly = image.readOnly();
    try {
      if (readOnly) {
        image.reopen(false);
      }
      try {
        if (holds(image, bitmap)) {
          image.bitmapStore().orElseThrow().remove(bitmap);
        }
      } finally {
        if (readOnly) {
          image.reopen(true);
        }
      }
    } catch (BlockException e) {
      LOG.log(
          Level.WARNING,
          "{0}: bitmap {1} stays in {2}: {3}",
          target(),
          bitmap,
          node.spec().storage().location(),
          e.getMessage());
    }
  }

  private static boolean holds(FormatNode image, String bitmap) {
    return image.bitmapStore().filter(store -> store.holds(bitmap)).isPresent();
  }

  /// Before the drive is re-pointed to `next`, by a mirror or for a snapshot.
  void beforePivot(NodeGraph.Node next) {
    storeOf(next).ifPresent(bitmaps::announceIn);
  }

  /// After [#beforePivot] when the drive stays where it is.
  void takeBackBeforePivot(NodeGraph.Node next) {
    storeOf(next).ifPresent(bitmaps::withdrawFrom);
  }

  private static Optional<BitmapStore> storeOf(NodeGraph.Node node) {
    return node.format().readOnly() ? Optional.empty() : node.format().bitmapStore();
  }

  /// After images beneath the top left the chain.
  ///
  /// @param known names of the bitmaps of the image that took in what they held, if it is one
  ///   beneath
  void mendBitmaps(Set<String> known) {
    bitmaps.mend(known, StoredBitmaps.storesFrom(top.backing()));
  }

  /// The moment at which the drive leaves its image. Only with the drive drained.
  void atPivot(NodeGraph.Node next) {
    bitmaps.freeze(next.bitmaps());
  }

  /// After [#atPivot] when the drive stays where it is after all.
  void notPivoted() {
    try (var _ = drive.drain()) {
      bitmaps.unfreeze();
    }
  }

  /// After it did.
  void afterPivot(NodeGraph.Node next) {
    next.leaveBitmaps();
    next.use();
    top.release();
    top = next;
    bitmaps.moveTo(storeOf(next));
  }

  /// Sets the size of the top image, and of the bitmaps. The guest's requests are held meanwhile.
  void resize(long bytes) throws DriverException {
    try (Drive.Drained _ = drive.drain()) {
      if (bytes == drive.virtualSize()) {
        return;
      }
      top.format().resize(bytes, ResizeOptions.ANY);
      bitmaps.resize();
      top.format().flush();
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  /// Watches for a write beyond an offset of the top image's file.
  ///
  /// @param bytes unsigned; 0: no more
  void watch(long bytes, WriteThreshold.Listener listener) {
    try (var _ = drive.drain()) {
      WriteThreshold old = threshold;
      if (old != null) {
        drive.removeFilter(old);
      }
      threshold = bytes == 0 ? null : new WriteThreshold(top.format(), bytes, listener);
      if (threshold != null) {
        drive.addFilter(threshold);
      }
    }
  }

  /// The drive is out of use; its image is left to the graph. Only while drained.
  void retire() {
    drive.retire();
  }

  void flush() throws DriverException {
    try {
      if (!top.format().readOnly()) {
        top.format().flush();
      }
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  /// Ends the guest's requests for good, and closes the top image.
  void close() throws DriverException {
    try {
      drive.close();
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  DriveStatistics statistics() {
    IoStatistics counts = drive.statistics();
    return new DriveStatistics(
        counts.readOperations(),
        counts.readBytes(),
        counts.readNanos(),
        counts.writeOperations(),
        counts.writeBytes(),
        counts.writeNanos(),
        counts.flushOperations(),
        counts.flushNanos(),
        counts.errors());
  }

  /// The allocation is the blocks that the image's file takes on the host, of every format; its
  /// length where that is not known, as of a block device.
  ImageSizes sizes() throws DriverException {
    return sizes(top.format());
  }

  static ImageSizes sizes(FormatNode format) throws DriverException {
    try {
      long physical = format.file().virtualSize();
      long blocks = format.file().allocatedBytes();
      return new ImageSizes(format.virtualSize(), blocks < 0 ? physical : blocks, physical);
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }
}
