// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import com.github.luben.zstd.ZstdCompressCtx;
import com.github.luben.zstd.ZstdDecompressCtx;
import com.github.luben.zstd.ZstdException;
import java.util.zip.DataFormatException;
import java.util.zip.Inflater;

/// Packs and unpacks single clusters. One thread at a time; [CompressedClusters] keeps some.
///
/// Spec: qcow2.rst, "Header", compression_type; "Compressed Clusters Descriptor".
sealed interface Codec extends AutoCloseable {
  /// Packed bytes that contradict their format, with what is wrong.
  final class BadData extends Exception {
    private static final long serialVersionUID = 1L;

    BadData(String message) {
      super(message);
    }
  }

  /// Compression types of the header.
  int ZLIB = 0;

  int ZSTD = 1;

  static boolean known(int type) {
    return type == ZLIB || type == ZSTD;
  }

  /// Safe because the header's type was checked by [#known] when it was parsed or made.
  static Codec of(int type) {
    return type == ZLIB ? new Deflate() : new Zstd();
  }

  /// The name in QEMU's options.
  static String name(int type) {
    return switch (type) {
      case ZLIB -> "zlib";
      case ZSTD -> "zstd";
      default -> "compression type " + type;
    };
  }

  /// Bytes that an output buffer must have past the limit given to [#pack].
  int SLACK = 16;

  /// Packs `length` bytes; returns how many they became, or -1 when more than `limit`.
  int pack(byte[] from, int length, byte[] into, int limit);

  /// Unpacks exactly one cluster, `length` bytes from `into[at]` on. `from` may hold more after it:
  /// other clusters' bytes. Nothing is written past `length`, whatever the data claim.
  void unpack(byte[] from, int fromLength, byte[] into, int at, int length) throws BadData;

  @Override
  void close();

  /// Raw deflate.
  final class Deflate implements Codec {
    private final NarrowDeflate deflate = new NarrowDeflate();
    private final Inflater inflater = new Inflater(true);
    private final byte[] beyond = new byte[1];

    @Override
    public int pack(byte[] from, int length, byte[] into, int limit) {
      return deflate.pack(from, length, into, limit);
    }

    @Override
    public void unpack(byte[] from, int fromLength, byte[] into, int at, int length)
        throws BadData {
      try {
        inflater.reset();
        inflater.setInput(from, 0, fromLength);
        int done = 0;
        while (done < length) {
          int more = inflater.inflate(into, at + done, length - done);
          if (more == 0) {
            throw new BadData("gives " + done + " bytes, wanted " + length);
          }
          done += more;
        }
        if (!inflater.finished() && inflater.inflate(beyond) > 0) {
          throw new BadData("gives more than a cluster of " + length + " bytes");
        }
      } catch (DataFormatException e) {
        throw new BadData("is not deflate: " + e.getMessage());
      }
    }

    @Override
    public void close() {
      inflater.end();
    }
  }

  /// Zstandard frames. The native library is loaded with the first of these, not before: most
  /// images never need it.
  ///
  /// Where the frames end is found by walking their block headers, so that the library is given
  /// exactly them: it then works from buffer to buffer, and no window is allocated that a frame
  /// asks for.
  ///
  /// Spec: RFC 8878, "Zstandard Frames", "Blocks".
  final class Zstd implements Codec {
    private static final int MAGIC = 0xFD2FB528;
    private static final int SKIPPABLE = 0x184D2A50; // to ..5F

    private final ZstdCompressCtx packer = new ZstdCompressCtx();
    private final ZstdDecompressCtx unpacker = new ZstdDecompressCtx();

    @Override
    public int pack(byte[] from, int length, byte[] into, int limit) {
      try {
        return packer.compressByteArray(into, 0, limit, from, 0, length);
      } catch (ZstdException _) {
        return -1; // the only reason with buffers of ours: it does not fit
      }
    }

    @Override
    public void unpack(byte[] from, int fromLength, byte[] into, int at, int length)
        throws BadData {
      int input = 0;
      int done = 0;
      while (done < length) {
        int frame = frameLength(from, input, fromLength);
        int more;
        try {
          more = unpacker.decompressByteArray(into, at + done, length - done, from, input, frame);
        } catch (ZstdException e) {
          throw new BadData("is not zstd of at most " + length + " bytes: " + e.getMessage());
        }
        input += frame;
        done += more;
      }
    }

    /// Bytes of the frame that starts at `start`.
    private static int frameLength(byte[] from, int start, int end) throws BadData {
      int magic = word(from, start, 4, end);
      if ((magic & ~15) == SKIPPABLE) {
        long size = 8L + Integer.toUnsignedLong(word(from, start + 4, 4, end));
        if (size > end - start) {
          throw new BadData("has a zstd frame cut short");
        }
        return (int) size;
      }
      if (magic != MAGIC) {
        throw new BadData("is not zstd: frame magic is 0x" + Integer.toHexString(magic));
      }
      int descriptor = word(from, start + 4, 1, end);
      boolean single = (descriptor & 0x20) != 0;
      int sizeBytes = (1 << (descriptor >>> 6)) & (single ? 15 : 14);
      int dictionaryBytes = (1 << (descriptor & 3)) >>> 1;
      int at = start + 5 + (single ? 0 : 1) + dictionaryBytes + sizeBytes;
      boolean last = false;
      while (!last) {
        int header = word(from, at, 3, end);
        last = (header & 1) != 0;
        int type = (header >>> 1) & 3;
        at += 3 + (type == 1 ? 1 : header >>> 3); // type 1 repeats one byte
      }
      at += (descriptor & 4) != 0 ? 4 : 0; // checksum
      if (at > end) {
        throw new BadData("has a zstd frame cut short");
      }
      return at - start;
    }

    private static int word(byte[] from, int at, int bytes, int end) throws BadData {
      if (at > end - bytes) {
        throw new BadData("has a zstd frame cut short");
      }
      int value = 0;
      for (int i = 0; i < bytes; i++) {
        value |= (from[at + i] & 0xff) << (8 * i);
      }
      return value;
    }

    @Override
    public void close() {
      packer.close();
      unpacker.close();
    }
  }
}
