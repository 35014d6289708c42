// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.qcow2.Header.At;
import io.tidemark.qcow2.Header.Extension;
import java.nio.ByteBuffer;
import java.util.List;

/// Gives a header other extensions and another backing file name, so that a power cut leaves the
/// old ones or the new ones, and nothing of both. A sector of 512 bytes is what the disk changes at
/// once; fields and the first extension lie in the first.
///
/// **In one step**, where the extensions differ inside the first sector only (QEMU puts the backing
/// format there):
/// 1. The new name goes to a free place of the header's cluster, and what the new extensions need
///    behind the old end marker is written there: nothing reads either. Sync.
/// 2. The first sector: pointer and length of the name, and extensions. Sync.
///
/// **In two**, where later sectors differ as well:
/// 1. All new extensions and the name go to a free place behind everything. Sync.
/// 2. The first sector: the pointer to the name, and in front of the extensions the head of one of
///    type [#FILLER] that is as long as the way to the free place. Readers skip what they do not
///    know. Sync: this is the new header.
/// 3. Inside the filler, where nobody reads, the new extensions are written once more where they
///    belong, but for the head of the first. Sync.
/// 4. That head, 8 bytes, replaces the filler's. Sync. What lies behind the end marker is not read.
///
/// A filler that a power cut left is dropped by the next rewrite.
///
/// Spec: qcow2.rst, "Header", "Header extensions".
final class HeaderRewrite {
  private static final int SECTOR = 512;

  /// Type of an extension that holds nothing: unknown to everyone.
  static final int FILLER = 0x544d_4650;

  private final HostFile file;
  private final Header old;
  private final ByteBuffer raw; // the header's cluster
  private final int start; //      of the extensions
  private final int oldEnd; //     of the extensions' end marker
  private final int oldName; //    0: none
  private final int oldNameEnd; // 0: none
  private final List<Extension> extensions;
  private final byte[] area; //    the new extensions with their end marker
  private final byte[] name;

  /// @param extensions what the header is to hold; [#FILLER]s are left out
  /// @param name empty for none
  HeaderRewrite(HostFile file, Header old, List<Extension> extensions, byte[] name)
      throws BlockException {
    this.file = file;
    this.old = old;
    this.raw = file.readAt(0, old.geometry().clusterSize());
    this.start = old.geometry().version() == 2 ? At.END_V2 : raw.getInt(At.HEADER_LENGTH);
    this.oldName = old.backingOffset();
    this.oldNameEnd = oldName + old.backingLength();
    int bound = oldName == 0 ? raw.limit() : oldName;
    this.oldEnd = Math.min(old.extensionsEnd() + 8, bound);
    this.extensions = extensions;
    this.area = area(extensions);
    this.name = name;
  }

  private static byte[] area(List<Extension> extensions) {
    int bytes = 8;
    for (Extension e : extensions) {
      bytes += e.type() == FILLER ? 0 : 8 + padded(e.data().limit());
    }
    byte[] result = new byte[bytes];
    ByteBuffer area = ByteBuffer.wrap(result);
    for (Extension e : extensions) {
      if (e.type() != FILLER) {
        int at = area.position();
        area.putInt(e.type()).putInt(e.data().limit()).put(e.data().duplicate().rewind());
        area.position(at + 8 + padded(e.data().limit()));
      }
    }
    return result;
  }

  private static int padded(int bytes) {
    return (bytes + 7) & ~7;
  }

  /// Writes and syncs; the caller reads the header again.
  void run() throws BlockException {
    if (start + 8 > SECTOR) {
      throw new UnsupportedImageException(
          file.name()
              + ": header of "
              + start
              + " bytes, at most "
              + (SECTOR - 8)
              + " are handled where extensions or backing file change");
    }
    if (firstSectorSuffices()) {
      int at = namePlace();
      if (at >= 0) {
        inOneStep(at);
        return;
      }
    }
    inTwoSteps();
  }

  /// Whether, past the first sector, the new extensions equal the old or lie where nothing is.
  private boolean firstSectorSuffices() {
    if (start + area.length > raw.limit()) {
      return false;
    }
    for (int at = Math.max(start, SECTOR); at < start + area.length; at++) {
      boolean free = at >= oldEnd && (at < oldName || at >= oldNameEnd);
      if (!free && raw.get(at) != area[at - start]) {
        return false;
      }
    }
    return true;
  }

