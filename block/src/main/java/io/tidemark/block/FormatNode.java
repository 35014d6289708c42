// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.util.Map;
import java.util.Optional;

/// A node that gives the bytes of another node, its `file`, the meaning of an image format.
public interface FormatNode extends BlockNode {
  /// The format's name as libvirt and QEMU write it: `raw`, `qcow2`.
  String format();

  /// The node that holds the image's bytes. Owned: closed with this node.
  BlockNode file();

  /// The backing file as recorded in the image, whether or not a backing node is attached.
  Optional<BackingReference> backingReference();

  /// Attaches the chain beneath. Called once, before the first request. Owned: closed with this
  /// node, unless [#detachBacking] took it back.
  void attachBacking(BlockNode backing);

  /// Takes the backing node back, for closing or for use beneath another node. Only while no
  /// request is running.
  Optional<BlockNode> detachBacking();

  /// Records another backing file, or none, in the image, and syncs. The attached backing node is
  /// not touched, and nothing is copied: what the image does not hold reads from whatever the new
  /// reference leads to. After a power cut the image records the old reference or the new one.
  ///
  /// @throws UnsupportedImageException when the format keeps no reference, or the name or format
  ///   does not fit where it is kept
  default void changeBacking(Optional<BackingReference> newBacking) throws BlockException {
    throw new UnsupportedImageException(name() + ": " + format() + " records no backing file");
  }

  /// Changes options that the image was made with, and syncs. Guest requests wait.
  ///
  /// @param options by QEMU's names; sizes as numbers of bytes
  /// @throws UnsupportedImageException when the format, or what is in the image, forbids one of
  ///   them; named in the text
  default void amend(Map<String, String> options) throws BlockException {
    throw new UnsupportedImageException(
        name() + ": " + format() + " images have no options that can be amended");
  }

  /// Whether this read-only node shows acknowledged writes that its file does not hold: a killed
  /// writer left them in its log, and they were brought in in memory only. [#reopen] for writing
  /// brings them into the file.
  default boolean isAheadOfFile() {
    return false;
  }

  /// Forgets all that this layer holds, so that the backing node answers for the whole disk; what
  /// was held is given back. Only while no request is running. After a power cut before the next
  /// flush any part of it may still be held.
  default void empty() throws BlockException {
    throw new UnsupportedImageException(
        name() + ": " + format() + " holds all of its disk, and cannot be emptied");
  }

  /// Snapshots inside the image, where the format has them.
  default Optional<SnapshotStore> snapshots() {
    return Optional.empty();
  }

  /// The place for bitmaps that outlive the process, where the format has one.
  default Optional<BitmapStore> bitmapStore() {
    return Optional.empty();
  }

  /// Bytes in which the format gives out space; 0 where it has no unit of its own.
  default long clusterSize() {
    return 0;
  }

  /// Whether [#writeCompressed] can work on this image.
  default boolean canWriteCompressed() {
    return false;
  }

  /// Writes one cluster compressed, or as it is when it does not shrink; consumes `from`. Any
  /// thread may call at any time; compressing is done on the caller's thread, outside every lock. A
  /// cluster that holds data already gets a new place.
  ///
  /// @param offset guest bytes, a multiple of [#clusterSize]
  /// @param from [#clusterSize] bytes, or fewer up to the end of the disk
  /// @throws UnsupportedImageException when the format cannot
  default void writeCompressed(long offset, ByteBuffer from) throws BlockException {
    throw new UnsupportedImageException(
        name() + ": " + format() + " images cannot be written compressed");
  }

  /// Sets the size of the disk. No request past the smaller of both sizes may run.
  ///
  /// @throws UnsupportedImageException when the format, or what is in the image, forbids it; the
  ///   image is then as it was
  default void resize(long newSize, ResizeOptions options) throws BlockException {
    if (options.preallocation() != Preallocation.OFF) {
      throw new UnsupportedImageException(
          name() + ": preallocation=" + options.preallocation().word() + " is not supported");
    }
    if (newSize < virtualSize() && !options.shrink()) {
      throw new UnsupportedImageException(
          name()
              + ": shrinking from "
              + virtualSize()
              + " to "
              + newSize
              + " bytes loses data; ask for it with --shrink");
    }
    resize(newSize);
  }
}
