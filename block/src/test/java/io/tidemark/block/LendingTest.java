// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Pipe;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Bytes taken from where they lie.
class LendingTest {
  private static final int MIB = 1 << 20;
  private static final int MOST = 32 << 10; // a pipe holds twice this

  @TempDir Path dir;
  private Path path = Path.of("");
  private Pipe pipe;

  @BeforeEach
  void makeFile() throws IOException {
    path = Files.write(dir.resolve("file"), RawFormatTest.filled(MIB, 7));
    pipe = Pipe.open();
    pipe.sink().configureBlocking(false);
  }

  @AfterEach
  void closePipe() throws IOException {
    pipe.sink().close();
    pipe.source().close();
  }

  private int toPipe(ByteBuffer bytes) {
    try {
      return pipe.sink().write(bytes);
    } catch (IOException e) {
      throw new AssertionError("lent bytes that cannot be read", e);
    }
  }

  private byte[] fromPipe(int count) throws IOException {
    ByteBuffer got = ByteBuffer.allocate(count);
    while (got.hasRemaining()) {
      assertThat(pipe.source().read(got)).isPositive();
    }
    return got.array();
  }

  @Test
  void aDriveOverARawFileLendsWhatIsWrittenNow() throws Exception {
    FileNode file = FileNode.open(path, OpenOptions.readWrite());
    try (var drive = new Drive("vda", new RawNode(file, false))) {
      drive.write(1000, ByteBuffer.wrap(new byte[] {1, 2, 3}));
      assertThat(drive.lend(999, 5, this::toPipe)).isEqualTo(5);
      assertThat(fromPipe(5)).containsExactly(7, 1, 2, 3, 7);
      assertThat(drive.statistics().readOperations()).isEqualTo(1);
      assertThat(drive.statistics().readBytes()).isEqualTo(5);
      BlockNode part = WindowNode.of(drive, Optional.of(1000L), Optional.of(512L));
      assertThat(part.lend(0, 3, this::toPipe)).isEqualTo(3);
      assertThat(fromPipe(3)).containsExactly(1, 2, 3);
    }
  }

  @Test
  void whatTheBorrowerLeavesIsNotCounted() throws Exception {
    FileNode file = FileNode.open(path, OpenOptions.readWrite());
    try (var drive = new Drive("vda", new RawNode(file, false))) {
      assertThat(drive.lend(0, MOST, bytes -> 100)).isEqualTo(100);
      assertThat(drive.statistics().readOperations()).isZero();
      assertThat(drive.statistics().readBytes()).isEqualTo(100);
    }
  }

  @Test
  void aDriveThatIsDrainedOrLimitedLendsNothing() throws Exception {
    FileNode file = FileNode.open(path, OpenOptions.readWrite());
    try (var drive = new Drive("vda", new RawNode(file, false))) {
      try (var _ = drive.drain()) {
        assertThat(drive.lend(0, MOST, this::toPipe)).isZero();
      }
      drive.throttle(Optional.of(new Throttle(System::nanoTime)));
      assertThat(drive.lend(0, MOST, this::toPipe)).isZero();
      assertThat(drive.writeUnit()).isGreaterThan(MIB);
      drive.throttle(Optional.empty());
      assertThat(drive.writeUnit()).isEqualTo(1);
      assertThat(drive.lend(0, MOST, this::toPipe)).isEqualTo(MOST);
    }
  }

  @Test
  void lendsNothingPastTheEndAndFollowsAFileThatGrows() throws Exception {
    try (FileNode node = FileNode.open(path, OpenOptions.readWrite())) {
      assertThat(node.lend(MIB - 4096, 4096, this::toPipe)).isEqualTo(4096);
      assertThat(node.lend(MIB - 4096, 4097, this::toPipe)).isZero();
      node.resize(2 * MIB);
      node.write(MIB, ByteBuffer.wrap(RawFormatTest.filled(4096, 9)));
      assertThat(fromPipe(4096)).containsOnly(7);
      assertThat(node.lend(MIB, 4096, this::toPipe)).isEqualTo(4096);
      assertThat(fromPipe(4096)).containsOnly(9);
      node.resize(4096);
      assertThat(node.lend(MIB, 4096, this::toPipe)).isZero();
    }
  }

  @Test
  void aFileCutShortBehindTheNodesBackIsNotLent() throws Exception {
    try (FileNode node = FileNode.open(path, OpenOptions.readWrite())) {
      assertThat(node.lend(MIB / 2, 4096, this::toPipe)).isEqualTo(4096);
      Files.write(path, new byte[10]);
      assertThat(node.lend(MIB / 2, 4096, this::toPipe)).isZero();
    }
  }

  @Test
  void rangesOfTwoWindowsAreNotLentAndThoseBesideAre() throws Exception {
    try (FileNode node = FileNode.open(path, OpenOptions.readWrite())) {
      long border = HostMapping.WINDOW;
      node.resize(border + MIB);
      node.write(border - 4096, ByteBuffer.wrap(RawFormatTest.filled(8192, 5)));
      assertThat(node.lend(border - 4096, 8192, this::toPipe)).isZero();
      assertThat(node.lend(border - 4096, 4096, this::toPipe)).isEqualTo(4096);
      assertThat(node.lend(border, 4096, this::toPipe)).isEqualTo(4096);
      assertThat(fromPipe(8192)).containsOnly(5);
    }
  }

  @Test
  void closingWaitsForTheBorrowerAndLetsTheLocksGo() throws Exception {
    FileNode node = FileNode.open(path, OpenOptions.readWrite());
    var inside = new CountDownLatch(1);
    var go = new CountDownLatch(1);
    var back = new AtomicBoolean();
    Thread borrower =
        Thread.ofPlatform()
            .start(() ->
                node.lend(
                    0,
                    4096,
                    bytes -> {
                      inside.countDown();
                      Await.until(() -> go.getCount() == 0);
                      int taken = toPipe(bytes);
                      back.set(true);
                      return taken;
                    }));
    inside.await();
    Thread closer =
        Thread.ofPlatform()
            .start(() -> {
              try {
                node.close();
                assertThat(back).isTrue();
              } catch (BlockException e) {
                throw new AssertionError(e);
              }
            });
    go.countDown();
    borrower.join();
    closer.join();
    assertThat(back).isTrue();
    assertThat(fromPipe(4096)).containsOnly(7);
    assertThat(node.lend(0, 4096, this::toPipe)).isZero();
    node.close();
    FileNode.open(path, OpenOptions.readWrite()).close(); // locked by nobody
  }

  @Test
  void requestsPastThePageCacheAreNotLent() throws Exception {
    OpenOptions direct = OpenOptions.readWrite().with(HostAccess.DIRECT);
    try (FileNode node = FileNode.open(path, direct)) {
      assertThat(node.lend(0, 4096, this::toPipe)).isZero();
      assertThat(node.writeUnit()).isGreaterThan(MIB);
    }
  }
}
