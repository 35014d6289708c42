// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/// Changes a few places of a qcow2 image, knowing where its structures are.
final class ImageMutator {
  /// Offset and bytes of each field of the header.
  private static final int[][] HEADER = {
    {4, 4}, {8, 8}, {16, 4}, {20, 4}, {24, 8}, {32, 4}, {36, 4}, {40, 8}, {48, 8}, {56, 4}, {60, 4},
    {64, 8}, {72, 8}, {80, 8}, {88, 8}, {96, 4}, {100, 4}, {104, 1}
  };

  private static final int BITMAPS = 0x23852875;

  private final Random random;
  private final byte[] bytes;
  private final ByteBuffer raw;
  private final int clusterSize;
  private final List<Integer> tables = new ArrayList<>(); // where 8-byte table entries begin
  private final List<Integer> directories = new ArrayList<>(); // fields of entries of odd sizes

  ImageMutator(byte[] image, long seed) {
    random = new Random(seed);
    bytes = image.clone();
    raw = ByteBuffer.wrap(bytes);
    clusterSize = 1 << raw.getInt(20);
    long l1 = raw.getLong(40);
    table(l1, raw.getInt(36));
    for (int i = 0; i < raw.getInt(36); i++) {
      long l2 = raw.getLong((int) l1 + 8 * i) & 0x00fffffffffffe00L;
      if (l2 != 0) {
        table(l2, clusterSize / 8);
      }
    }
    long refcounts = raw.getLong(48);
    table(refcounts, 4);
    table(raw.getLong((int) refcounts), clusterSize / 8);
    long snapshots = raw.getLong(64);
    if (snapshots != 0) {
      fields(snapshots, 160);
      table(raw.getLong((int) snapshots), raw.getInt((int) snapshots + 8));
    }
    extensions();
  }

  private void table(long offset, int entries) {
    for (int i = 0; i < entries && offset + 8L * i <= bytes.length - 8; i++) {
      tables.add((int) offset + 8 * i);
    }
  }

  private void fields(long offset, int length) {
    for (int i = 0; i < length && offset + i <= bytes.length - 8; i += 2) {
      directories.add((int) offset + i);
    }
  }

  private void extensions() {
    int at = raw.getInt(4) == 2 ? 72 : raw.getInt(100);
    while (at + 8 <= clusterSize && at + 8 <= bytes.length && raw.getInt(at) != 0) {
      fields(at, 40);
      if (raw.getInt(at) == BITMAPS) {
        long directory = raw.getLong(at + 24);
        fields(directory, 96);
        table(raw.getLong((int) directory), 8);
      }
      at += 8 + (raw.getInt(at + 4) + 7 & -8);
    }
  }

  /// The changed image.
  byte[] mutate() {
    for (int i = 1 + random.nextInt(4); i > 0; i--) {
      switch (random.nextInt(8)) {
        case 0, 1 -> {
          int[] field = HEADER[random.nextInt(HEADER.length)];
          put(field[0], field[1], wild());
        }
        case 2, 3 -> put(tables.get(random.nextInt(tables.size())), 8, entry());
        case 4 -> {
          if (!directories.isEmpty()) {
            put(
                directories.get(random.nextInt(directories.size())),
                1 << random.nextInt(4),
                wild());
          }
        }
        case 5 -> bytes[random.nextInt(bytes.length)] ^= (byte) (1 << random.nextInt(8));
        case 6 -> copyTable();
        default -> zero();
      }
    }
    return random.nextInt(10) == 0
        ? java.util.Arrays.copyOf(bytes, random.nextInt(bytes.length))
        : bytes;
  }

  private void put(int at, int width, long value) {
    for (int i = 0; i < width && at + i < bytes.length; i++) {
      bytes[at + i] = (byte) (value >>> (8 * (width - 1 - i)));
    }
  }

  private long wild() {
    long[] values = {
      0,
      1,
      2,
      3,
      -1,
      -2,
      7,
      8,
      9,
      21,
      22,
      31,
      63,
      64,
      511,
      512,
      4095,
      4096,
      65536,
      1 << 20,
      0x7fffffff,
      0x80000000L,
      0xffffffffL,
      1L << 32,
      1L << 40,
      1L << 55,
      1L << 56,
      Long.MAX_VALUE,
      Long.MIN_VALUE,
      bytes.length,
      bytes.length - 1,
      bytes.length + (long) clusterSize,
      raw.getLong(40),
      raw.getLong(48),
      raw.getLong(64),
      clusterSize,
      random.nextLong(),
      random.nextInt(1 << 16)
    };
    return values[random.nextInt(values.length)];
  }

  /// A table entry: some cluster, with some flags.
  private long entry() {
    long place =
        switch (random.nextInt(6)) {
          case 0 -> wild();
          case 1 -> tables.get(random.nextInt(tables.size())); // into a table
          default -> (long) random.nextInt(bytes.length / clusterSize + 3) * clusterSize;
        };
    return place
        | switch (random.nextInt(6)) {
          case 0 -> 1L << 63;
          case 1 -> 1L << 62;
          case 2 -> 3L << 62;
          case 3 -> 1;
          case 4 -> (long) random.nextInt(1 << 14) << 48;
          default -> 0;
        };
  }

  /// One cluster over another: tables that are each other.
  private void copyTable() {
    int clusters = bytes.length / clusterSize;
    int from = random.nextInt(clusters) * clusterSize;
    int to = random.nextInt(clusters) * clusterSize;
    System.arraycopy(bytes, from, bytes, to, clusterSize);
  }

  private void zero() {
    int from = random.nextInt(bytes.length);
    int length = 1 + random.nextInt(64);
    put(from, Math.min(length, bytes.length - from), random.nextBoolean() ? 0 : -1);
  }
}
