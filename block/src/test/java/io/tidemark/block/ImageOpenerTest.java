// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Chains of [LinkFormat], whose file names its backing file.
class ImageOpenerTest {
  @TempDir Path dir;

  private final ImageOpener opener = new ImageOpener(ImageOpener.Probing.REFUSED);
  private final ImageOpener probing = new ImageOpener(ImageOpener.Probing.ALLOWED);

  private Path link(String name, String backing, String format) throws IOException {
    return Files.writeString(dir.resolve(name), "LINK\n" + backing + "\n" + format + "\n");
  }

  @Test
  void opensAWholeChainReadOnlyBeneathTheTop() throws IOException {
    Files.createDirectories(dir.resolve("sub"));
    Files.write(dir.resolve("base.img"), RawFormatTest.filled(512, 7));
    link("sub/mid", "../base.img", "raw");
    Path top = link("top", "sub/mid", "link");
    try (FormatNode node = opener.open(top, "link", OpenOptions.readWrite())) {
      assertThat(node.readOnly()).isFalse();
      BlockNode mid = node.backing().orElseThrow();
      BlockNode base = mid.backing().orElseThrow();
      assertThat(mid.readOnly()).isTrue();
      assertThat(base.readOnly()).isTrue();
      assertThat(base.name()).isEqualTo(dir.resolve("sub/../base.img").toString());
      ByteBuffer one = ByteBuffer.allocate(1);
      node.read(0, one);
      assertThat(one.get(0)).isEqualTo((byte) 7);
    }
    try (FormatNode layer = opener.openLayer(top, "link", OpenOptions.readWrite())) {
      assertThat(layer.backing()).isEmpty();
    }
  }

  @Test
  void refusesALoopThroughASymbolicLinkAndReleasesEverything() throws IOException {
    Path a = link("a", "b", "link");
    link("b", "alias", "link");
    Files.createSymbolicLink(dir.resolve("alias"), a);
    assertThatThrownBy(() -> opener.open(a, "link", OpenOptions.readWrite()))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("is a loop");
    FileNode.open(a, OpenOptions.readWrite()).close();
    FileNode.open(dir.resolve("b"), OpenOptions.readWrite()).close();
  }

