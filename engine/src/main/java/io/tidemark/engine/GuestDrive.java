// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.Drive;
import io.tidemark.block.FormatNode;
import io.tidemark.block.IoStatistics;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriveStatistics;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageSizes;
import io.tidemark.nbd.Export;
import java.util.List;
import java.util.Optional;

/// A disk of a running domain: the drive that the guest sees, the node that is its top now, and its
/// bitmaps.
///
/// Not thread-safe: guarded by the domain's lock.
final class GuestDrive {
  private final DriveSpec spec;
  private final Drive drive;
  private final DriveBitmaps bitmaps;
  private NodeGraph.Node top;

  GuestDrive(DriveSpec spec, NodeGraph.Node top) {
    this.spec = spec;
    this.top = top;
    this.drive = new Drive(spec.target(), top.format());
    this.bitmaps = new DriveBitmaps(drive);
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
        spec.target(), drive, "", spec.readOnly() || top.format().readOnly(), List.of());
  }

  /// Takes the top image's bitmaps into memory. Only with the drive drained.
  void loadBitmaps() throws DriverException {
    Optional<BitmapStore> store = top.format().bitmapStore();
    if (store.isPresent()) {
      bitmaps.load(store.get(), !spec.readOnly() && !top.format().readOnly());
    }
  }

  /// Before the mirror re-points the drive to `next`.
  void beforePivot(NodeGraph.Node next) {
    next.format().bitmapStore().ifPresent(bitmaps::announceIn);
  }

  /// After it did.
  void afterPivot(NodeGraph.Node next) {
    next.use();
    top.release();
    top = next;
    bitmaps.moveTo(next.format().bitmapStore());
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

  /// As libvirt tells them of a running disk: a raw file's allocation is the blocks it takes; that
  /// of any other format the end of its file, since formats append: nothing is used beyond it.
  ImageSizes sizes() throws DriverException {
    FormatNode format = top.format();
    try {
      long physical = format.file().virtualSize();
      long blocks = format.format().equals("raw") ? format.file().allocatedBytes() : -1;
      return new ImageSizes(format.virtualSize(), blocks < 0 ? physical : blocks, physical);
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }
}
