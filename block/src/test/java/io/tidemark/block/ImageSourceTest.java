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
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class ImageSourceTest {
  @TempDir Path dir;

  private final ImageOpener opener = new ImageOpener(ImageOpener.Probing.ALLOWED);

  private FormatNode open(ImageSource source) throws BlockException {
    return opener.open(source, Optional.empty(), OpenOptions.readWrite());
  }

  private Path file(String name, int size) throws IOException {
    return Files.write(dir.resolve(name), RawFormatTest.filled(size, 7));
  }

  @Test
  void flattensJsonAsQemuDoes() throws BlockException {
    assertThat(
            ImageSource.parse(
                    """
                    json:{"driver": "qcow2", "lazy-refcounts": true, "l2-cache-size": 1024,
                     "file": {"driver": "nbd", "server": {"type": "unix", "path": "\\u002fa\\n"}},
                     "backing": null, "x": [1, {"y": "z"}], "e": {}}\
                    """)
                .options())
        .isEqualTo(
            Map.of(
                "driver", "qcow2",
                "lazy-refcounts", "on",
                "l2-cache-size", "1024",
                "file.driver", "nbd",
                "file.server.type", "unix",
                "file.server.path", "/a\n",
                "backing", "",
                "x.0", "1",
                "x.1.y", "z"));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "json:",
        "json:[]",
        "json:{",
        "json:{}}",
        "json:{\"a\"}",
        "json:{\"a\":}",
        "json:{\"a\":1,}",
        "json:{\"a\":nul}",
        "json:{\"a\":null}",
        "json:{\"a\":\"x}",
        "json:{\"a\":\"\\x\"}",
        "json:{\"a\":\"\\u12\"}",
        "json:{\"a\":01}",
        "json:{\"a\":1,\"a\":2}",
        "json:{a:1}",
        ""
      })
  void refusesMalformedNames(String name) {
    assertThatThrownBy(() -> ImageSource.parse(name)).isInstanceOf(UnsupportedImageException.class);
  }

  @Test
  void boundsLengthAndNesting() {
    assertThatThrownBy(
            () -> ImageSource.parse("json:" + "{\"a\":".repeat(65) + "1" + "}".repeat(65)))
        .hasMessageContaining("nested deeper than 64");
    assertThatThrownBy(() -> ImageSource.parse("x".repeat(ImageSource.MAX_TEXT + 1)))
        .hasMessageContaining("65537 characters");
  }

  @Test
  void anyBytesAreANameOrRefused() {
    var random = new Random(1);
    String alphabet = "{}[]\":,\\u0truefalsn1e-. \n";
    for (int i = 0; i < 20_000; i++) {
      var text = new StringBuilder("json:{\"a\":");
      for (int n = random.nextInt(20); n >= 0; n--) {
        text.append(alphabet.charAt(random.nextInt(alphabet.length())));
      }
      try {
        ImageSource.parse(text.toString());
      } catch (UnsupportedImageException refused) {
        assertThat(refused).hasMessageContaining("JSON");
      }
    }
  }

  @Test
  void readsImageOptions() throws BlockException {
    assertThat(ImageSource.ofOptions("driver=raw,file.filename=a,,b=c,offset=1,offset=2").options())
        .isEqualTo(Map.of("driver", "raw", "file.filename", "a,b=c", "offset", "2"));
    assertThatThrownBy(() -> ImageSource.ofOptions("a.qcow2"))
        .hasMessageContaining("Cannot find device='a.qcow2' nor node-name='a.qcow2'");
  }

  @Test
  void knowsTheLocalFile() throws BlockException {
    assertThat(ImageSource.parse("a/b").localFile()).contains(Path.of("a/b"));
    assertThat(ImageSource.parse("file:a:b").localFile()).contains(Path.of("a:b"));
    assertThat(ImageSource.parse("nbd://h/x").localFile()).isEmpty();
    assertThat(ImageSource.ofOptions("driver=raw,offset=512,file.filename=/x").localFile())
        .contains(Path.of("/x"));
    assertThat(ImageSource.ofOptions("driver=file,filename=/x").localFile())
        .contains(Path.of("/x"));
    assertThat(ImageSource.of(Path.of("odd:name")).localFile()).contains(Path.of("odd:name"));
  }

  @Test
  void opensAPartOfARawFile() throws IOException {
    Path file = file("a", 4096);
    String name =
        "json:{\"driver\":\"raw\",\"offset\":1024,\"size\":\"1k\",\"file\":{\"driver\":\"file\",\"filename\":\""
            + file
            + "\"}}";
    try (FormatNode node = open(ImageSource.parse(name))) {
      assertThat(node.virtualSize()).isEqualTo(1024);
      node.write(1023, ByteBuffer.wrap(new byte[] {1}));
      assertThatThrownBy(() -> node.write(1023, ByteBuffer.allocate(2)))
          .isInstanceOf(IllegalArgumentException.class);
      assertThatThrownBy(() -> node.resize(2048)).isInstanceOf(UnsupportedImageException.class);
    }
    byte[] bytes = Files.readAllBytes(file);
    assertThat(bytes).hasSize(4096);
    assertThat(bytes[2047]).isEqualTo((byte) 1);
    assertThat(bytes[2046]).isEqualTo((byte) 7);
    assertThat(bytes[2048]).isEqualTo((byte) 7);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "driver=qcow|Unknown driver 'qcow'",
        "driver=ssh,file.filename=a|Unknown driver 'ssh'",
        "filename=a|Must specify either driver or file",
        "driver=raw|A block device must be specified for \"file\"",
        "driver=raw,file.filename=F,backing=|Block format 'raw' does not support the option 'backing'",
        "driver=raw,file.filename=F,backing.driver=raw,backing.file.filename=F|Block format 'raw' does not support the option 'backing'",
        "driver=raw,file.filename=F,backing=node0|Cannot find device='node0' nor node-name='node0'",
        "driver=raw,file=node0|Cannot find device='node0' nor node-name='node0'",
        "driver=raw,file.filename=F,bogus=1|Block format 'raw' does not support the option 'bogus'",
        "driver=raw,file.driver=file,file.filename=F,file.bogus=1|Block protocol 'file' doesn't support the option 'bogus'",
        "driver=raw,file.filename=F,read-only=maybe|Parameter 'read-only' expects 'on' or 'off'",
        "driver=raw,file.filename=F,offset=x|Parameter 'offset' expects a size",
        "driver=raw,file.filename=F,size=9999999999E|Parameter 'size' expects a size",
        "driver=raw,file.filename=F,size=100|size 100 is not a multiple of 512",
        "driver=raw,file.filename=F,offset=1M|is past the end of the file",
        "driver=raw,file.filename=F,offset=512,size=4096|pass the end of the file",
        "driver=host_device,filename=F|driver requires a block device",
        "driver=raw,file.filename=F,force-share=on|force-share=on can only be used with read-only",
        "driver=raw,file.filename=ssh:x|Unknown protocol 'ssh'"
      })
  void refusesOptionsInWords(String options, String words) throws IOException {
    Path file = file("f", 4096);
    ImageSource source = ImageSource.ofOptions(options.replace("=F", "=" + file));
    assertThatThrownBy(() -> open(source))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining(words);
    FileNode.open(file, OpenOptions.readWrite()).close();
  }

  @Test
  void obeysWhatTheOptionsSayOfOpening() throws IOException {
    Path file = file("f", 4096);
    try (FormatNode node =
            open(
                ImageSource.ofOptions(
                    "driver=raw,node-name=n,read-only=on,file.filename=" + file));
        FormatNode beside =
            open(
                ImageSource.ofOptions(
                    "driver=raw,read-only=on,force-share=on,file.locking=off,file.filename="
                        + file))) {
      assertThat(node.readOnly()).isTrue();
      assertThat(beside.readOnly()).isTrue();
    }
    try (FormatNode node = open(ImageSource.ofOptions("driver=file,filename=" + file))) {
      assertThat(node.format()).isEqualTo("file");
      assertThat(node.virtualSize()).isEqualTo(4096);
    }
  }

  @Test
  void nullIsZeroesOfAnySize() throws BlockException {
    try (FormatNode node = open(ImageSource.ofOptions("driver=null-co,size=2T"))) {
      ByteBuffer read = ByteBuffer.wrap(RawFormatTest.filled(10, 9));
      node.write((2L << 40) - 10, ByteBuffer.wrap(RawFormatTest.filled(10, 5)));
      node.read((2L << 40) - 10, read);
      assertThat(read.array()).containsOnly(0);
    }
    try (FormatNode node = open(ImageSource.parse("null-co://"))) {
      assertThat(node.virtualSize()).isEqualTo(1L << 30);
    }
  }

  @Test
  void theOptionsChooseWhatLiesBeneath() throws IOException {
    Path base = file("base", 512);
    Path other = file("other", 1024);
    Path top = Files.writeString(dir.resolve("top"), "LINK\n" + base + "\nraw\n");
    try (FormatNode node =
        open(
            ImageSource.ofOptions(
                "driver=link,file.filename="
                    + top
                    + ",backing.driver=raw,backing.file.filename="
                    + other))) {
      assertThat(node.backing().orElseThrow().virtualSize()).isEqualTo(1024);
    }
    try (FormatNode node =
        open(
            ImageSource.parse(
                "json:{\"driver\":\"link\",\"backing\":null,\"file.filename\":\"" + top + "\"}"))) {
      assertThat(node.backing()).isEmpty();
    }
  }

  @Test
  void aFormatMayHoldTheBytesOfAnotherAndBringsItsChain() throws IOException {
    Path base = file("base", 1024);
    Path top = Files.writeString(dir.resolve("top"), "LINK\n" + base + "\nraw\n");
    try (FormatNode node =
        open(
            ImageSource.ofOptions(
                "driver=raw,size=512,file.driver=link,file.file.filename=" + top))) {
      ByteBuffer read = ByteBuffer.allocate(1);
      node.read(0, read);
      assertThat(read.get(0)).isEqualTo((byte) 7);
    }
  }

  @Test
  void aGuestCannotMakeAGuessedRawImageLookLikeAnotherFormat() throws IOException {
    Path file = file("f", 4096);
    byte[] header = "LINK\n/etc/passwd\nraw\n".getBytes(java.nio.charset.StandardCharsets.US_ASCII);
    try (FormatNode node = open(ImageSource.of(file))) {
      assertThatThrownBy(() -> node.write(0, ByteBuffer.wrap(header)))
          .isInstanceOf(ReadOnlyNodeException.class)
          .hasMessageContaining("would make the image look like link");
      node.write(2, ByteBuffer.wrap(header, 2, header.length - 2));
      assertThatThrownBy(() -> node.write(0, ByteBuffer.wrap(header, 0, 2)))
          .isInstanceOf(ReadOnlyNodeException.class);
      node.write(512, ByteBuffer.wrap(header));
    }
    assertThat(opener.probe(file)).isEqualTo("raw");
    try (FormatNode told = opener.open(file, "raw", OpenOptions.readWrite())) {
      told.write(0, ByteBuffer.wrap(header));
    }
  }
}
