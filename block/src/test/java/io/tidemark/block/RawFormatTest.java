// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class RawFormatTest {
  @TempDir Path dir;

  private final ImageOpener opener = new ImageOpener(ImageOpener.Probing.REFUSED);

  private FormatNode open(Path path) throws BlockException {
    return opener.open(path, "raw", OpenOptions.readWrite());
  }

  @Test
  void createsAFileOfWholeSectorsThatReadsAsZeroes() throws IOException {
    Path path = dir.resolve("a.img");
    opener.create(path, "raw", CreateOptions.ofSize(1000));
    assertThat(Files.size(path)).isEqualTo(1024);
    assertThat(Files.readAllBytes(path)).containsOnly(0);
  }

  @Test
  void givesAFileThatEndsAmidASectorAsWholeSectors() throws IOException {
    Path path = Files.write(dir.resolve("a.img"), filled(1000, 7));
    try (FormatNode node = open(path)) {
      assertThat(node.virtualSize()).isEqualTo(1024);
      ByteBuffer tail = ByteBuffer.allocateDirect(100);
      node.read(924, tail);
      byte[] bytes = new byte[100];
      tail.flip().get(bytes);
      assertThat(Arrays.copyOf(bytes, 76)).containsOnly(7);
      assertThat(Arrays.copyOfRange(bytes, 76, 100)).containsOnly(0);
    }
    assertThat(Files.size(path)).isEqualTo(1000);
  }

  @Test
  void growsTheFileForAWriteIntoThePartialSector() throws IOException {
    Path path = Files.write(dir.resolve("a.img"), filled(1000, 7));
    try (FormatNode node = open(path)) {
      node.write(1010, ByteBuffer.wrap(filled(4, 9)));
    }
    byte[] bytes = Files.readAllBytes(path);
    assertThat(bytes).hasSize(1024);
    assertThat(Arrays.copyOfRange(bytes, 1000, 1010)).containsOnly(0);
    assertThat(Arrays.copyOfRange(bytes, 1010, 1014)).containsOnly(9);
  }

  @Test
  void extentsCoverTheRangeWithoutGapsToThePartialSectorsEnd() throws IOException {
    Path path = Files.write(dir.resolve("a.img"), filled(1000, 7));
    try (FormatNode node = open(path)) {
      var seen = new java.util.ArrayList<Extent>();
      node.extents(0, 1024, seen::add);
      long at = 0;
      for (Extent extent : seen) {
        assertThat(extent.offset()).isEqualTo(at);
        assertThat(extent.hostOffset()).isEqualTo(at);
        at = extent.end();
      }
      assertThat(at).isEqualTo(1024);
      assertThat(seen.getFirst().state()).isEqualTo(Extent.State.DATA);
    }
  }

  @Test
  void refusesUnknownOptionsAndBackingFilesAndLeavesNoFile() {
    Path path = dir.resolve("a.img");
    assertThatThrownBy(() ->
            opener.create(
                path, "raw", new CreateOptions(512, Optional.empty(), Map.of("cluster_size", "1"))))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("cluster_size");
    assertThatThrownBy(() ->
            opener.create(
                path,
                "raw",
                new CreateOptions(
                    512, Optional.of(new BackingReference("b", Optional.of("raw"))), Map.of())))
        .isInstanceOf(UnsupportedImageException.class);
    assertThat(path).doesNotExist();
  }

  @Test
  void refusesToCreateOverAFileAndKeepsIt() throws IOException {
    Path path = Files.write(dir.resolve("a.img"), filled(512, 7));
    assertThatThrownBy(() -> opener.create(path, "raw", CreateOptions.ofSize(4096)))
        .isInstanceOf(TransportException.class)
        .hasMessageContaining("file exists already");
    assertThat(Files.readAllBytes(path)).hasSize(512).containsOnly(7);
  }

  @Test
  void aReadOnlyNodeRefusesEveryChange() throws IOException {
    Path path = Files.write(dir.resolve("a.img"), filled(512, 7));
    try (FormatNode node = opener.open(path, "raw", OpenOptions.reading())) {
      assertThatThrownBy(() -> node.write(0, ByteBuffer.allocate(1)))
          .isInstanceOf(ReadOnlyNodeException.class);
      assertThatThrownBy(() -> node.writeZeroes(0, 1, ZeroMode.MAY_UNMAP))
          .isInstanceOf(ReadOnlyNodeException.class);
      assertThatThrownBy(() -> node.discard(0, 1)).isInstanceOf(ReadOnlyNodeException.class);
      assertThatThrownBy(() -> node.resize(0)).isInstanceOf(ReadOnlyNodeException.class);
      node.flush();
    }
    assertThat(Files.readAllBytes(path)).containsOnly(7);
  }

  static byte[] filled(int length, int value) {
    byte[] bytes = new byte[length];
    Arrays.fill(bytes, (byte) value);
    return bytes;
  }
}
