// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Extent;
import io.tidemark.block.Extents;
import io.tidemark.block.FormatNode;
import io.tidemark.block.Measurement;
import io.tidemark.block.Preallocation;
import io.tidemark.block.UnsupportedImageException;
import java.util.IdentityHashMap;
import java.util.OptionalLong;

/// How large an image would be, as `qemu-img measure` counts.
///
/// What is needed is too much rather than too little: metadata is counted as of a full disk.
///
/// qemu: 7.2, the `measure` of its qcow2 driver.
final class Measure {
  /// Bytes of an entry of the L1 table, of the refcount table and of a bitmap's table.
  private static final int ENTRY = 8;

  /// Bytes of a bitmap directory's entry without its name.
  private static final int BITMAP_ENTRY = 24;

  private Measure() {}

  static Measurement of(CreateOptions asked, java.util.Optional<BlockNode> source)
      throws BlockException {
    ImageOptions options = ImageOptions.of("qcow2", asked);
    long clusterSize = 1L << options.clusterBits();
    long size = source.isPresent() ? source.get().virtualSize() : asked.virtualSize();
    if (size > Long.MAX_VALUE - clusterSize) {
      throw tooLarge();
    }
    long diskSize = roundUp(size, clusterSize);
    int l2EntryBytes = options.extendedL2() ? 16 : 8;
    long l2Tables = divideUp(diskSize / clusterSize, clusterSize / l2EntryBytes);
    if (l2Tables * ENTRY > Geometry.MAX_L1_BYTES) {
      throw tooLarge();
    }
    long data = 0;
    if (source.isPresent()) {
      // What of the chain the new image would share with its backing file is not known.
      data = asked.backing().isPresent() ? diskSize : allocated(source.get(), clusterSize);
    }
    if (options.preallocation() == Preallocation.FALLOC
        || options.preallocation() == Preallocation.FULL) {
      data = diskSize;
    }
    long full = fullyAllocated(diskSize, clusterSize, options.refcountOrder(), l2EntryBytes);
    OptionalLong bitmaps =
        options.version() >= 3 && source.isPresent()
            ? bitmaps(source.get(), clusterSize)
            : OptionalLong.empty();
    return new Measurement(full - diskSize + data, full, bitmaps);
  }

  private static UnsupportedImageException tooLarge() {
    return new UnsupportedImageException(
        "The image size is too large (try using a larger cluster size)");
  }

  /// Bytes of the new image's clusters that something of the source would be written to.
  private static long allocated(BlockNode source, long clusterSize) throws BlockException {
    var count = new Count(clusterSize);
    Extents.walk(
        source,
        0,
        source.virtualSize(),
        (extent, _, layer) -> {
          if (extent.state() == Extent.State.DATA) {
            count.add(extent, layer);
          }
          return true;
        });
    return count.bytes;
  }

  /// Counts whole clusters, each once.
  private static final class Count {
    private final long clusterSize;
    private final IdentityHashMap<BlockNode, Boolean> hollow = new IdentityHashMap<>();
    private long bytes;
    private long counted; // guest bytes up to here

    Count(long clusterSize) {
      this.clusterSize = clusterSize;
    }

    void add(Extent extent, BlockNode layer) throws BlockException {
      if (extent.hostOffset() >= 0 && layer instanceof Qcow2Image image && mayBeHollow(image)) {
        // Clusters that were only given a place lie in holes of the file, and hold nothing.
        long toGuest = extent.offset() - extent.hostOffset();
        image
            .file()
            .extents(
                extent.hostOffset(),
                Math.min(extent.length(), image.file().virtualSize() - extent.hostOffset()),
                part -> {
                  if (part.state() == Extent.State.DATA) {
                    add(part.offset() + toGuest, part.end() + toGuest);
                  }
                  return true;
                });
      } else {
        add(extent.offset(), extent.end());
      }
    }

    private boolean mayBeHollow(Qcow2Image image) throws BlockException {
      Boolean known = hollow.get(image);
      if (known == null) {
        known = image.dataMayLieInHoles();
        hollow.put(image, known);
      }
      return known;
    }

    private void add(long offset, long end) {
      long from = Math.max(counted, offset / clusterSize * clusterSize);
      long to = roundUp(end, clusterSize);
      if (to > from) {
        bytes += to - from;
        counted = to;
      }
    }
  }

  private static long fullyAllocated(
      long diskSize, long clusterSize, int refcountOrder, int l2EntryBytes) {
    long l2Entries = roundUp(diskSize / clusterSize, clusterSize / l2EntryBytes);
    long l1Entries = roundUp(l2Entries * l2EntryBytes / clusterSize, clusterSize / ENTRY);
    long metadata = clusterSize + l2Entries * l2EntryBytes + l1Entries * ENTRY;
    long counted = (metadata + diskSize) / clusterSize;
    long refcountsPerBlock = (clusterSize * 8) >>> refcountOrder;
    long blocks = 0;
    long table = 0;
    for (long clusters = -1; clusters != counted + blocks + table; ) {
      clusters = counted + blocks + table;
      blocks = divideUp(clusters, refcountsPerBlock);
      table = divideUp(blocks, clusterSize / ENTRY);
    }
    return metadata + (blocks + table) * clusterSize + diskSize;
  }

  /// Space for the source's persistent bitmaps, as if every bit were set.
  private static OptionalLong bitmaps(BlockNode source, long clusterSize) {
    if (!(source instanceof FormatNode image) || image.bitmapStore().isEmpty()) {
      return OptionalLong.empty();
    }
    long sum = 0;
    long directory = 0;
    for (BitmapStore.Stored bitmap : image.bitmapStore().get().stored()) {
      if (bitmap.inconsistent()) {
        continue;
      }
      long bits = divideUp(source.virtualSize(), bitmap.granularity());
      long clusters = divideUp(divideUp(bits, 8), clusterSize);
      sum += clusters * clusterSize + roundUp(clusters * ENTRY, clusterSize);
      directory += roundUp(BITMAP_ENTRY + bitmap.name().getBytes(UTF_8).length, 8);
    }
    return OptionalLong.of(sum + roundUp(directory, clusterSize));
  }

  private static long divideUp(long a, long b) {
    return a / b + (a % b == 0 ? 0 : 1);
  }

  private static long roundUp(long a, long unit) {
    return divideUp(a, unit) * unit;
  }
}
