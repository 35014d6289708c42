// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FileNodeTest {
  private static final int MIB = 1 << 20;

  @TempDir Path dir;
  private Path path = Path.of("");

  @BeforeEach
  void makeFile() throws IOException {
    path = Files.write(dir.resolve("file"), RawFormatTest.filled(MIB, 7));
  }

  private FileNode open() throws BlockException {
    return FileNode.open(path, OpenOptions.readWrite());
  }

  @Test
  void readsAndWritesHeapDirectAndReadOnlyBuffersAtAnyOffset() throws BlockException {
    var random = new Random(1);
    byte[] model = RawFormatTest.filled(MIB, 7);
    try (FileNode node = open()) {
      for (int i = 0; i < 200; i++) {
        int offset = random.nextInt(MIB);
        byte[] bytes = new byte[random.nextInt(Math.min(MIB - offset, 100_000))];
        random.nextBytes(bytes);
        ByteBuffer from =
            switch (i % 3) {
              case 0 -> ByteBuffer.wrap(bytes);
              case 1 -> ByteBuffer.allocateDirect(bytes.length).put(bytes).flip();
              default -> ByteBuffer.wrap(bytes).asReadOnlyBuffer();
            };
        node.write(offset, from);
        assertThat(from.hasRemaining()).isFalse();
        System.arraycopy(bytes, 0, model, offset, bytes.length);
      }
      ByteBuffer all = ByteBuffer.allocateDirect(MIB);
      node.read(0, all);
      assertThat(all.flip().mismatch(ByteBuffer.wrap(model))).isEqualTo(-1);
      ByteBuffer part = ByteBuffer.allocate(100).position(10).limit(20);
      node.read(5000, part);
      assertThat(part.position()).isEqualTo(20);
      assertThat(Arrays.copyOfRange(part.array(), 10, 20))
          .isEqualTo(Arrays.copyOfRange(model, 5000, 5010));
      assertThat(Arrays.copyOf(part.array(), 10)).containsOnly(0);
    }
  }

  @Test
  void refusesRequestsPastTheEndAndNegativeOnes() throws BlockException {
    try (FileNode node = open()) {
      assertThatThrownBy(() -> node.read(MIB - 1, ByteBuffer.allocate(2)))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> node.write(MIB, ByteBuffer.allocate(1)))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> node.writeZeroes(1, Long.MAX_VALUE, ZeroMode.MAY_UNMAP))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> node.discard(-1, 1)).isInstanceOf(IllegalArgumentException.class);
    }
  }

  @Test
  void zeroesInEitherModeAndDiscardsReadAsZeroesAndTouchNothingElse() throws IOException {
    try (FileNode node = open()) {
      node.writeZeroes(1000, 100_000, ZeroMode.MAY_UNMAP);
      node.writeZeroes(200_001, 65_537, ZeroMode.NO_UNMAP);
      node.discard(500_000, 200_000);
      node.writeZeroes(0, 0, ZeroMode.MAY_UNMAP);
      node.discard(0, 0);
    }
    byte[] bytes = Files.readAllBytes(path);
    assertThat(bytes).hasSize(MIB);
    byte[] wanted = RawFormatTest.filled(MIB, 7);
    Arrays.fill(wanted, 1000, 101_000, (byte) 0);
    Arrays.fill(wanted, 200_001, 265_538, (byte) 0);
    Arrays.fill(wanted, 500_000, 700_000, (byte) 0);
    assertThat(Arrays.equals(bytes, wanted)).isTrue();
  }

  @Test
  void aHoleGivesSpaceBackAndNoUnmapKeepsIt() throws BlockException {
    try (FileNode node = open()) {
      node.flush();
      long before = node.allocatedBytes();
      node.discard(0, MIB / 2);
      assertThat(node.allocatedBytes()).isEqualTo(before - MIB / 2);
      node.writeZeroes(0, MIB / 2, ZeroMode.NO_UNMAP);
      assertThat(node.allocatedBytes()).isGreaterThanOrEqualTo(before);
      node.writeZeroes(MIB / 2, MIB / 2, ZeroMode.MAY_UNMAP);
      assertThat(node.allocatedBytes()).isLessThanOrEqualTo(before - MIB / 2);
    }
  }

  @Test
  void extentsTellHolesFromDataAndAreClipped() throws BlockException {
    for (OpenOptions options : List.of(OpenOptions.readWrite(), OpenOptions.forceShare())) {
      try (FileNode writer = open()) {
        writer.discard(256 * 1024, 256 * 1024);
        writer.flush();
      }
      try (FileNode node = FileNode.open(path, options)) {
        List<Extent> seen = new ArrayList<>();
        node.extents(1000, MIB - 2000, seen::add);
        assertThat(seen)
            .containsExactly(
                new Extent(1000, 256 * 1024 - 1000, Extent.State.DATA, 1000, false),
                new Extent(256 * 1024, 256 * 1024, Extent.State.ZERO, 256 * 1024, false),
                new Extent(512 * 1024, MIB / 2 - 1000, Extent.State.DATA, 512 * 1024, false));
        seen.clear();
        node.extents(
            0,
            MIB,
            e -> {
              seen.add(e);
              return false;
            });
        assertThat(seen).hasSize(1);
      }
    }
  }

  @Test
  void resizeGrowsByAHoleAndCuts() throws IOException {
    try (FileNode node = open()) {
      long before = node.allocatedBytes();
      node.resize(1L << 40);
      assertThat(node.virtualSize()).isEqualTo(1L << 40);
      assertThat(node.allocatedBytes()).isLessThanOrEqualTo(before + 65536);
      ByteBuffer last = ByteBuffer.allocate(4096);
      node.read((1L << 40) - 4096, last);
      assertThat(Zeroes.isZero(last.flip())).isTrue();
      node.resize(100);
      assertThat(Files.size(path)).isEqualTo(100);
      node.resize(200);
      assertThat(Files.readAllBytes(path)).hasSize(200).endsWith(new byte[100]);
    }
  }

  @Test
  void refusesWhatIsNotAFile() {
    assertThatThrownBy(() -> FileNode.open(dir, OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class);
    assertThatThrownBy(() -> FileNode.open(Path.of("/dev/zero"), OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class);
    assertThatThrownBy(() -> FileNode.open(dir.resolve("none"), OpenOptions.reading()))
        .isInstanceOf(TransportException.class)
        .hasMessage(dir.resolve("none") + ": no such file");
  }

  @Test
  void saysThatAFullFileSystemIsFull() throws IOException {
    var limit = new OutOfSpaceProbe(dir);
    try (FileNode node = FileNode.create(limit.path())) {
      assertThatThrownBy(() -> node.resize(Long.MAX_VALUE)).isInstanceOf(BlockException.class);
      // Past what any file system here can hold, the kernel says EFBIG.
      assertThatThrownBy(() -> node.resize(Long.MAX_VALUE - 4096))
          .isInstanceOf(OutOfSpaceException.class);
      assertThat(node.virtualSize()).isZero();
    }
  }

  private record OutOfSpaceProbe(Path dir) {
    Path path() {
      return dir.resolve("large");
    }
  }

  @Test
  void aReaderFollowsAFileThatItsWriterLetsGrow() throws BlockException {
    try (FileNode writer = open();
        FileNode reader = FileNode.open(path, OpenOptions.forceShare())) {
      writer.resize(2 * MIB);
      ByteBuffer tail = ByteBuffer.allocate(10);
      reader.read(2 * MIB - 10, tail);
      assertThat(reader.virtualSize()).isEqualTo(2 * MIB);
    }
  }

  @Test
  void aFileThatWasCutBeneathIsATransportError() throws BlockException {
    try (FileNode writer = open();
        FileNode reader = FileNode.open(path, OpenOptions.forceShare())) {
      writer.resize(100);
      assertThatThrownBy(() -> reader.read(50, ByteBuffer.allocate(100)))
          .isInstanceOf(TransportException.class)
          .hasMessageContaining("file ends at 100");
    }
  }

  @Test
  void aWriterExcludesWritersAndReadersAndReadersCoexist() throws BlockException {
    try (FileNode writer = open()) {
      assertThatThrownBy(this::open)
          .isInstanceOf(ImageBusyException.class)
          .hasMessageContaining("cannot get \"write\" lock");
      assertThatThrownBy(() -> FileNode.open(path, OpenOptions.reading()))
          .isInstanceOf(ImageBusyException.class)
          .hasMessageContaining("cannot get shared \"write\" lock");
      try (FileNode sharing = FileNode.open(path, OpenOptions.forceShare())) {
        sharing.read(0, ByteBuffer.allocate(1));
      }
      writer.write(0, ByteBuffer.allocate(1));
    }
    try (FileNode one = FileNode.open(path, OpenOptions.reading());
        FileNode two = FileNode.open(path, OpenOptions.reading())) {
      one.read(0, ByteBuffer.allocate(1));
      two.read(0, ByteBuffer.allocate(1));
      assertThatThrownBy(this::open).isInstanceOf(ImageBusyException.class);
    }
    open().close();
  }

  @Test
  void aClosedNodeFailsAndClosesAgain() throws BlockException {
    FileNode node = open();
    node.close();
    assertThatCode(node::close).doesNotThrowAnyException();
    assertThatThrownBy(() -> node.read(0, ByteBuffer.allocate(1)))
        .isInstanceOf(TransportException.class)
        .hasMessageContaining("node is closed");
    assertThatThrownBy(node::flush).isInstanceOf(TransportException.class);
    assertThatThrownBy(node::flush).hasMessageContaining("earlier flush failed");
    FileNode share = FileNode.open(path, OpenOptions.forceShare());
    share.close();
    assertThatThrownBy(share::allocatedBytes).isInstanceOf(TransportException.class);
  }

  @Test
  void aNodeWithoutLocksRefusesAnotherFileThatTookItsName() throws IOException {
    try (FileNode node = FileNode.open(path, OpenOptions.forceShare())) {
      Files.move(path, dir.resolve("away"));
      Files.write(path, new byte[10]);
      assertThatThrownBy(node::allocatedBytes)
          .isInstanceOf(TransportException.class)
          .hasMessageContaining("another file has taken this name");
      node.read(MIB - 1, ByteBuffer.allocate(1));
    }
  }

  @Test
  void flushesOfManyThreadsAllReturn() throws Exception {
    try (FileNode node = open()) {
      Thread[] threads = new Thread[8];
      for (int t = 0; t < threads.length; t++) {
        int at = t * 4096;
        threads[t] =
            Thread.ofPlatform()
                .start(() -> {
                  try {
                    for (int i = 0; i < 20; i++) {
                      node.write(at, ByteBuffer.allocate(4096));
                      node.flush();
                    }
                  } catch (BlockException e) {
                    throw new AssertionError(e);
                  }
                });
      }
      for (Thread thread : threads) {
        thread.join();
      }
    }
  }

  @Test
  void becomesWritableAndReadOnlyAgain() throws Exception {
    try (FileNode node = FileNode.open(path, OpenOptions.reading())) {
      FileNode.open(path, OpenOptions.reading()).close();
      node.reopen(false);
      assertThatThrownBy(() -> FileNode.open(path, OpenOptions.reading()))
          .isInstanceOf(ImageBusyException.class);
      node.write(3, ByteBuffer.wrap(new byte[] {9}));
      node.discard(4096, 4096);
      node.resize(2 * MIB);
      node.flush();
      node.reopen(true);
      assertThatThrownBy(() -> node.resize(1)).isInstanceOf(ReadOnlyNodeException.class);
      FileNode.open(path, OpenOptions.reading()).close();
      ByteBuffer read = ByteBuffer.allocate(5);
      node.read(4094 - 2, read);
      assertThat(read.array()).containsExactly(7, 7, 7, 7, 0);
      assertThat(node.virtualSize()).isEqualTo(2 * MIB);
      node.reopen(false);
      node.write(2 * MIB - 1, ByteBuffer.wrap(new byte[] {1}));
    }
    FileNode.open(path, OpenOptions.readWrite()).close();
  }

  @Test
  void anotherReaderKeepsItReadOnly() throws BlockException {
    try (FileNode node = FileNode.open(path, OpenOptions.reading());
        FileNode _ = FileNode.open(path, OpenOptions.reading())) {
      assertThatThrownBy(() -> node.reopen(false)).isInstanceOf(ImageBusyException.class);
      assertThat(node.readOnly()).isTrue();
      FileNode.open(path, OpenOptions.reading()).close();
    }
  }

  @Test
  void aReaderWithoutLocksStaysOne() throws BlockException {
    try (FileNode node = FileNode.open(path, OpenOptions.forceShare())) {
      assertThatThrownBy(() -> node.reopen(false)).isInstanceOf(UnsupportedImageException.class);
    }
  }
}
