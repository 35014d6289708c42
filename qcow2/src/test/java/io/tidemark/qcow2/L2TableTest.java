// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class L2TableTest {
  private static final int CLUSTER = 16384;

  private static L2Table table(boolean extended) {
    return new L2Table(3, 5L * CLUSTER, Header.bigEndian(CLUSTER), extended, 0);
  }

  /// The bitmap that goes with an entry in this test: any other pair is a mixed one.
  private static long bitmapOf(long entry) {
    return entry * 0x9E3779B97F4A7C15L ^ entry >>> 7;
  }

  @Test
  void readersNeverSeeAnEntryWithAnotherOnesBitmap() throws Exception {
    L2Table table = table(true);
    var done = new AtomicBoolean();
    var mixed = new AtomicLong();
    var seen = new AtomicLong();
    var readers = new ArrayList<Thread>();
    for (int t = 0; t < 3; t++) {
      readers.add(
          Thread.ofPlatform()
              .start(() -> {
                long last = 0;
                long changes = 0;
                while (!done.get()) {
                  L2Slot slot = table.slot(7);
                  if (slot.bitmap() != bitmapOf(slot.entry())) {
                    mixed.incrementAndGet();
                  }
                  if (slot.entry() != last) {
                    last = slot.entry();
                    changes++;
                  }
                }
                seen.addAndGet(changes);
              }));
    }
    for (long i = 1; i <= 3_000_000; i++) {
      table.set(7, i, bitmapOf(i)); // one changer, as under the lock of the tables
      table.set(8, -i, i);
    }
    done.set(true);
    for (Thread reader : readers) {
      reader.join();
    }
    assertThat(mixed.get()).isZero();
    assertThat(seen.get()).as("changes that readers saw").isPositive();
  }

  @Test
  void bothWordsOfAnExtendedEntryAreWrittenInItsChunk() {
    L2Table table = table(true);
    assertThat(table.length()).isEqualTo(CLUSTER / 16);
    assertThat(table.set(256, 0x1122, 0x3344)).isEqualTo(L2Table.CHUNK);
    assertThat(table.set(257, 0x55, 0x66)).as("the same chunk").isZero();
    List<L2Table.Chunk> chunks = new ArrayList<>();
    table.take(chunks);
    assertThat(chunks).hasSize(1);
    assertThat(chunks.getFirst().hostOffset()).isEqualTo(5L * CLUSTER + 4096);
    ByteBuffer bytes = chunks.getFirst().bytes();
    assertThat(bytes.getLong(0)).isEqualTo(0x1122);
    assertThat(bytes.getLong(8)).isEqualTo(0x3344);
    assertThat(bytes.getLong(16)).isEqualTo(0x55);
    assertThat(bytes.getLong(24)).isEqualTo(0x66);
    assertThat(table.dirty()).isFalse();
  }

  @Test
  void aStandardEntryHasNoBitmap() {
    L2Table table = table(false);
    table.set(1, 0x1234, 0);
    assertThat(table.length()).isEqualTo(CLUSTER / 8);
    assertThat(table.slot(1)).isEqualTo(new L2Slot(0x1234, 0));
    assertThat(table.slot(2)).isEqualTo(L2Slot.EMPTY);
  }
}
