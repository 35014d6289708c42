// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.CorruptImageException;
import io.tidemark.block.ImageBusyException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ChangeLogTest {
  private static final ChangeLog.Identity IMAGE =
      new ChangeLog.Identity("00112233445566778899aabbccddeeff", 1, 2, 3);
  private static final Geometry STANDARD = new Geometry(3, 16, 4, false, false);
  private static final Geometry EXTENDED = new Geometry(3, 16, 4, true, false);

  private static final ChangeLog.Change FIRST =
      new ChangeLog.Change(
          ChangeLog.Change.L2,
          3,
          17,
          new L2Slot(0, 0x5_0000_0000L),
          new L2Slot(0x50000L | L2Entry.COPIED, 0x4_0000_0003L));
  private static final ChangeLog.Change SECOND = ChangeLog.Change.l1(4, 0, 0x70000L);

  @TempDir Path dir;

  private Path path() {
    return IMAGE.logIn(dir);
  }

  @Test
  void givesBackBothWordsOfEverySlotInOrder() throws Exception {
    try (ChangeLog log = ChangeLog.create(path(), IMAGE, EXTENDED)) {
      log.append(FIRST);
      int left = log.turn();
      log.append(SECOND);
      log.append(ChangeLog.Change.pool(9, 5));
      assertThat(ChangeLog.read(path(), IMAGE, EXTENDED))
          .containsExactly(FIRST, SECOND, ChangeLog.Change.pool(9, 5));
      log.reset(left);
      assertThat(ChangeLog.read(path(), IMAGE, EXTENDED))
          .containsExactly(SECOND, ChangeLog.Change.pool(9, 5));
    }
  }

  @Test
  void aRecordWhoseBitmapWasDamagedEndsTheHalf() throws Exception {
    try (ChangeLog log = ChangeLog.create(path(), IMAGE, EXTENDED)) {
      log.append(SECOND);
      log.append(FIRST);
    }
    patch(4096 + 64 + 48, ByteBuffer.wrap(new byte[] {1}));
    assertThat(ChangeLog.read(path(), IMAGE, EXTENDED)).containsExactly(SECOND);
  }

  @Test
  void bothHalvesGetLongerAndAreReadInOrder() throws Exception {
    var expected = new java.util.ArrayList<ChangeLog.Change>();
    try (ChangeLog log = ChangeLog.create(path(), IMAGE, EXTENDED)) {
      int first = 0;
      while (log.makeRoom(1)) {
        var change = ChangeLog.Change.pool(first++, 1);
        log.append(change);
        expected.add(change);
      }
      assertThat(expected).hasSize(ChangeLog.MOST_PIECES * ChangeLog.PIECE_RECORDS);
      int left = log.turn();
      for (int i = 0; i <= ChangeLog.PIECE_RECORDS; i++) {
        assertThat(log.makeRoom(1)).isTrue();
        log.append(SECOND);
        expected.add(SECOND);
      }
      assertThat(ChangeLog.read(path(), IMAGE, EXTENDED)).isEqualTo(expected);
      log.reset(left);
      int again = log.turn();
      log.append(FIRST);
      log.reset(again);
      assertThat(ChangeLog.read(path(), IMAGE, EXTENDED)).containsExactly(FIRST);
    }
    ChangeLog.create(path(), IMAGE, EXTENDED).close();
    assertThat(ChangeLog.read(path(), IMAGE, EXTENDED)).isEmpty();
    assertThat(Files.size(path())).isEqualTo(4096 + (1 << 20));
  }

  @Test
  void aPieceCountsOnceTheHeaderSaysSo() throws Exception {
    try (ChangeLog log = ChangeLog.create(path(), IMAGE, EXTENDED)) {
      log.append(FIRST);
    }
    patch(4096 + (1 << 20), ByteBuffer.wrap(new byte[300_000])); // died while it got longer
    assertThat(ChangeLog.read(path(), IMAGE, EXTENDED)).containsExactly(FIRST);
    patch(200, ByteBuffer.wrap(new byte[] {2}));
    assertThatThrownBy(() -> ChangeLog.read(path(), IMAGE, EXTENDED))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("it has 1352672 bytes for 2 times 8192 records");
    patch(200, ByteBuffer.wrap(new byte[] {9}));
    assertThatThrownBy(() -> ChangeLog.read(path(), IMAGE, EXTENDED))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("for 9 times 8192 records");
  }

  @Test
  void refusesALogOfAnotherVersionAndOfOtherEntries() throws Exception {
    try (ChangeLog log = ChangeLog.create(path(), IMAGE, EXTENDED)) {
      log.append(FIRST);
    }
    assertThatThrownBy(() -> ChangeLog.read(path(), IMAGE, STANDARD))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("extended L2 entries");
    patch(7, ByteBuffer.wrap(new byte[] {'1'}));
    assertThatThrownBy(() -> ChangeLog.read(path(), IMAGE, EXTENDED))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("version 1, wanted 2")
        .hasMessageContaining("remove the log");
    var otherBoot = new ChangeLog.Identity("ff112233445566778899aabbccddeeff", 1, 2, 3);
    assertThat(ChangeLog.read(path(), otherBoot, EXTENDED)).isEmpty();
  }

  private void patch(long at, ByteBuffer bytes) throws Exception {
    try (FileChannel channel = FileChannel.open(path(), StandardOpenOption.WRITE)) {
      channel.write(bytes.order(ByteOrder.LITTLE_ENDIAN), at);
    }
  }

  @Test
  void lookingAtALogInUseLeavesItsLock() throws Exception {
    try (ChangeLog log = ChangeLog.create(path(), IMAGE, STANDARD)) {
      assertThat(ChangeLog.inUse(path())).isTrue();
      assertThat(ChangeLog.inUse(dir.resolve(".").resolve(path().getFileName()))).isTrue();
      assertThatThrownBy(() -> ChangeLog.create(path(), IMAGE, STANDARD))
          .isInstanceOf(ImageBusyException.class);
      assertThat(Files.readString(Path.of("/proc/locks")))
          .as("the writer's lock")
          .contains(":" + Files.getAttribute(path(), "unix:ino") + " ");
      log.append(SECOND);
    }
    assertThat(ChangeLog.inUse(path())).isFalse();
    ChangeLog.create(path(), IMAGE, STANDARD).remove();
    assertThat(path()).doesNotExist();
  }
}