  /// A place for the name that the old header does not use, or that changes with the first sector;
  /// -1 when there is none. 0 for no name.
  private int namePlace() {
    int first = start + area.length;
    if (name.length == 0) {
      return 0;
    }
    if (first + name.length <= SECTOR) {
      return first;
    }
    int free = Math.max(Math.max(first, oldEnd), SECTOR);
    if (free + name.length > oldName && free < oldNameEnd) {
      free = Math.max(free, padded(oldNameEnd));
    }
    return free + name.length <= raw.limit() ? free : -1;
  }

  private void inOneStep(int nameAt) throws BlockException {
    ByteBuffer sector = file.readAt(0, SECTOR);
    boolean before = false;
    if (start + area.length > SECTOR) {
      int from = Math.max(SECTOR - start, 0);
      writeFree(start + from, area, from);
      before = true;
    }
    if (nameAt >= SECTOR) {
      file.write(nameAt, ByteBuffer.wrap(name));
      before = true;
    } else if (nameAt > 0) {
      sector.put(nameAt, name);
    }
    if (before) {
      file.sync();
    }
    if (start < SECTOR) {
      sector.put(start, area, 0, Math.min(area.length, SECTOR - start));
    }
    point(sector, nameAt);
    file.write(0, sector);
    file.sync();
  }

  /// Writes the tail of `bytes` where it differs from what is there: those places are free.
  private void writeFree(int at, byte[] bytes, int from) throws BlockException {
    int first = from;
    while (first < bytes.length && raw.get(at + first - from) == bytes[first]) {
      first++;
    }
    file.write(at + first - from, ByteBuffer.wrap(bytes, first, bytes.length - first));
  }

  private void point(ByteBuffer sector, int nameAt) {
    sector.putLong(At.BACKING_OFFSET, nameAt).putInt(At.BACKING_LENGTH, name.length);
  }

  private void inTwoSteps() throws BlockException {
    // Extensions are padded from where they start, which need not be a multiple of 8.
    int there = start + padded(Math.max(oldEnd, start + area.length) - start);
    if (oldName != 0 && there + area.length > oldName) {
      there = start + padded(Math.max(there, oldNameEnd) - start);
    }
    int nameAt = there + area.length;
    if (oldName >= there && nameAt + name.length > oldName) {
      nameAt = padded(oldNameEnd);
    }
    if (nameAt + name.length > raw.limit()) {
      if (nameMovedForward()) {
        return;
      }
      throw new OutOfSpaceException(
          file.name()
              + ": the header's cluster of "
              + old.geometry().clusterSize()
              + " bytes has no room to change its extensions and backing file name ("
              + (area.length + name.length)
              + " bytes beside those of now) safely");
    }
    nameAt = name.length == 0 ? 0 : nameAt;
    file.write(there, ByteBuffer.wrap(area));
    if (nameAt > 0) {
      file.write(nameAt, ByteBuffer.wrap(name));
    }
    file.sync();
    ByteBuffer sector = file.readAt(0, SECTOR);
    sector.putInt(start, FILLER).putInt(start + 4, there - start - 8);
    point(sector, nameAt);
    file.write(0, sector);
    file.sync();
    file.write(start + 8, ByteBuffer.wrap(area, 8, area.length - 8));
    file.sync();
    file.write(start, ByteBuffer.wrap(area, 0, 8));
    file.sync();
  }

  /// Makes room by moving the old name to the front, and does it all again; not where that gains
  /// nothing.
  private boolean nameMovedForward() throws BlockException {
    byte[] present = new byte[oldNameEnd - oldName];
    raw.get(oldName, present);
    var moving = new HeaderRewrite(file, old, old.extensions(), present);
    int to = moving.firstSectorSuffices() ? moving.namePlace() : 0;
    if (to <= 0 || to >= oldName) {
      return false;
    }
    moving.inOneStep(to);
    new HeaderRewrite(file, Header.parse(file), extensions, name).run();
    return true;
  }
}
