// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BlockException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.qcow2.Header.At;
import io.tidemark.qcow2.Header.Extension;
import java.nio.ByteBuffer;
import java.util.List;

/// Writes the header of an image as one of the other version.
///
/// On disk: where the first sector has no room for the backing file's name, the name goes to a free
/// place of the header's cluster; sync. Then the first sector: fields, extensions, and where
/// snapshot table and name lie. Sync. A power cut leaves the old header or the new one.
///
/// Spec: qcow2.rst, "Header", "Header extensions".
final class VersionChange {
  private static final int SECTOR = 512;

  private final HostFile file;
  private final Header old;
  private final ByteBuffer sector;

  VersionChange(HostFile file, Header old) throws BlockException {
    this.file = file;
    this.old = old;
    this.sector = Header.bigEndian(SECTOR).put(file.readAt(0, At.END_V2)).rewind();
  }

  /// @param snapshotsOffset where the table of snapshots lies from now on
  void toVersion3(long snapshotsOffset) throws BlockException {
    int length = At.END_V3 + 8; // with the compression type, 0
    sector.putInt(At.VERSION, 3).putLong(At.SNAPSHOT_OFFSET, snapshotsOffset);
    sector.putInt(At.REFCOUNT_ORDER, 4).putInt(At.HEADER_LENGTH, length);
    write(length, old.extensions());
  }

  /// What version 2 does not know is dropped: feature bits, their names, bitmaps.
  void toVersion2() throws BlockException {
    sector.putInt(At.VERSION, 2);
    write(
        At.END_V2,
        old.extensions().stream()
            .filter(e -> e.type() != Extension.FEATURE_NAMES && e.type() != Extension.BITMAPS)
            .toList());
  }

  private void write(int start, List<Extension> extensions) throws BlockException {
    int at = start;
    for (Extension e : extensions) {
      int length = e.data().limit();
      if (e.type() == HeaderRewrite.FILLER) {
        continue;
      }
      if (at + 8 + length + 8 > SECTOR) {
        throw new UnsupportedImageException(
            file.name()
                + ": header extensions do not fit the first "
                + SECTOR
                + " bytes, wanted that to change the version");
      }
      sector.putInt(at, e.type()).putInt(at + 4, length);
      sector.put(at + 8, e.data(), 0, length);
      at += 8 + ((length + 7) & ~7);
    }
    at += 8; // the end marker
    byte[] name = old.backing().map(b -> b.name().getBytes(UTF_8)).orElse(new byte[0]);
    if (name.length > 0) {
      placeName(name, at);
    }
    file.write(0, sector.rewind());
    file.sync();
  }

  private void placeName(byte[] name, int free) throws BlockException {
    int at = free;
    if (at + name.length <= SECTOR) {
      sector.put(at, name);
    } else {
      int oldEnd = old.backingOffset() + old.backingLength();
      at = Math.max(SECTOR, old.extensionsEnd() + 8);
      if (at + name.length > old.backingOffset() && at < oldEnd) {
        at = oldEnd;
      }
      if (at + name.length > old.geometry().clusterSize()) {
        throw new UnsupportedImageException(
            file.name()
                + ": the header's cluster of "
                + old.geometry().clusterSize()
                + " bytes has no room to move the backing file's name, wanted that to change the"
                + " version");
      }
      file.write(at, ByteBuffer.wrap(name));
      file.sync();
    }
    sector.putLong(At.BACKING_OFFSET, at).putInt(At.BACKING_LENGTH, name.length);
  }
}
