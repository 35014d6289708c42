// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.Pipe;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FileMappingTest {
  private static final int SIZE = 3 * 4096 + 100;
  private static final int MIB = 1 << 20;

  @TempDir Path dir;

  private LinuxFile file() throws IOException {
    byte[] bytes = new byte[SIZE];
    Arrays.fill(bytes, (byte) 7);
    Path path = Files.write(dir.resolve("file"), bytes);
    return LinuxFile.open(path, LinuxFile.Access.READ_WRITE);
  }

  private static byte[] through(Pipe pipe, ByteBuffer bytes) throws IOException {
    int count = pipe.sink().write(bytes);
    ByteBuffer got = ByteBuffer.allocate(count);
    while (got.hasRemaining() && pipe.source().read(got) > 0) {}
    return got.array();
  }

  @Test
  void handsTheFilesBytesAsTheyAreNowToSystemCalls() throws IOException {
    try (LinuxFile file = file();
        FileMapping mapping = file.map(0, MIB)) {
      Pipe pipe = Pipe.open();
      assertThat(mapping.resident(0, SIZE)).isTrue();
      assertThat(mapping.resident(5000, 10)).isTrue();
      assertThat(through(pipe, mapping.bytes(100, 5000))).hasSize(5000).containsOnly(7);
      file.write(ByteBuffer.allocateDirect(1), 4099);
      assertThat(through(pipe, mapping.bytes(4098, 3))).containsExactly(7, 0, 7);
      pipe.sink().close();
      pipe.source().close();
    }
  }

  @Test
  void failsTheCallAndNothingElseWhereTheFileHasEnded() throws IOException {
    try (LinuxFile file = file();
        FileMapping mapping = file.map(0, MIB)) {
      Pipe pipe = Pipe.open();
      assertThat(mapping.resident(4 * 4096, 4096)).isFalse();
      assertThatThrownBy(() -> pipe.sink().write(mapping.bytes(4 * 4096, 4096)))
          .isInstanceOf(IOException.class);
      file.truncate(0);
      assertThat(mapping.resident(0, 4096)).isFalse();
      assertThatThrownBy(() -> pipe.sink().write(mapping.bytes(0, 4096)))
          .isInstanceOf(IOException.class);
      pipe.sink().close();
      pipe.source().close();
    }
  }

  @Test
  void cannotBeMadeOfAClosedFile() throws IOException {
    LinuxFile file = file();
    file.close();
    assertThatThrownBy(() -> file.map(0, MIB))
        .isInstanceOfSatisfying(
            LinuxException.class, e -> assertThat(e.errno()).isEqualTo(Errno.EBADF));
  }
}