  @Test
  void refusesAnImageThatIsItsOwnBackingFile() throws IOException {
    Path a = link("a", "a", "link");
    assertThatThrownBy(() -> opener.open(a, "link", OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("is a loop");
  }

  @Test
  void opensTheDeepestChainAllowedAndRefusesOneMore() throws IOException {
    Files.write(dir.resolve("0"), new byte[512]);
    for (int i = 1; i <= ImageOpener.MAX_DEPTH; i++) {
      link("" + i, "" + (i - 1), i == 1 ? "raw" : "link");
    }
    Path deepest = dir.resolve("" + (ImageOpener.MAX_DEPTH - 1));
    opener.open(deepest, "link", OpenOptions.reading()).close();
    Path tooDeep = dir.resolve("" + ImageOpener.MAX_DEPTH);
    assertThatThrownBy(() -> opener.open(tooDeep, "link", OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("more than 200 images");
  }

  @Test
  void refusesABackingFileWhoseFormatIsNotRecordedUnlessProbing() throws IOException {
    link("base", "-", "");
    Path top = link("top", "base", "");
    assertThatThrownBy(() -> opener.open(top, "link", OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("is not recorded");
    try (FormatNode node = probing.open(top, "link", OpenOptions.reading())) {
      assertThat(((FormatNode) node.backing().orElseThrow()).format()).isEqualTo("link");
    }
  }

  @Test
  void namesTheOverlayWhenABackingFileIsMissing() throws IOException {
    Path top = link("top", "gone", "raw");
    assertThatThrownBy(() -> opener.open(top, "link", OpenOptions.reading()))
        .isInstanceOf(TransportException.class)
        .hasMessage(top + ": backing file " + dir.resolve("gone") + ": no such file");
  }

  @Test
  void refusesFormatsItDoesNotKnow() throws IOException {
    Path top = link("top", "base", "vhdx");
    link("base", "-", "");
    assertThatThrownBy(() -> opener.open(top, "link", OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("Unknown driver 'vhdx'");
    assertThatThrownBy(() -> opener.open(top, "qed", OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class);
  }

  @Test
  void resolvesNamesAsQemuDoes() {
    Path image = Path.of("/images/vm/top.qcow2");
    assertThat(resolve(image, "base.img")).contains(Path.of("/images/vm/base.img"));
    assertThat(resolve(image, "../base.img")).contains(Path.of("/images/vm/../base.img"));
    assertThat(resolve(image, "/other/base.img")).contains(Path.of("/other/base.img"));
    assertThat(resolve(image, "file:/other/base.img")).contains(Path.of("/other/base.img"));
    assertThat(resolve(image, "./odd:name")).contains(Path.of("/images/vm/./odd:name"));
    assertThat(resolve(image, "nbd://host/x")).isEmpty();
    assertThat(resolve(image, "json:{\"driver\":\"raw\"}")).isEmpty();
    assertThat(resolve(image, "")).isEmpty();
    assertThat(resolve(image, "a\0b")).isEmpty();
  }

  private static Optional<Path> resolve(Path image, String name) {
    return ImageOpener.resolve(image, new BackingReference(name, Optional.empty()));
  }

  @Test
  void followsDotsThroughASymbolicLinkAsTheKernelDoes() throws IOException {
    Path real = Files.createDirectories(dir.resolve("far/real"));
    Files.createSymbolicLink(dir.resolve("near"), real);
    Files.write(dir.resolve("far/base"), RawFormatTest.filled(512, 7));
    link("far/real/top", "../base", "raw");
    opener.open(dir.resolve("near/top"), "link", OpenOptions.reading()).close();
  }

  @Test
  void refusesABackingFileOfAnUnknownProtocol() throws IOException {
    Path top = link("top", "gopher://host/x", "raw");
    assertThatThrownBy(() -> opener.open(top, "link", OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("Unknown protocol 'gopher'");
  }

  @Test
  void aGuessedFormatLeadsToNoFurtherFile() throws IOException {
    Files.write(dir.resolve("secret"), new byte[512]);
    link("base", "secret", "raw");
    Path top = link("top", "base", "");
    assertThatThrownBy(() -> probing.open(top, "link", OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("is not recorded; it looks like link that names further files");
    FileNode.open(dir.resolve("base"), OpenOptions.readWrite()).close();
  }

  @Test
  void aBackingFileMayBeNamedByOptions() throws IOException {
    Files.write(dir.resolve("base"), RawFormatTest.filled(1024, 7));
    Path top =
        link(
            "top",
            "json:{\"driver\":\"raw\",\"offset\":512,\"file\":{\"driver\":\"file\",\"filename\":\""
                + dir.resolve("base")
                + "\"}}",
            "");
    try (FormatNode node = opener.open(top, "link", OpenOptions.reading())) {
      assertThat(node.backing().orElseThrow().virtualSize()).isEqualTo(512);
    }
  }

  @Test
  void probesByTheFirstBytes() throws IOException {
    assertThat(probing.probe(link("a", "-", ""))).isEqualTo("link");
    assertThat(probing.probe(Files.write(dir.resolve("b"), new byte[3]))).isEqualTo("raw");
    assertThatThrownBy(() -> probing.probe(dir)).isInstanceOf(UnsupportedImageException.class);
  }

  @Test
  void aFailedCreateRemovesItsFile() {
    Path path = dir.resolve("new");
    assertThatThrownBy(() ->
            opener.create(
                path, "link", new CreateOptions(1, Optional.empty(), Map.of("fail", "on"))))
        .isInstanceOf(OutOfSpaceException.class);
    assertThat(path).doesNotExist();
  }

  @Test
  void createsOverWhatIsThere() throws IOException {
    Path path = Files.write(dir.resolve("old"), RawFormatTest.filled(5000, 7));
    opener.createOver(path, "raw", CreateOptions.ofSize(1024));
    assertThat(Files.readAllBytes(path)).hasSize(1024).containsOnly(0);
    try (FileNode _ = FileNode.open(path, OpenOptions.reading())) {
      assertThatThrownBy(() -> opener.createOver(path, "raw", CreateOptions.ofSize(512)))
          .isInstanceOf(ImageBusyException.class);
    }
    assertThat(Files.size(path)).isEqualTo(1024);
  }
}
