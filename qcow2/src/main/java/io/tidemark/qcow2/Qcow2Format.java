// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FormatNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.spi.ImageFormat;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/// The qcow2 format.
///
/// Spec: qemu `docs/interop/qcow2.rst`.
public final class Qcow2Format implements ImageFormat {
  @Override
  public String name() {
    return "qcow2";
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
  public void create(BlockNode file, CreateOptions options) throws BlockException {
    Qcow2Image.create(file, options);
  }
}
