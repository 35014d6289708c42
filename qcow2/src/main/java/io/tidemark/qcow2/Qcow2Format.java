// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FormatNode;
import io.tidemark.block.Measurement;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.spi.ImageFormat;
import io.tidemark.block.spi.NamedFiles;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Optional;
import java.util.Set;

/// The qcow2 format.
///
/// Spec: qemu `docs/interop/qcow2.rst`.
public final class Qcow2Format implements ImageFormat {
  @Override
  public String name() {
    return "qcow2";
  }

  /// Sizes of caches, how soon space is given back, which checks are made before a write.
  @Override
  public Set<String> openOptions() {
    return Set.of(
        "lazy-refcounts",
        "pass-discard-request",
        "pass-discard-snapshot",
        "pass-discard-other",
        "overlap-check",
        "overlap-check.template",
        "cache-size",
        "l2-cache-size",
        "l2-cache-entry-size",
        "refcount-cache-size",
        "cache-clean-interval");
  }

  @Override
  public boolean probe(ByteBuffer head) {
    return head.remaining() >= 8
        && head.duplicate().order(ByteOrder.BIG_ENDIAN).getInt(head.position()) == Header.MAGIC
        && head.duplicate().order(ByteOrder.BIG_ENDIAN).getInt(head.position() + 4) >= 2;
  }

  @Override
  public FormatNode open(BlockNode file, OpenOptions options) throws BlockException {
    return Qcow2Image.open(file, options);
  }

  @Override
  public FormatNode open(BlockNode file, OpenOptions options, NamedFiles others)
      throws BlockException {
    return Qcow2Image.open(file, options, others);
  }

  @Override
  public void create(BlockNode file, CreateOptions options) throws BlockException {
    Qcow2Image.create(file, options);
  }

  @Override
  public void create(BlockNode file, CreateOptions options, NamedFiles others)
      throws BlockException {
    Qcow2Image.create(file, options, others);
  }

  /// As `qemu-img measure` 7.2 counts.
  @Override
  public Measurement measure(CreateOptions options, Optional<BlockNode> source)
      throws BlockException {
    return Measure.of(options, source);
  }
}
