// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.ByteOrder.BIG_ENDIAN;
import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The first cluster of an image, checked: header, extensions, backing file name.
///
/// Spec: qcow2.rst, "Header", "Additional fields", "Header extensions". All fields are big-endian.
///
/// @param l1Entries at least as many as the virtual size needs
/// @param snapshotCount as it stands there; how many are handled says [SnapshotTable]
/// @param extensions in the order of the image, unknown ones too
/// @param extensionsEnd host byte of the end marker, where the next extension would go
/// @param backing empty when there is no backing file
record Header(
    Geometry geometry,
    long virtualSize,
    long l1Offset,
    int l1Entries,
    long refcountTableOffset,
    int refcountTableClusters,
    long snapshotCount,
    long snapshotsOffset,
    long incompatible,
    long compatible,
    long autoclear,
    int compressionType,
    List<Extension> extensions,
    int extensionsEnd,
    int backingOffset,
    int backingLength,
    Optional<BackingReference> backing) {
  static final int MAGIC = 0x514649fb; // "QFI\xfb"

  /// Spec: backing_file_size, "Must not be longer than 1023 bytes".
  static final int MAX_BACKING_NAME = 1023;

  /// qemu: the buffer that the backing format's extension is read into, less its end.
  static final int MAX_BACKING_FORMAT = 15;

  /// Offsets of the fields.
  static final class At {
    static final int MAGIC = 0; //             u32
    static final int VERSION = 4; //           u32
    static final int BACKING_OFFSET = 8; //    u64, host bytes
    static final int BACKING_LENGTH = 16; //   u32, bytes
    static final int CLUSTER_BITS = 20; //     u32, log2 bytes
    static final int VIRTUAL_SIZE = 24; //     u64, bytes
    static final int CRYPT_METHOD = 32; //     u32
    static final int L1_ENTRIES = 36; //       u32
    static final int L1_OFFSET = 40; //        u64, host bytes, cluster-aligned
    static final int REFCOUNT_OFFSET = 48; //  u64, host bytes, cluster-aligned
    static final int REFCOUNT_CLUSTERS = 56; // u32
    static final int SNAPSHOT_COUNT = 60; //   u32
    static final int SNAPSHOT_OFFSET = 64; //  u64, host bytes, cluster-aligned
    static final int END_V2 = 72;
    static final int INCOMPATIBLE = 72; //     u64, feature bits
    static final int COMPATIBLE = 80; //       u64
    static final int AUTOCLEAR = 88; //        u64
    static final int REFCOUNT_ORDER = 96; //   u32, log2 bits
    static final int HEADER_LENGTH = 100; //   u32, bytes
    static final int END_V3 = 104;
    static final int COMPRESSION_TYPE = 104; // u8, since header length 112

    private At() {}
  }

  /// @param type one of the constants, or unknown
  /// @param offset host byte of the data, 8 past the extension's start
  /// @param data from 0 to its limit; read by absolute index only
  record Extension(int type, int offset, ByteBuffer data) {

    static final int END = 0;
    static final int BACKING_FORMAT = 0xe2792aca;
    static final int FEATURE_NAMES = 0x6803f857;
    static final int BITMAPS = 0x23852875;
    static final int DATA_FILE = 0x44415441;
  }

  boolean has(Feature incompatibleFeature) {
    return incompatibleFeature.in(incompatible);
  }

  /// The name of the external data file.
  Optional<String> dataFile() {
    return geometry.dataFile()
        ? extension(Extension.DATA_FILE)
            .filter(e -> e.data().limit() > 0)
            .map(e -> UTF_8.decode(e.data().duplicate()).toString())
        : Optional.empty();
  }

  /// qemu: of several of one type the last counts.
  Optional<Extension> extension(int type) {
    return last(extensions, type);
  }

  private static Optional<Extension> last(List<Extension> extensions, int type) {
    return extensions.stream().filter(e -> e.type() == type).reduce((_, later) -> later);
  }

  /// Reads and checks the first cluster. `fileLength` is what tables are held against.
  static Header parse(HostFile file) throws BlockException {
    String image = file.name();
    ByteBuffer fixed = file.readAt(0, (int) Math.min(At.END_V3 + 8, file.length()));
    if (fixed.remaining() < At.END_V2) {
      throw new CorruptImageException(
          image + ": header is cut short at " + fixed.remaining() + " bytes, wanted " + At.END_V2);
    }
    if (fixed.getInt(At.MAGIC) != MAGIC) {
      throw new CorruptImageException(
          image + ": not a qcow2 image: magic is 0x" + Integer.toHexString(fixed.getInt(At.MAGIC)));
    }
    int version = fixed.getInt(At.VERSION);
    if (version != 2 && version != 3) {
      throw new UnsupportedImageException(
          image + ": qcow2 version " + Integer.toUnsignedString(version) + ", wanted 2 or 3");
    }
    if (version == 3 && fixed.remaining() < At.END_V3) {
      throw new CorruptImageException(
          image + ": header is cut short at " + fixed.remaining() + " bytes, wanted " + At.END_V3);
    }
    int clusterBits = fixed.getInt(At.CLUSTER_BITS);
    if (clusterBits < Geometry.MIN_CLUSTER_BITS || clusterBits > Geometry.MAX_CLUSTER_BITS) {
      throw new UnsupportedImageException(
          image + ": cluster bits " + Integer.toUnsignedString(clusterBits) + ", wanted 9 to 21");
    }
    int order = version == 2 ? 4 : fixed.getInt(At.REFCOUNT_ORDER);
    if (order < 0 || order > 6) {
      throw new CorruptImageException(
          image + ": refcount order " + Integer.toUnsignedString(order) + ", wanted 0 to 6");
    }
    int headerLength = version == 2 ? At.END_V2 : fixed.getInt(At.HEADER_LENGTH);
    // qemu: 7.2 reads lengths that are no multiple of 8, against the spec
    if (version == 3 && (headerLength < At.END_V3 || headerLength > 1 << clusterBits)) {
      throw new CorruptImageException(
          image
              + ": header length "
              + Integer.toUnsignedString(headerLength)
              + ", wanted 104 to the cluster size");
    }
    ByteBuffer cluster = file.readAt(0, 1 << clusterBits);
    boolean extendedL2 = version == 3 && Feature.EXTENDED_L2.in(fixed.getLong(At.INCOMPATIBLE));
    boolean dataFile =
        version == 3 && Feature.EXTERNAL_DATA_FILE.in(fixed.getLong(At.INCOMPATIBLE));
    var geometry = new Geometry(version, clusterBits, order, extendedL2, dataFile);
    return new Parser(file, geometry, cluster, headerLength).parse();
  }

  /// The second half of parsing: everything that needs the cluster size.
  private record Parser(HostFile file, Geometry geometry, ByteBuffer raw, int headerLength) {
    Header parse() throws BlockException {
      boolean v3 = geometry.version() == 3;
      int backingOffset = backingOffset();
      int end = backingOffset == 0 ? geometry.clusterSize() : backingOffset;
      var extensions = new ArrayList<Extension>();
      // Features are judged by name before the rest, so that an image of a newer kind is called
      // unsupported and not corrupt.
      long incompatible = v3 ? raw.getLong(At.INCOMPATIBLE) : 0;
      long unknown = incompatible & ~Feature.INCOMPATIBLE_KNOWN;
      int extensionsEnd;
      if (unknown != 0) {
        refuse(unknown, extensions, end);
      }
      if (geometry.extendedL2() && geometry.clusterBits() < Geometry.MIN_EXTENDED_CLUSTER_BITS) {
        throw corrupt(
            "extended L2 entries with clusters of "
                + geometry.clusterSize()
                + " bytes, wanted at least "
                + (1 << Geometry.MIN_EXTENDED_CLUSTER_BITS));
      }
      int crypt = raw.getInt(At.CRYPT_METHOD);
      if (crypt != 0) {
        throw new UnsupportedImageException(
            name() + ": encrypted image (" + cipher(crypt) + ") is not supported");
      }
      extensionsEnd = extensions(extensions, end);
      int compression = compressionType(incompatible);
      long virtualSize = virtualSize();
      int l1Entries = l1Entries(virtualSize);
      long l1Offset = table(At.L1_OFFSET, "L1 table", 8L * l1Entries);
      int refcountClusters = refcountClusters();
      long refcountOffset =
          table(
              At.REFCOUNT_OFFSET,
              "refcount table",
              (long) refcountClusters << geometry.clusterBits());
      long snapshots = Integer.toUnsignedLong(raw.getInt(At.SNAPSHOT_COUNT));
      long snapshotsOffset =
          snapshots == 0
              ? 0
              : table(At.SNAPSHOT_OFFSET, "snapshot table", SnapshotTable.leastBytes(snapshots));
      return new Header(
          geometry,
          virtualSize & -512L, // qemu: 7.2 gives the guest whole sectors
          l1Offset,
          l1Entries,
          refcountOffset,
          refcountClusters,
          snapshots,
          snapshotsOffset,
          incompatible,
          v3 ? raw.getLong(At.COMPATIBLE) : 0,
          v3 ? raw.getLong(At.AUTOCLEAR) : 0,
          compression,
          List.copyOf(extensions),
          extensionsEnd,
          backingOffset,
          backingOffset == 0 ? 0 : raw.getInt(At.BACKING_LENGTH),
          backing(backingOffset, extensions));
    }

    private String name() {
      return file.name();
    }

    private CorruptImageException corrupt(String what) {
      return new CorruptImageException(name() + ": " + what);
    }

    private void refuse(long unknown, List<Extension> extensions, int end) throws BlockException {
      Optional<ByteBuffer> names = Optional.empty();
      try {
        extensions(extensions, end);
        names =
            extensions.stream()
                .filter(e -> e.type() == Extension.FEATURE_NAMES)
                .map(Extension::data)
                .findFirst();
      } catch (CorruptImageException _) {
        // Safe because the table only gives names: without it the bit's number is named.
      }
      throw new UnsupportedImageException(
          name()
              + ": unsupported qcow2 feature: "
              + String.join(", ", Feature.incompatibleNames(unknown, names)));
    }

    private static String cipher(int method) {
      return switch (method) {
        case 1 -> "AES";
        case 2 -> "LUKS";
        default -> "method " + Integer.toUnsignedString(method);
      };
    }

    private int compressionType(long incompatible) throws BlockException {
      int type =
          geometry.version() == 3 && headerLength > At.COMPRESSION_TYPE
              ? raw.get(At.COMPRESSION_TYPE) & 0xff
              : 0;
      if (Feature.COMPRESSION_TYPE.in(incompatible) != (type != 0)) {
        throw corrupt("compression type " + type + " contradicts the compression type feature bit");
      }
      if (!Codec.known(type)) {
        throw new UnsupportedImageException(
            name() + ": compression type " + type + ", known are 0 (zlib) and 1 (zstd)");
      }
      return type;
    }

    private long virtualSize() throws BlockException {
      long size = raw.getLong(At.VIRTUAL_SIZE);
      if (size < 0) {
        throw corrupt("virtual size 0x" + Long.toHexString(size) + ", at most 2^63-1 is possible");
      }
      return size;
    }

    private int l1Entries(long virtualSize) throws BlockException {
      int entries = raw.getInt(At.L1_ENTRIES);
      if (entries < 0 || entries > Geometry.MAX_L1_BYTES / 8) {
        throw new UnsupportedImageException(
            name()
                + ": L1 table of "
                + Integer.toUnsignedString(entries)
                + " entries, at most "
                + Geometry.MAX_L1_BYTES / 8
                + " are handled");
      }
      long wanted = geometry.l1EntriesFor(virtualSize);
      if (entries < wanted) {
        throw corrupt(
            "L1 table of "
                + entries
                + " entries, virtual size "
                + virtualSize
                + " needs "
                + wanted);
      }
      return entries;
    }

    private int refcountClusters() throws BlockException {
      int clusters = raw.getInt(At.REFCOUNT_CLUSTERS);
      int most = Geometry.MAX_REFCOUNT_TABLE_BYTES >>> geometry.clusterBits();
      if (clusters < 0 || clusters > most) {
        throw new UnsupportedImageException(
            name()
                + ": refcount table of "
                + Integer.toUnsignedString(clusters)
                + " clusters, at most "
                + most
                + " are handled");
      }
      return clusters;
    }

    /// A contiguous table: aligned, not on the header, and inside the file.
    private long table(int field, String what, long bytes) throws CorruptImageException {
      long offset = raw.getLong(field);
      if (bytes == 0) {
        return geometry.aligned(offset) && offset >= 0 ? offset : 0;
      }
      if (!geometry.aligned(offset)) {
        throw corrupt(what + " offset 0x" + Long.toHexString(offset) + " is not cluster-aligned");
      }
      // The last cluster of a file may be cut short: what is missing reads as zeroes.
      long most = geometry.clusters(file.length()) << geometry.clusterBits();
      if (offset < geometry.clusterSize() || offset > most - bytes) {
        throw corrupt(
            what
                + " at 0x"
                + Long.toHexString(offset)
                + " of "
                + bytes
                + " bytes lies outside the file of "
                + file.length()
                + " bytes");
      }
      return offset;
    }

    private int backingOffset() throws CorruptImageException {
      long offset = raw.getLong(At.BACKING_OFFSET);
      if (offset == 0) {
        return 0;
      }
      int length = raw.getInt(At.BACKING_LENGTH);
      if (offset < headerLength || offset > geometry.clusterSize()) {
        throw corrupt(
            "backing file name at 0x" + Long.toHexString(offset) + " is not in the header");
      }
      if (length < 0 || length > MAX_BACKING_NAME || length > geometry.clusterSize() - offset) {
        throw corrupt(
            "backing file name of "
                + Integer.toUnsignedString(length)
                + " bytes at 0x"
                + Long.toHexString(offset)
                + ", at most 1023 inside the first cluster are possible");
      }
      return (int) offset;
    }

    private Optional<BackingReference> backing(int offset, List<Extension> extensions) {
      int length = offset == 0 ? 0 : raw.getInt(At.BACKING_LENGTH);
      if (length == 0) {
        return Optional.empty();
      }
      byte[] text = new byte[length];
      raw.get(offset, text);
      return Optional.of(
          new BackingReference(
              new String(text, UTF_8),
              last(extensions, Extension.BACKING_FORMAT)
                  .filter(e -> e.data().hasRemaining())
                  .map(e -> UTF_8.decode(e.data().duplicate()).toString())));
    }

    /// Collects the extensions up to the end marker or `end`; returns where the marker stands.
    private int extensions(List<Extension> into, int end) throws CorruptImageException {
      into.clear();
      int at = headerLength;
      while (end - at >= 8) {
        int type = raw.getInt(at);
        int length = raw.getInt(at + 4);
        if (type == Extension.END) {
          return at;
        }
        if (type == Extension.BACKING_FORMAT
            && Integer.compareUnsigned(length, MAX_BACKING_FORMAT) > 0) {
          throw corrupt(
              "backing format of "
                  + Integer.toUnsignedString(length)
                  + " bytes, at most "
                  + MAX_BACKING_FORMAT);
        }
        if (length < 0 || length > end - at - 8) {
          throw corrupt(
              "header extension 0x"
                  + Integer.toHexString(type)
                  + " at 0x"
                  + Integer.toHexString(at)
                  + " of "
                  + Integer.toUnsignedString(length)
                  + " bytes passes the end of the header");
        }
        byte[] data = new byte[length];
        raw.get(at + 8, data);
        into.add(new Extension(type, at + 8, ByteBuffer.wrap(data).asReadOnlyBuffer()));
        at = Math.min(end, at + 8 + ((length + 7) & ~7));
      }
      return at;
    }
  }

  static ByteBuffer bigEndian(int bytes) {
    return ByteBuffer.allocate(bytes).order(BIG_ENDIAN);
  }
}
