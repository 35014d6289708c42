// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.CrashingFile;
import java.nio.ByteBuffer;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// What a writer does when it meets tables that lie over one another. Clusters of 64 KiB: header,
/// refcount table, refcount block, L1 table, L2 table, and two data clusters.
class CorruptionTest {
  private static final int CLUSTER = 65536;
  private static final long REFCOUNT_BLOCK = 2 * CLUSTER;
  private static final long L1 = 3 * CLUSTER;
  private static final long L2 = 4 * CLUSTER;
  private static final long SIZE = 2L << 30; // four L1 entries

  private final CrashingFile file = new CrashingFile(1);

  @BeforeEach
  void create() throws Exception {
    Qcow2Image.create(file, new CreateOptions(SIZE, Optional.empty(), Map.of()));
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      image.write(0, ByteBuffer.wrap(new byte[] {1}));
      image.write(2 * CLUSTER, ByteBuffer.wrap(new byte[] {2}));
    }
    file.reopen();
    assertThat(L2Entry.host(word(L1))).isEqualTo(L2);
  }

  private long word(long at) throws Exception {
    ByteBuffer raw = Header.bigEndian(8);
    file.read(at, raw);
    return raw.getLong(0);
  }

  private void patch(long at, long value) throws Exception {
    file.write(at, Header.bigEndian(8).putLong(0, value));
  }

  private boolean markedCorrupt() throws Exception {
    return (word(72) & 2) != 0;
  }

  private void writesAreRefused(Qcow2Image image, long offset) {
    assertThatThrownBy(() -> image.write(offset, ByteBuffer.wrap(new byte[] {7})))
        .isInstanceOf(CorruptImageException.class);
  }

  @ParameterizedTest
  @CsvSource({"0x10000", "0x20000", "0x30000", "0x40000", "0x70000000", "0x50200"})
  void aDataClusterThatIsNoneIsFoundBeforeAnythingIsWrittenThere(String host) throws Exception {
    patch(L2 + 8, L2Entry.COPIED | Long.decode(host));
    byte[] before = all();
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    writesAreRefused(image, CLUSTER);
    assertThat(markedCorrupt()).isTrue();
    writesAreRefused(image, 0);
    patch(72, 0);
    assertThat(all()).as("nothing but the bit").isEqualTo(before);
    image.close();
  }

  private byte[] all() throws Exception {
    byte[] bytes = new byte[(int) file.virtualSize()];
    file.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }

  @ParameterizedTest
  @CsvSource({"0x10000", "0x20000", "0x30000", "0x40000"})
  void anL2TableOverAnotherTableStopsTheFirstWrite(String host) throws Exception {
    patch(L1 + 8, L2Entry.COPIED | Long.decode(host));
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    ByteBuffer one = ByteBuffer.allocate(1);
    image.read(2 * CLUSTER, one);
    assertThat(one.get(0)).as("it can be read").isEqualTo((byte) 2);
    assertThat(markedCorrupt()).as("by a reader").isFalse();
    writesAreRefused(image, SIZE / 2);
    assertThat(markedCorrupt()).isTrue();
    image.close();
    file.reopen();
    assertThatThrownBy(() -> Qcow2Image.open(file, OpenOptions.readWrite()))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("marked corrupt");
    Qcow2Image.open(file, OpenOptions.reading()).close();
  }

  @Test
  void aRefcountOfZeroForATableStopsTheAllocation() throws Exception {
    patch(REFCOUNT_BLOCK, 0); // header, both refcount structures and the L1 table
    try (var image = Qcow2Image.open(file, OpenOptions.readWrite())) {
      writesAreRefused(image, 5 * CLUSTER);
      assertThat(markedCorrupt()).isTrue();
    }
  }

  @Test
  void whatWasAcknowledgedBeforeIsStillFlushed() throws Exception {
    patch(L1 + 16, L2Entry.COPIED | 0x12345200L); // found when its part of the disk is written
    var image = Qcow2Image.open(file, OpenOptions.readWrite());
    image.write(3 * CLUSTER, ByteBuffer.wrap(new byte[] {9}));
    writesAreRefused(image, SIZE / 2 + CLUSTER);
    assertThat(markedCorrupt()).isTrue();
    image.flush();
    image.close();
    file.reopen();
    var reading = Qcow2Image.open(file, OpenOptions.reading());
    ByteBuffer one = ByteBuffer.allocate(1);
    reading.read(3 * CLUSTER, one);
    assertThat(one.get(0)).isEqualTo((byte) 9);
  }

  @Test
  void corruptionOfABackingImageMarksNobody() throws Exception {
    patch(L2 + 8, L2Entry.COMPRESSED | (3L << 54) | 0x7fff_f000L);
    var base = Qcow2Image.open(file, OpenOptions.reading());
    var top = new CrashingFile(2);
    Qcow2Image.create(top, new CreateOptions(SIZE, Optional.empty(), Map.of()));
    var image = Qcow2Image.open(top, OpenOptions.readWrite());
    image.attachBacking(base);
    writesAreRefused(image, CLUSTER + 100);
    image.write(0, ByteBuffer.wrap(new byte[] {1}));
    ByteBuffer bits = Header.bigEndian(8);
    top.read(72, bits);
    assertThat(bits.getLong(0)).isZero();
    image.close();
  }
}
