// SPDX-License-Identifier: Apache-2.0
/// The NBD protocol: an export server and a client node.
@org.jspecify.annotations.NullMarked
module io.tidemark.nbd {
  requires static org.jspecify;
  requires transitive io.tidemark.block;
  requires io.tidemark.linux;

  exports io.tidemark.nbd;

  provides io.tidemark.block.spi.ProtocolDriver with
      io.tidemark.nbd.NbdProtocol;
}
