// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.qcow2.Header.At;
import io.tidemark.qcow2.Header.Extension;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The header of an open image: what it says now, and the changes of it that are atomic on disk.
///
/// Every change is one write inside one 512-byte sector, or a series of such writes with a sync
/// between, each of which leaves a header that means the same to every reader. Nothing here syncs
/// unless it says so.
///
/// Guarded by its monitor.
final class HeaderFields {
  private static final int SECTOR = 512;

  private final HostFile file;
  private volatile Header header;

  HeaderFields(HostFile file, Header header) {
    this.file = file;
    this.header = header;
  }

  Header now() {
    return header;
  }

  private void reread() throws BlockException {
    header = Header.parse(file);
  }

  synchronized void writeRefcountTable(long offset, int clusters) throws BlockException {
    ByteBuffer raw = Header.bigEndian(12).putLong(0, offset).putInt(8, clusters);
    file.write(At.REFCOUNT_OFFSET, raw); // bytes 48 to 59
    reread();
  }

  /// Table and width of the refcounts at once: bytes 48 to 99.
  synchronized void writeRefcounts(long offset, int clusters, int order) throws BlockException {
    ByteBuffer raw = file.readAt(At.REFCOUNT_OFFSET, At.HEADER_LENGTH - At.REFCOUNT_OFFSET);
    raw.putLong(0, offset).putInt(At.REFCOUNT_CLUSTERS - At.REFCOUNT_OFFSET, clusters);
    raw.putInt(At.REFCOUNT_ORDER - At.REFCOUNT_OFFSET, order);
    file.write(At.REFCOUNT_OFFSET, raw);
  }

  /// L1 entries and place: bytes 36 to 47.
  synchronized void writeL1(long offset, int entries) throws BlockException {
    ByteBuffer raw = Header.bigEndian(12).putInt(0, entries).putLong(4, offset);
    file.write(At.L1_ENTRIES, raw);
    reread();
  }

  /// Where the tables are that [#writeRoots] enters.
  record Roots(
      long virtualSize,
      long l1Offset,
      int l1Entries,
      long refcountTableOffset,
      int refcountTableClusters,
      int snapshotCount,
      long snapshotsOffset) {}

  /// All roots at once: bytes 24 to 71.
  synchronized void writeRoots(Roots roots) throws BlockException {
    ByteBuffer raw = file.readAt(At.VIRTUAL_SIZE, At.END_V2 - At.VIRTUAL_SIZE);
    int base = At.VIRTUAL_SIZE;
    raw.putLong(At.VIRTUAL_SIZE - base, roots.virtualSize());
    raw.putInt(At.L1_ENTRIES - base, roots.l1Entries());
    raw.putLong(At.L1_OFFSET - base, roots.l1Offset());
    raw.putLong(At.REFCOUNT_OFFSET - base, roots.refcountTableOffset());
    raw.putInt(At.REFCOUNT_CLUSTERS - base, roots.refcountTableClusters());
    raw.putInt(At.SNAPSHOT_COUNT - base, roots.snapshotCount());
    raw.putLong(At.SNAPSHOT_OFFSET - base, roots.snapshotsOffset());
    file.write(base, raw);
  }

  /// How many snapshots of the table count: 4 bytes.
  synchronized void writeSnapshotCount(int count) throws BlockException {
    file.write(At.SNAPSHOT_COUNT, Header.bigEndian(4).putInt(0, count));
    reread();
  }

  /// Snapshots and the place of their table: bytes 60 to 71.
  synchronized void writeSnapshots(int count, long offset) throws BlockException {
    ByteBuffer raw = Header.bigEndian(At.END_V2 - At.SNAPSHOT_COUNT);
    raw.putInt(0, count).putLong(At.SNAPSHOT_OFFSET - At.SNAPSHOT_COUNT, offset);
    file.write(At.SNAPSHOT_COUNT, raw);
    reread();
  }

  synchronized void writeVirtualSize(long size) throws BlockException {
    file.write(At.VIRTUAL_SIZE, Header.bigEndian(8).putLong(0, size));
    reread();
  }

  /// Sets the corrupt bit and syncs; in version 2, which has none, nothing happens.
  synchronized void markCorrupt() throws BlockException {
    if (!header.has(Feature.CORRUPT)) {
      writeIncompatible(header.incompatible() | Feature.CORRUPT.mask());
      file.sync();
    }
  }

