// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

/// How requests and replies are framed, as agreed on in the handshake.
///
/// Spec: proto.md, "Transmission phase".
enum Framing {
  /// 32-bit lengths, one reply a request.
  SIMPLE,
  /// 32-bit lengths, replies of several chunks. Spec: NBD_OPT_STRUCTURED_REPLY
  STRUCTURED,
  /// 64-bit lengths, every reply in chunks. Spec: NBD_OPT_EXTENDED_HEADERS
  EXTENDED;

  /// Whether a reply may come in chunks.
  boolean chunked() {
    return this != SIMPLE;
  }

  /// Bytes of a request's header.
  int requestBytes() {
    return this == EXTENDED ? Wire.Size.EXTENDED_REQUEST : Wire.Size.REQUEST;
  }

  int requestMagic() {
    return this == EXTENDED ? Wire.Magic.EXTENDED_REQUEST : Wire.Magic.REQUEST;
  }

  /// Bytes of a chunk's header.
  int chunkBytes() {
    return this == EXTENDED ? Wire.Size.EXTENDED_CHUNK : Wire.Size.CHUNK;
  }

  /// Bytes of an extent in a block status chunk.
  int extentBytes() {
    return this == EXTENDED ? Wire.Size.EXTENDED_EXTENT : Wire.Size.EXTENT;
  }

  /// Bytes before the extents of a block status chunk.
  int statusBytes() {
    return this == EXTENDED ? Wire.Size.EXTENDED_STATUS : Wire.Size.STATUS;
  }

  int statusChunk() {
    return this == EXTENDED ? Wire.Chunk.EXTENDED_BLOCK_STATUS : Wire.Chunk.BLOCK_STATUS;
  }
}
