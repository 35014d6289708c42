// SPDX-License-Identifier: Apache-2.0
/// The block graph: nodes, raw files, filters, dirty bitmaps, and the drive a guest sees.
@org.jspecify.annotations.NullMarked
module io.tidemark.block {
  requires static org.jspecify;
  requires io.tidemark.linux;

  exports io.tidemark.block;
  exports io.tidemark.block.spi;

  uses io.tidemark.block.spi.ImageFormat;
  uses io.tidemark.block.spi.ProtocolDriver;

  provides io.tidemark.block.spi.ImageFormat with
      io.tidemark.block.RawFormat;
  provides io.tidemark.block.spi.ProtocolDriver with
      io.tidemark.block.NullProtocol;
}