  /// In version 2, which has no such bits, nothing happens.
  synchronized void writeIncompatible(long bits) throws BlockException {
    if (header.geometry().version() >= 3 && header.incompatible() != bits) {
      file.write(At.INCOMPATIBLE, Header.bigEndian(8).putLong(0, bits));
      reread();
    }
  }

  /// In version 2, which has no such bits, nothing happens.
  synchronized void writeCompatible(long bits) throws BlockException {
    if (header.geometry().version() >= 3 && header.compatible() != bits) {
      file.write(At.COMPATIBLE, Header.bigEndian(8).putLong(0, bits));
      reread();
    }
  }

  /// Records another name of the external data file: [HeaderRewrite], which syncs.
  synchronized void writeDataFile(String name) throws BlockException {
    byte[] bytes = name.getBytes(UTF_8);
    if (bytes.length == 0 || bytes.length > Header.MAX_BACKING_NAME) {
      throw new UnsupportedImageException(
          file.name()
              + ": name of the data file has "
              + bytes.length
              + " bytes, wanted 1 to "
              + Header.MAX_BACKING_NAME);
    }
    var extensions = new ArrayList<Extension>();
    for (Extension e : header.extensions()) {
      extensions.add(
          e.type() == Extension.DATA_FILE
              ? new Extension(Extension.DATA_FILE, 0, ByteBuffer.wrap(bytes))
              : e);
    }
    byte[] backing = header.backing().map(b -> b.name().getBytes(UTF_8)).orElse(new byte[0]);
    new HeaderRewrite(file, header, extensions, backing).run();
    reread();
  }

  synchronized void writeAutoclear(long bits) throws BlockException {
    if (header.geometry().version() >= 3 && header.autoclear() != bits) {
      file.write(At.AUTOCLEAR, Header.bigEndian(8).putLong(0, bits));
      reread();
    }
  }

  /// Records another backing file, or none: [HeaderRewrite], which syncs.
  ///
  /// @throws UnsupportedImageException when name or format are too long for the format
  synchronized void writeBacking(Optional<BackingReference> backing) throws BlockException {
    byte[] name = backing.map(b -> b.name().getBytes(UTF_8)).orElse(new byte[0]);
    byte[] format =
        backing.flatMap(BackingReference::format).map(f -> f.getBytes(UTF_8)).orElse(new byte[0]);
    if (backing.isPresent() && (name.length == 0 || name.length > Header.MAX_BACKING_NAME)) {
      throw new UnsupportedImageException(
          file.name()
              + ": backing file name of "
              + name.length
              + " bytes, wanted 1 to "
              + Header.MAX_BACKING_NAME);
    }
    if (format.length > Header.MAX_BACKING_FORMAT) {
      throw new UnsupportedImageException(
          file.name()
              + ": backing file format of "
              + format.length
              + " bytes, at most "
              + Header.MAX_BACKING_FORMAT
              + " are possible");
    }
    var extensions = new ArrayList<Extension>();
    if (format.length > 0) {
      extensions.add(
          new Extension(Extension.BACKING_FORMAT, 0, ByteBuffer.wrap(format).asReadOnlyBuffer()));
    }
    for (Extension e : header.extensions()) {
      if (e.type() != Extension.BACKING_FORMAT) {
        extensions.add(e);
      }
    }
    rewrite(extensions, name);
    reread();
  }

  /// Where both the old and the new do not fit beside each other, the table of feature names goes
  /// first: it only tells programs older than the image what to call its features.
  private void rewrite(List<Extension> extensions, byte[] name) throws BlockException {
    try {
      new HeaderRewrite(file, header, extensions, name).run();
    } catch (OutOfSpaceException full) {
      reread(); // the old name may have been moved
      if (header.extension(Extension.FEATURE_NAMES).isEmpty()) {
        throw full;
      }
      byte[] present = header.backing().map(b -> b.name().getBytes(UTF_8)).orElse(new byte[0]);
      new HeaderRewrite(file, header, withoutFeatureNames(header.extensions()), present).run();
      reread();
      new HeaderRewrite(file, header, withoutFeatureNames(extensions), name).run();
    }
  }

  private static List<Extension> withoutFeatureNames(List<Extension> extensions) {
    return extensions.stream().filter(e -> e.type() != Extension.FEATURE_NAMES).toList();
  }

