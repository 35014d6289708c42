// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.InternalSnapshot;
import java.util.List;
import java.util.Optional;

/// Facts about a qcow2 image that `tidemark image info` shows.
///
/// @param compat `0.10` for version 2, `1.1` for version 3
/// @param compressionType `zlib` or `zstd`
/// @param dataFile the external data file, as it is recorded
/// @param dataFileRaw whether that file by itself is a raw image of the disk
public record ImageInformation(
    String compat,
    int clusterSize,
    int refcountBits,
    boolean lazyRefcounts,
    boolean dirty,
    boolean corrupt,
    boolean extendedL2,
    String compressionType,
    Optional<String> dataFile,
    boolean dataFileRaw,
    List<InternalSnapshot> snapshots) {
  public ImageInformation {
    snapshots = List.copyOf(snapshots);
  }

  static ImageInformation of(OpenImage image) {
    Header header = image.header.now();
    Geometry geometry = image.geometry;
    return new ImageInformation(
        geometry.version() == 2 ? "0.10" : "1.1",
        geometry.clusterSize(),
        1 << geometry.refcountOrder(),
        Feature.LAZY_REFCOUNTS.in(header.compatible()),
        header.has(Feature.DIRTY),
        header.has(Feature.CORRUPT),
        header.has(Feature.EXTENDED_L2),
        Codec.name(header.compressionType()),
        header.dataFile(),
        header.dataFile().isPresent() && Feature.RAW_EXTERNAL_DATA.in(header.autoclear()),
        image.snapshots.entries().stream().map(SnapshotTable.Entry::snapshot).toList());
  }
}
