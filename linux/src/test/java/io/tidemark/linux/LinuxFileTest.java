// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.util.Arrays;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LinuxFileTest {
  private static final int MIB = 1 << 20;

  @TempDir Path dir;

  private Path file(int length) throws IOException {
    byte[] bytes = new byte[length];
    Arrays.fill(bytes, (byte) 7);
    return Files.write(dir.resolve("file"), bytes);
  }

  @Test
  void namesTheCallTheFileAndTheErrorThatItMet() {
    Path missing = dir.resolve("missing");
    assertThatThrownBy(() -> LinuxFile.open(missing, LinuxFile.Access.READ))
        .isInstanceOfSatisfying(
            LinuxException.class, e -> assertThat(e.errno()).isEqualTo(Errno.ENOENT))
        .hasMessage(missing + ": open: ENOENT: no such file");
  }

  @Test
  void createsOnlyWhatIsNotThere() throws IOException {
    Path path = dir.resolve("new");
    LinuxFile.open(path, LinuxFile.Access.CREATE_NEW).close();
    assertThat(Files.getPosixFilePermissions(path)).hasSize(2);
    assertThatThrownBy(() -> LinuxFile.open(path, LinuxFile.Access.CREATE_NEW))
        .isInstanceOfSatisfying(
            LinuxException.class, e -> assertThat(e.errno()).isEqualTo(Errno.EEXIST));
  }

  @Test
  void startsWriteBackOfAnOpenFileOnly() throws IOException {
    Path path = file(MIB);
    LinuxFile file = LinuxFile.open(path, LinuxFile.Access.READ_WRITE);
    file.startWriteBack();
    file.close();
    assertThatThrownBy(file::startWriteBack)
        .isInstanceOfSatisfying(
            LinuxException.class, e -> assertThat(e.errno()).isEqualTo(Errno.EBADF));
    assertThat(Files.readAllBytes(path)).hasSize(MIB).containsOnly(7);
  }

  @Test
  void punchesHolesAndFindsThem() throws IOException {
    Path path = file(MIB);
    try (var file = LinuxFile.open(path, LinuxFile.Access.READ_WRITE)) {
      file.syncData();
      long before = file.status().allocatedBytes();
      file.punchHole(256 * 1024, 512 * 1024);
      assertThat(file.status().allocatedBytes()).isEqualTo(before - 512 * 1024);
      assertThat(file.seekHole(0)).hasValue(256 * 1024);
      assertThat(file.seekData(256 * 1024)).hasValue(768 * 1024);
      assertThat(file.seekHole(768 * 1024)).hasValue(MIB);
      assertThat(file.seekData(MIB)).isEmpty();
      assertThat(file.status().size()).isEqualTo(MIB);
    }
    byte[] bytes = Files.readAllBytes(path);
    assertThat(Arrays.copyOfRange(bytes, 256 * 1024, 768 * 1024)).containsOnly(0);
    assertThat(Arrays.copyOfRange(bytes, 0, 256 * 1024)).containsOnly(7);
  }

  @Test
  void zeroesARangeAndKeepsItsSpaceWhereTheFileSystemCan() throws IOException {
    Path path = file(MIB);
    try (var file = LinuxFile.open(path, LinuxFile.Access.READ_WRITE)) {
      file.syncData();
      long before = file.status().allocatedBytes();
      try {
        file.zeroRange(0, MIB);
      } catch (LinuxException e) {
        assertThat(e.unsupported()).as("tmpfs cannot").isTrue();
        return;
      }
      assertThat(file.status().allocatedBytes()).isGreaterThanOrEqualTo(before);
    }
    assertThat(Files.readAllBytes(path)).hasSize(MIB).containsOnly(0);
  }

  @Test
  void growsByAHoleAndCuts() throws IOException {
    Path path = file(1000);
    try (var file = LinuxFile.open(path, LinuxFile.Access.READ_WRITE)) {
      file.truncate(1L << 40);
      assertThat(file.status().size()).isEqualTo(1L << 40);
      assertThat(file.status().allocatedBytes()).isLessThan(MIB);
      file.truncate(10);
      assertThat(Files.size(path)).isEqualTo(10);
      assertThatThrownBy(() -> file.truncate(-1)).hasMessageContaining("EINVAL");
    }
  }

  @Test
  void saysWhichFileItIsAsTheJdkDoes() throws IOException {
    Path path = file(1000);
    try (var file = LinuxFile.open(path, LinuxFile.Access.READ)) {
      Map<String, Object> jdk = Files.readAttributes(path, "unix:dev,ino,mode,size");
      FileStatus status = file.status();
      assertThat(jdk)
          .containsEntry("dev", status.device())
          .containsEntry("ino", status.inode())
          .containsEntry("mode", status.mode())
          .containsEntry("size", status.size());
    }
  }

  @Test
  void reopensTheSameFileAfterItsNameIsGone() throws IOException {
    Path path = file(1000);
    try (var file = LinuxFile.open(path, LinuxFile.Access.READ_WRITE)) {
      Files.delete(path);
      try (FileChannel channel =
          FileChannel.open(file.reopenPath(), StandardOpenOption.READ, StandardOpenOption.WRITE)) {
        assertThat(channel.size()).isEqualTo(1000);
      }
    }
  }

  @Test
  void locksAreSeenByOtherDescriptorsOfTheSameProcessAndEndWithTheirOwn() throws IOException {
    Path path = file(1000);
    try (var mine = LinuxFile.open(path, LinuxFile.Access.READ)) {
      var other = LinuxFile.open(path, LinuxFile.Access.READ);
      assertThat(mine.lockShared(100, 1)).isTrue();
      assertThat(mine.lockedElsewhere(100, 1)).as("by myself").isFalse();
      assertThat(other.lockedElsewhere(100, 1)).isTrue();
      assertThat(other.lockedElsewhere(101, 1)).isFalse();
      LinuxFile.open(path, LinuxFile.Access.READ).close();
      assertThat(other.lockedElsewhere(100, 1)).as("a third was closed").isTrue();
      assertThat(other.lockShared(100, 1)).isTrue();
      mine.unlock(100, 1);
      assertThat(other.lockedElsewhere(100, 1)).isFalse();
      assertThat(mine.lockedElsewhere(100, 1)).isTrue();
      other.close();
      assertThat(mine.lockedElsewhere(100, 1)).isFalse();
    }
  }

  @Test
  void aClosedFileRefusesCallsAndClosesAgain() throws IOException {
    var file = LinuxFile.open(file(10), LinuxFile.Access.READ);
    file.close();
    file.close();
    assertThatThrownBy(file::status).hasMessageContaining("EBADF");
  }

  @Test
  void renamesWithoutReplacing() throws IOException {
    Path from = file(10);
    Path to = dir.resolve("to");
    Folders.renameNoReplace(from, to);
    assertThat(from).doesNotExist();
    Files.createFile(from);
    assertThatThrownBy(() -> Folders.renameNoReplace(from, to)).hasMessageContaining("EEXIST");
    assertThat(Files.size(to)).isEqualTo(10);
    Folders.sync(dir);
  }

  @Test
  void knowsTheBoot() throws IOException {
    assertThat(BootId.current()).isEqualTo(BootId.current());
  }

  @Test
  void knowsTheLibrarysWordsForAFullDisk() {
    assertThat(Errno.outOfSpaceMessages()).hasSize(3).doesNotContain("");
  }

  @Test
  void tellsWhenAFileWasMadeWhateverItsTimesSay() throws IOException {
    Path path = file(1);
    FileStatus made = FileStatus.of(path);
    assumeTrue(made.birthNanos().isPresent(), "the file system does not keep it");
    Files.setLastModifiedTime(path, FileTime.fromMillis(1000));
    assertThat(FileStatus.of(path).birthNanos()).isEqualTo(made.birthNanos());
    var sinceEpoch = Duration.ofNanos(made.birthNanos().getAsLong());
    assertThat(sinceEpoch)
        .isCloseTo(Duration.ofMillis(System.currentTimeMillis()), Duration.ofHours(1));
    Path link = Files.createSymbolicLink(dir.resolve("link"), path);
    assertThat(FileStatus.of(link).inode()).isNotEqualTo(made.inode());
    assertThatThrownBy(() -> FileStatus.of(dir.resolve("none")))
        .isInstanceOf(LinuxException.class)
        .hasMessageContaining("ENOENT");
  }

  @Test
  void knowsAFileByItsHandleUntilItIsGone() throws IOException {
    Path path = file(1);
    try (LinuxFile folder = LinuxFile.open(dir, LinuxFile.Access.READ)) {
      FileHandle handle;
      try (LinuxFile file = LinuxFile.open(path, LinuxFile.Access.READ)) {
        assumeTrue(file.handle().isPresent(), "the file system has no handles");
        handle = file.handle().get();
      }
      assumeTrue(
          folder.fateOf(handle) != FileHandle.Fate.UNKNOWN, "this process may not ask by handle");
      assertThat(folder.fateOf(handle)).isEqualTo(FileHandle.Fate.EXISTS);
      Path renamed = Files.move(path, dir.resolve("renamed"));
      assertThat(folder.fateOf(handle)).isEqualTo(FileHandle.Fate.EXISTS);
      Files.delete(renamed);
      assertThat(folder.fateOf(handle)).isEqualTo(FileHandle.Fate.GONE);
    }
  }
}
