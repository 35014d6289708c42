// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.FormatNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;

/// An open qcow2 image.
public final class Qcow2Image implements FormatNode {
  /// When a change of metadata that an acknowledged write needs leaves the heap.
  public enum Durability {
    /// Before the write is acknowledged: by the log in `OpenOptions.runDir`, or where that is not
    /// possible by syncing the data and then writing the L2 entry.
    ACKNOWLEDGED,
    /// At the next flush or close. For tools that write a whole image and flush it once.
    FLUSHED
  }

  /// Facts about the image that `tidemark image info` shows.
  ///
  /// @param compat `0.10` for version 2, `1.1` for version 3
  /// @param compressionType `zlib` or `zstd`
  public record Information(
      String compat,
      int clusterSize,
      int refcountBits,
      boolean lazyRefcounts,
      boolean dirty,
      boolean corrupt,
      boolean extendedL2,
      String compressionType,
      List<InternalSnapshot> snapshots) {
    public Information {
      snapshots = List.copyOf(snapshots);
    }
  }

  /// Opens the image in `file` with [Durability#ACKNOWLEDGED]. On success the result owns `file`.
  public static Qcow2Image open(BlockNode file, OpenOptions options) throws BlockException {
    return open(file, options, Durability.ACKNOWLEDGED);
  }

  /// Opens the image in `file`. On success the result owns `file`.
  public static Qcow2Image open(BlockNode file, OpenOptions options, Durability durability)
      throws BlockException {
    throw new UnsupportedOperationException();
  }

  /// Writes an empty image into `file`, which is empty, and syncs it.
  public static void create(BlockNode file, CreateOptions options) throws BlockException {
    throw new UnsupportedOperationException();
  }

  private Qcow2Image() {}

  public Information information() {
    throw new UnsupportedOperationException();
  }

  /// Holds every reference against every refcount, as `qemu-img check` does. Flushes metadata first
  /// when the image is writable; no guest write may run meanwhile.
  public CheckResult check() throws BlockException {
    throw new UnsupportedOperationException();
  }

  /// Gives back clusters that are counted as used and that nothing refers to. Refused when the
  /// image has corruptions. Returns what a check found before.
  public CheckResult repairLeaks() throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public String format() {
    return "qcow2";
  }

  @Override
  public BlockNode file() {
    throw new UnsupportedOperationException();
  }

  @Override
  public Optional<BackingReference> backingReference() {
    throw new UnsupportedOperationException();
  }

  @Override
  public void attachBacking(BlockNode backing) {
    throw new UnsupportedOperationException();
  }

  @Override
  public Optional<BlockNode> detachBacking() {
    throw new UnsupportedOperationException();
  }

  @Override
  public Optional<BlockNode> backing() {
    throw new UnsupportedOperationException();
  }

  @Override
  public Optional<BitmapStore> bitmapStore() {
    throw new UnsupportedOperationException();
  }

  @Override
  public String name() {
    throw new UnsupportedOperationException();
  }

  @Override
  public long virtualSize() {
    throw new UnsupportedOperationException();
  }

  @Override
  public boolean readOnly() {
    throw new UnsupportedOperationException();
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void flush() throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void close() throws BlockException {
    throw new UnsupportedOperationException();
  }
}
