// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.block.spi.ImageFormat;
import java.nio.ByteBuffer;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;

/// The format without a header: guest bytes are the file's bytes.
///
/// Spec: qemu `docs/system/images.rst`, "raw".
public final class RawFormat implements ImageFormat {
  /// What a guest sees is whole sectors, as in QEMU; a file that ends amid one reads as zeroes to
  /// its end.
  static final int SECTOR = 512;

  private static final int FIRST_BLOCK = 4096;

  @Override
  public String name() {
    return "raw";
  }

  @Override
  public boolean probe(ByteBuffer head) {
    return false;
  }

  @Override
  public FormatNode open(BlockNode file, OpenOptions options) throws BlockException {
    return new RawNode(file, options.readOnly());
  }

  /// Options: `preallocation` = `off`, `falloc` (space reserved) or `full` (zeroes written). The
  /// size is rounded up to whole sectors.
  @Override
  public void create(BlockNode file, CreateOptions options) throws BlockException {
    if (options.backing().isPresent()) {
      throw new UnsupportedImageException(file.name() + ": a raw image cannot have a backing file");
    }
    Preallocation preallocation = preallocation(file.name(), options.options());
    long size = roundUp(file.name(), options.virtualSize());
    file.resize(size);
    RawNode.preallocate(file, 0, size, preallocation);
    if (size > 0) {
      // qemu: 7.2 writes the first block, so that the alignment of direct I/O can be probed in it
      file.write(0, Zeroes.of(size < FIRST_BLOCK ? SECTOR : FIRST_BLOCK));
    }
    file.flush();
  }

  /// The disk's size: what is not written counts in a raw file's size too.
  @Override
  public Measurement measure(CreateOptions options, Optional<BlockNode> source)
      throws BlockException {
    if (options.backing().isPresent()) {
      throw new UnsupportedImageException("a raw image cannot have a backing file");
    }
    Preallocation _ = preallocation("raw", options.options());
    long size =
        roundUp("raw", source.isPresent() ? source.get().virtualSize() : options.virtualSize());
    return new Measurement(size, size, OptionalLong.empty());
  }

  private static Preallocation preallocation(String name, Map<String, String> options)
      throws UnsupportedImageException {
    for (String option : options.keySet()) {
      if (!option.equals("preallocation")) {
        throw new UnsupportedImageException(name + ": raw images have no option '" + option + "'");
      }
    }
    String value = options.getOrDefault("preallocation", "off");
    return Preallocation.of(value)
        .filter(p -> p != Preallocation.METADATA)
        .orElseThrow(() ->
            new UnsupportedImageException(
                name + ": preallocation '" + value + "' is not one of off, falloc, full"));
  }

  /// `size` in whole sectors.
  static long roundUp(String name, long size) throws UnsupportedImageException {
    if (size > Long.MAX_VALUE - SECTOR) {
      throw new UnsupportedImageException(name + ": size " + size + " is too large");
    }
    return (size + SECTOR - 1) & -SECTOR;
  }
}
