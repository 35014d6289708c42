// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;
import java.util.zip.CRC32C;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Logs whose image is gone, or has given its inode number to another one.
class StaleLogsTest {
  private static final int MIB = 1 << 20;

  @TempDir Path dir;
  private Path runDir;

  @BeforeEach
  void makeRunDir() throws IOException {
    runDir = Files.createDirectory(dir.resolve("log"));
  }

  private Path create(String name) throws BlockException {
    Path path = dir.resolve(name);
    try (FileNode file = FileNode.create(path)) {
      Qcow2Image.create(file, new CreateOptions(MIB, Optional.empty(), Map.of()));
    }
    return path;
  }

  private Qcow2Image open(Path path) throws BlockException {
    OpenOptions options = OpenOptions.readWrite().withRunDir(runDir);
    FileNode file = FileNode.open(path, options);
    try {
      return Qcow2Image.open(file, options);
    } catch (BlockException e) {
      file.close();
      throw e;
    }
  }

  /// Writes the disk's first byte, and dies before a flush.
  private void writeAndDie(Path path, int first) throws BlockException {
    Qcow2Image image = open(path);
    image.write(0, ByteBuffer.wrap(new byte[] {(byte) first}));
    image.now().leaveLog();
    image.file().close();
  }

  private int first(Path path) throws BlockException {
    try (Qcow2Image image = open(path)) {
      var bytes = ByteBuffer.allocate(1);
      image.read(0, bytes);
      return bytes.get(0);
    }
  }

  private List<Path> logs() throws IOException {
    try (Stream<Path> files = Files.list(runDir)) {
      return files.filter(file -> file.toString().endsWith(".log")).toList();
    }
  }

  private Path logOf(Path image) {
    return ChangeLog.Identity.of(image).orElseThrow().logIn(runDir);
  }

  /// Makes the log of `gone` one of the file that has its inode number now: what the file system
  /// does by itself, when it likes.
  private void giveInode(Path log, Path to) throws IOException {
    byte[] bytes = Files.readAllBytes(log);
    var raw = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
    raw.putLong(40, (long) Files.getAttribute(to, "unix:ino"));
    var crc = new CRC32C();
    crc.update(bytes, 16, 48);
    raw.putInt(8, (int) crc.getValue());
    Files.write(logOf(to), bytes);
    Files.delete(log);
  }

  @Test
  void theLogOfAGoneImageIsNeverBroughtIntoALaterOneWithItsInode() throws Exception {
    Path gone = create("gone.qcow2");
    writeAndDie(gone, 7);
    assertThat(logs()).hasSize(1);
    Files.delete(gone);
    Path later = create("later.qcow2");
    // Most often it has the very inode number already.
    if (!logs().getFirst().equals(logOf(later))) {
      giveInode(logs().getFirst(), later);
    }

    assertThat(first(later)).isZero();
    assertThat(logs()).isEmpty();
    writeAndDie(later, 9);
    assertThat(first(later)).as("its own").isEqualTo(9);
  }

  /// The same inode, the same birth: nothing but what is in it tells it from the image before.
  @Test
  void theLogOfAnImageThatWasMadeAnewInPlaceIsRefusedNotBroughtIn() throws Exception {
    Path image = create("i.qcow2");
    writeAndDie(image, 7);
    Path other = create("other.qcow2");
    Files.write(image, Files.readAllBytes(other));

    assertThatThrownBy(() -> open(image))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("remove the log");
    Files.delete(logOf(image));
    assertThat(first(image)).isZero();
  }

  @Test
  void removesTheLogOfAnImageThatIsGoneAndOfNoOther() throws Exception {
    assumeTrue("root".equals(System.getProperty("user.name")), "only root may ask by handle");
    Path stays = create("stays.qcow2");
    writeAndDie(stays, 1);
    Path moves = create("moves.qcow2");
    writeAndDie(moves, 2);
    Path goes = create("goes.qcow2");
    writeAndDie(goes, 3);
    Path log = logOf(goes);
    assertThat(logs()).hasSize(3);
    assertThat(StaleLogs.remove(runDir)).isZero();

    Path moved = Files.move(moves, Files.createDirectory(dir.resolve("d")).resolve("m.qcow2"));
    Files.delete(goes);
    assertThat(StaleLogs.remove(runDir)).isEqualTo(1);
    assertThat(log).doesNotExist();
    assertThat(first(stays)).isEqualTo(1);
    assertThat(first(moved)).as("renamed meanwhile").isEqualTo(2);
    assertThat(logs()).isEmpty();
  }

  @Test
  void keepsLogsOfAFolderThatIsNotThere() throws Exception {
    Path folder = Files.createDirectory(dir.resolve("mounted"));
    Path image = create("mounted/i.qcow2");
    writeAndDie(image, 5);
    Path elsewhere = Files.move(folder, dir.resolve("elsewhere"));
    Files.createDirectory(folder); // as where the file system is not mounted
    Path asleep = Files.move(elsewhere.resolve("i.qcow2"), dir.resolve("i.qcow2"));

    assertThat(StaleLogs.remove(runDir)).isZero();
    assertThat(first(asleep)).isEqualTo(5);
  }

  @Test
  void removesLogsOfAnEarlierBootAndWhatNeverBecameOne() throws Exception {
    var earlier = new ChangeLog.Identity("ff112233445566778899aabbccddeeff", 1, 2, 3);
    var geometry = new Geometry(3, 16, 4, false, false);
    ChangeLog.create(earlier.logIn(runDir), earlier, geometry).close();
    Files.write(runDir.resolve("qcow2-1-3.log"), new byte[100]);
    Files.write(runDir.resolve("other.txt"), new byte[100]);
    Path newer = runDir.resolve("qcow2-1-4.log");
    Files.writeString(newer, "TMQ2LOG3" + "x".repeat(5000));

    assertThat(StaleLogs.remove(runDir)).isEqualTo(2);
    assertThat(logs()).containsExactly(newer);
    assertThat(runDir.resolve("other.txt")).exists();
  }

  @Test
  void leavesALogThatIsInUse() throws Exception {
    var earlier = new ChangeLog.Identity("ff112233445566778899aabbccddeeff", 1, 2, 3);
    var geometry = new Geometry(3, 16, 4, false, false);
    try (ChangeLog log = ChangeLog.create(earlier.logIn(runDir), earlier, geometry)) {
      assertThat(StaleLogs.remove(runDir)).isZero();
      assertThat(ChangeLog.inUse(log.path())).isTrue();
    }
    assertThat(StaleLogs.remove(runDir)).isEqualTo(1);
    assertThat(StaleLogs.remove(dir.resolve("none"))).isZero();
  }
}
