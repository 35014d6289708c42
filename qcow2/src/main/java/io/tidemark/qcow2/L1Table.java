// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.nio.ByteBuffer;

/// An L1 table in the file, the active one or a snapshot's: entries as they are, not yet checked.
///
/// It goes in pieces, because the whole can have 32 MiB; a power cut may leave only some of them
/// written. So what is written whole is written to a place that nothing names yet.
///
/// Spec: qcow2.rst, "Cluster mapping".
final class L1Table {
  /// Entries that are read or written at once.
  private static final int PIECE = 64 << 10;

  private L1Table() {}

  static long[] read(HostFile file, long offset, int entries) throws BlockException {
    long[] l1 = new long[entries];
    for (int at = 0; at < entries; at += PIECE) {
      int count = Math.min(PIECE, entries - at);
      file.readAt(offset + 8L * at, count * 8).asLongBuffer().get(l1, at, count);
    }
    return l1;
  }

  static void write(HostFile file, long offset, long[] l1) throws BlockException {
    for (int at = 0; at < l1.length; at += PIECE) {
      int count = Math.min(PIECE, l1.length - at);
      ByteBuffer raw = Header.bigEndian(8 * count);
      raw.asLongBuffer().put(l1, at, count);
      file.write(offset + 8L * at, raw);
    }
  }
}
