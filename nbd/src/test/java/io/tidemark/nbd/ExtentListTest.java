// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.DirtyBitmap;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

class ExtentListTest {
  private static final int SIZE = 1 << 20;

  private static List<String> list(ByteBuffer out) {
    var extents = new ArrayList<String>();
    out.flip();
    while (out.hasRemaining()) {
      extents.add(out.getInt() + ":" + out.getInt());
    }
    return extents;
  }

  @Test
  void mergesNeighboursAndClipsToTheRange() throws Exception {
    var node = new MemoryNode(SIZE);
    node.write(8192, ByteBuffer.allocate(4096));
    node.write(12288, ByteBuffer.allocate(4096));
    ByteBuffer out = ByteBuffer.allocate(1024);

    new ExtentList(out, 100, Framing.STRUCTURED).allocation(node, 100, 20000);

    assertThat(list(out)).containsExactly("8092:3", "8192:0", "3716:3");
  }

  @Test
  void staysWithinTheNumberAllowed() throws Exception {
    var node = new MemoryNode(SIZE);
    for (int i = 0; i < 20; i++) {
      node.write(i * 8192L, ByteBuffer.allocate(4096));
    }
    ByteBuffer one = ByteBuffer.allocate(1024);
    ByteBuffer three = ByteBuffer.allocate(1024);

    new ExtentList(one, 1, Framing.STRUCTURED).allocation(node, 0, SIZE);
    new ExtentList(three, 3, Framing.STRUCTURED).allocation(node, 0, SIZE);

    assertThat(list(one)).containsExactly("4096:0");
    assertThat(list(three)).containsExactly("4096:0", "4096:3", "4096:0");
  }

  @Test
  void showsDirtyRangesFromTheMiddleOfAGranule() {
    var bitmap = new DirtyBitmap("b", SIZE, 65536);
    bitmap.set(65536, 1);
    bitmap.set(SIZE - 1, 1);
    ByteBuffer out = ByteBuffer.allocate(1024);

    new ExtentList(out, 100, Framing.STRUCTURED).dirty(bitmap, 70000, SIZE - 70000);

    assertThat(list(out)).containsExactly("61072:1", (SIZE - 131072 - 65536) + ":0", "65536:1");
  }

  @Test
  void countsWhatTheBitmapDoesNotCoverAsDirty() {
    var bitmap = new DirtyBitmap("b", 100_000, 65536);
    ByteBuffer out = ByteBuffer.allocate(1024);

    new ExtentList(out, 100, Framing.STRUCTURED).dirty(bitmap, 0, 200_000);

    assertThat(list(out)).containsExactly("100000:0", "100000:1");
  }

  @Test
  void carriesAnExtentOfNearlyFourGibibytes() {
    var bitmap = new DirtyBitmap("b", 8L << 30, 1 << 20);
    ByteBuffer out = ByteBuffer.allocate(1024);

    new ExtentList(out, 1, Framing.STRUCTURED).dirty(bitmap, 0, 0xffff_ffffL);

    assertThat(Integer.toUnsignedLong(out.getInt(0))).isEqualTo(0xffff_ffffL);
  }
}
