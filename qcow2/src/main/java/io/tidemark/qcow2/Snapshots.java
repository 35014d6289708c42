// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.SnapshotStore;
import io.tidemark.block.UnsupportedImageException;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalLong;

/// The internal snapshots of an open image, by id and name. [SnapshotChange] says what is on disk
/// after each step.
///
/// Spec: qcow2.rst, "Snapshots".
final class Snapshots implements SnapshotStore {
  /// qemu: the longest name that it keeps whole.
  static final int MAX_NAME = 255;

  private final Qcow2Image image;

  Snapshots(Qcow2Image image) {
    this.image = image;
  }

  @Override
  public List<InternalSnapshot> list() {
    return image.now().snapshots.entries().stream().map(SnapshotTable.Entry::snapshot).toList();
  }

  @Override
  public InternalSnapshot create(String name, Instant date) throws BlockException {
    int length = name.getBytes(UTF_8).length;
    if (length > MAX_NAME) {
      throw new UnsupportedImageException(
          image.name() + ": snapshot name of " + length + " bytes, at most " + MAX_NAME);
    }
    var made = new ArrayList<InternalSnapshot>();
    image.reorganise(
        false,
        now -> {
          Header header = now.header.now();
          refuseDataFile(header);
          var snapshot =
              new InternalSnapshot(
                  nextId(now.snapshots),
                  name,
                  date,
                  Duration.ZERO,
                  0,
                  header.virtualSize(),
                  OptionalLong.of(0)); // as qemu-img writes it
          var entries = new ArrayList<>(now.snapshots.entries());
          entries.add(SnapshotTable.entry(header.l1Offset(), header.l1Entries(), snapshot));
          var change = new SnapshotChange(now.file, now.header, now.allocator);
          change.create(entries);
          made.add(snapshot);
          return change.replaced();
        });
    return made.getFirst();
  }

  @Override
  public void delete(String idOrName) throws BlockException {
    image.reorganise(
        false,
        now -> {
          refuseDataFile(now.header.now());
          SnapshotTable.Entry gone = find(now.snapshots, idOrName);
          var entries = new ArrayList<>(now.snapshots.entries());
          entries.remove(entries.indexOf(gone));
          var change = new SnapshotChange(now.file, now.header, now.allocator);
          change.delete(gone, entries);
          return punched(now, change);
        });
  }

  @Override
  public void apply(String idOrName) throws BlockException {
    find(image.snapshotTable(), idOrName);
    image.reorganise(
        true,
        now -> {
          refuseDataFile(now.header.now());
          SnapshotTable.Entry entry = find(now.snapshots, idOrName);
          var change = new SnapshotChange(now.file, now.header, now.allocator);
          change.apply(entry, entry.snapshot().virtualSize(), now.snapshots.entries());
          return punched(now, change);
        });
  }

  @Override
  public BlockNode view(String idOrName) throws BlockException {
    return image.view(find(image.snapshotTable(), idOrName));
  }

  private static List<Freed> punched(OpenImage now, SnapshotChange change) {
    int bits = now.header.now().geometry().clusterBits();
    for (Freed run : change.freed()) {
      now.file.punch(run.first() << bits, run.count() << bits);
    }
    return change.replaced();
  }

  private void refuseDataFile(Header header) throws UnsupportedImageException {
    if (header.has(Feature.EXTERNAL_DATA_FILE)) {
      throw new UnsupportedImageException(
          image.name() + ": an image with an external data file has no internal snapshots");
    }
  }

  private SnapshotTable.Entry find(SnapshotTable table, String idOrName)
      throws UnsupportedImageException {
    for (SnapshotTable.Entry entry : table.entries()) {
      if (entry.snapshot().id().equals(idOrName)) {
        return entry;
      }
    }
    for (SnapshotTable.Entry entry : table.entries()) {
      if (entry.snapshot().name().equals(idOrName)) {
        return entry;
      }
    }
    throw new UnsupportedImageException(
        image.name() + ": no internal snapshot has the id or name '" + idOrName + "'");
  }

  /// qemu: one more than the highest id that is a number.
  private static String nextId(SnapshotTable table) {
    long highest = 0;
    for (SnapshotTable.Entry entry : table.entries()) {
      String id = entry.snapshot().id();
      int digits = 0;
      while (digits < id.length() && digits < 18 && Character.digit(id.charAt(digits), 10) >= 0) {
        digits++;
      }
      if (digits > 0) {
        highest = Math.max(highest, Long.parseLong(id.substring(0, digits)));
      }
    }
    return Long.toString(highest + 1);
  }
}
