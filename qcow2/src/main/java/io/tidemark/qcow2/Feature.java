// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Feature bits of the header, and their names.
///
/// Spec: qcow2.rst, "Header" (bytes 72 to 95) and "Feature name table".
enum Feature {
  DIRTY(Kind.INCOMPATIBLE, 0, "dirty bit"),
  CORRUPT(Kind.INCOMPATIBLE, 1, "corrupt bit"),
  EXTERNAL_DATA_FILE(Kind.INCOMPATIBLE, 2, "external data file"),
  COMPRESSION_TYPE(Kind.INCOMPATIBLE, 3, "compression type"),
  EXTENDED_L2(Kind.INCOMPATIBLE, 4, "extended L2 entries"),
  LAZY_REFCOUNTS(Kind.COMPATIBLE, 0, "lazy refcounts"),
  BITMAPS(Kind.AUTOCLEAR, 0, "bitmaps"),
  RAW_EXTERNAL_DATA(Kind.AUTOCLEAR, 1, "raw external data");

  /// The three fields of feature bits, in the order of their type bytes.
  enum Kind {
    INCOMPATIBLE(0),
    COMPATIBLE(1),
    AUTOCLEAR(2);

    private final byte code;

    Kind(int code) {
      this.code = (byte) code;
    }
  }

  /// Bytes of one entry of the feature name table.
  static final int NAME_ENTRY = 48;

  /// Incompatible features that can be opened.
  static final long INCOMPATIBLE_KNOWN =
      DIRTY.mask()
          | CORRUPT.mask()
          | EXTERNAL_DATA_FILE.mask()
          | COMPRESSION_TYPE.mask()
          | EXTENDED_L2.mask();

  private final Kind kind;
  private final int bit;
  private final String title;

  Feature(Kind kind, int bit, String title) {
    this.kind = kind;
    this.bit = bit;
    this.title = title;
  }

  long mask() {
    return 1L << bit;
  }

  boolean in(long bits) {
    return (bits & mask()) != 0;
  }

  /// The table's data as QEMU writes it: every feature known, in the order of kind and bit.
  static byte[] nameTable() {
    var table = ByteBuffer.allocate(values().length * NAME_ENTRY);
    for (Feature feature : values()) {
      int start = table.position();
      table.put(feature.kind.code).put((byte) feature.bit);
      table.put(feature.title.getBytes(UTF_8));
      table.position(start + NAME_ENTRY);
    }
    return table.array();
  }

  /// Names of the incompatible bits in `bits`: from the image's own table, else ours, else the
  /// bit's number.
  static List<String> incompatibleNames(long bits, Optional<ByteBuffer> imageTable) {
    var names = new ArrayList<String>();
    for (int bit = 0; bit < 64; bit++) {
      if ((bits & (1L << bit)) != 0) {
        names.add(name(bit, imageTable));
      }
    }
    return names;
  }

  private static String name(int bit, Optional<ByteBuffer> imageTable) {
    for (Feature feature : values()) {
      if (feature.kind == Kind.INCOMPATIBLE && feature.bit == bit) {
        return feature.title;
      }
    }
    if (imageTable.isPresent()) {
      ByteBuffer table = imageTable.get();
      // The last name may be cut short, as QEMU reads it.
      for (int at = 0; at + 2 < table.limit(); at += NAME_ENTRY) {
        if (table.get(at) == Kind.INCOMPATIBLE.code && table.get(at + 1) == bit) {
          byte[] raw = new byte[Math.min(NAME_ENTRY, table.limit() - at) - 2];
          table.get(at + 2, raw);
          return printable(raw);
        }
      }
    }
    return "unknown incompatible feature bit " + bit;
  }

  /// Text from an image, fit for a message: up to the first zero byte, control characters replaced.
  private static String printable(byte[] raw) {
    int length = 0;
    while (length < raw.length && raw[length] != 0) {
      length++;
    }
    return new String(raw, 0, length, UTF_8).replaceAll("\\p{Cntrl}", "?");
  }
}
