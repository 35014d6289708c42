// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.time.Instant;
import java.util.List;

/// Snapshots inside an image ([InternalSnapshot]).
///
/// A snapshot is named by its id or its name; an id goes before a name that reads the same, as in
/// `qemu-img snapshot`. The calls that change something sync, are crash-safe (after a power cut the
/// image is as before or as after, at worst with leaked clusters), and may be made while the image
/// is read and written: guest changes wait meanwhile.
public interface SnapshotStore {
  /// In the order of the image's table.
  List<InternalSnapshot> list();

  /// Keeps the disk as it is now. Guest writes that were acknowledged before the call are in it.
  ///
  /// @param name need not be unique, may be empty
  /// @param date recorded, to the nanosecond
  /// @throws UnsupportedImageException when a limit is met; named in the text
  InternalSnapshot create(String name, Instant date) throws BlockException;

  /// Removes a snapshot and gives back the clusters that only it held.
  ///
  /// @throws UnsupportedImageException when there is none of that id or name
  void delete(String idOrName) throws BlockException;

  /// Makes the disk as it was in the snapshot, its size included; the snapshot stays. What the disk
  /// held is gone, unless another snapshot holds it. Persistent bitmaps that record writes no
  /// longer tell the truth and are marked inconsistent.
  void apply(String idOrName) throws BlockException;

  /// The snapshot's disk, read-only; its `backing` is the image's own backing node. Lives no longer
  /// than the image, and only while the snapshot is neither deleted nor applied. Closing it closes
  /// nothing else.
  BlockNode view(String idOrName) throws BlockException;
}