  /// Sets the bitmaps extension's data, adding the extension where there is none, and sets its
  /// autoclear bit. Synced between the steps and at the end.
  ///
  /// On disk: an extension inside one sector changes in one write. Else the autoclear bit goes
  /// first (the bitmaps then count as lost until the last step), then the data, then the bit comes
  /// back. A new extension needs room: a backing file name in its way is first copied further back,
  /// then the header points to the copy, then the extension's data and the new end marker are
  /// written, and last its type and length over the old end marker.
  synchronized void writeBitmaps(byte[] data) throws BlockException {
    var present = header.extension(Extension.BITMAPS);
    long with = header.autoclear() | Feature.BITMAPS.mask();
    if (present.isPresent() && present.get().data().limit() == data.length) {
      int at = present.get().offset();
      boolean oneSector = at / SECTOR == (at + data.length - 1) / SECTOR;
      if (!oneSector && Feature.BITMAPS.in(header.autoclear())) {
        writeAutoclear(header.autoclear() & ~Feature.BITMAPS.mask());
        file.sync();
      }
      file.write(at, ByteBuffer.wrap(data));
      file.sync();
    } else if (present.isPresent()) {
      throw new CorruptImageException(
          file.name()
              + ": bitmaps extension of "
              + present.get().data().limit()
              + " bytes, wanted "
              + data.length);
    } else {
      append(Extension.BITMAPS, data);
    }
    writeAutoclear(with);
    file.sync();
    reread();
  }

  /// Takes the bitmaps extension away: the autoclear bit first, then the extension itself. Synced.
  synchronized void removeBitmaps() throws BlockException {
    writeAutoclear(header.autoclear() & ~Feature.BITMAPS.mask());
    file.sync();
    List<Extension> others =
        header.extensions().stream().filter(e -> e.type() != Extension.BITMAPS).toList();
    byte[] name = header.backing().map(b -> b.name().getBytes(UTF_8)).orElse(new byte[0]);
    try {
      new HeaderRewrite(file, header, others, name).run();
    } catch (OutOfSpaceException | UnsupportedImageException _) {
      // Safe because without its bit the extension means nothing.
    }
    reread();
  }

  private void append(int type, byte[] data) throws BlockException {
    int at = header.extensionsEnd();
    if (at / SECTOR != (at + 7) / SECTOR) {
      // Only where the header's length is no multiple of 8: the end marker does not change at once.
      var more = new ArrayList<>(header.extensions());
      more.add(new Extension(type, 0, ByteBuffer.wrap(data).asReadOnlyBuffer()));
      byte[] name = header.backing().map(b -> b.name().getBytes(UTF_8)).orElse(new byte[0]);
      new HeaderRewrite(file, header, more, name).run();
      reread();
      return;
    }
    int padded = (data.length + 7) & ~7;
    int end = at + 8 + padded + 8; // with the new end marker
    int size = header.geometry().clusterSize();
    if (header.backingOffset() != 0 && header.backingOffset() < end) {
      moveBackingName(end);
    }
    if (end > (header.backingOffset() == 0 ? size : header.backingOffset())) {
      throw new OutOfSpaceException(
          file.name()
              + ": the header has no room for another extension of "
              + data.length
              + " bytes in its cluster of "
              + size);
    }
    ByteBuffer body = Header.bigEndian(padded + 8);
    body.put(data).rewind();
    file.write(at + 8, body);
    file.sync();
    file.write(at, Header.bigEndian(8).putInt(0, type).putInt(4, data.length));
    file.sync();
    reread();
  }

  private void moveBackingName(int behind) throws BlockException {
    int length = header.backingLength();
    int size = header.geometry().clusterSize();
    int to = Math.max(behind, header.backingOffset() + length);
    if (to + length > size) {
      to = size - length; // as far back as possible
    }
    if (to < behind || to < header.backingOffset() + length) {
      throw new OutOfSpaceException(
          file.name() + ": the header has no room to move the backing file name");
    }
    // The old end marker stays where it is: what follows it is not read.
    if (header.extensionsEnd() + 8 > header.backingOffset()) {
      throw new OutOfSpaceException(
          file.name() + ": the header's extensions have no end marker to grow from");
    }
    ByteBuffer name = file.readAt(header.backingOffset(), length);
    file.write(to, name);
    file.sync();
    file.write(At.BACKING_OFFSET, Header.bigEndian(8).putLong(0, to));
    file.sync();
    reread();
  }
}
