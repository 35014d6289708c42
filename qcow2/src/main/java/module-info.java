// SPDX-License-Identifier: Apache-2.0
/// The qcow2 image format, as QEMU's docs/interop/qcow2.rst describes it.
@org.jspecify.annotations.NullMarked
module io.tidemark.qcow2 {
  requires static org.jspecify;
  requires com.github.luben.zstd_jni;
  requires transitive io.tidemark.block;

  exports io.tidemark.qcow2;

  provides io.tidemark.block.spi.ImageFormat with
      io.tidemark.qcow2.Qcow2Format;
}
