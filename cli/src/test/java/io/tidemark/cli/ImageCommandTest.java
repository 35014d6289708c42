// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Raw images only: what needs no other program to judge.
class ImageCommandTest {
  @TempDir Path folder;

  private StringWriter out = new StringWriter();
  private StringWriter err = new StringWriter();
  private Path one = Path.of("");
  private Path other = Path.of("");

  @BeforeEach
  void makeImages() throws IOException {
    byte[] bytes = new byte[3 << 20];
    Arrays.fill(bytes, 1 << 20, 2 << 20, (byte) 7);
    one = Files.write(folder.resolve("one.raw"), bytes);
    bytes[(1 << 20) + 5000] = 8;
    other = Files.write(folder.resolve("other.raw"), bytes);
  }

  private int image(Object... words) {
    out = new StringWriter();
    err = new StringWriter();
    String[] all = new String[words.length + 1];
    all[0] = "image";
    for (int i = 0; i < words.length; i++) {
      all[i + 1] = words[i].toString();
    }
    return Tidemark.run(new PrintWriter(out), new PrintWriter(err), all);
  }

  @Test
  void createSaysWhatItMakes() throws IOException {
    Path made = folder.resolve("made.raw");
    assertThat(image("create", "-f", "raw", made, "1.5k")).isZero();
    assertThat(out.toString()).isEqualTo("Formatting '" + made + "', fmt=raw size=1536\n");
    assertThat(Files.size(made)).isEqualTo(1536);
    assertThat(image("create", "-q", made, "4k")).isZero();
    assertThat(out.toString()).isEmpty();
    assertThat(Files.size(made)).isEqualTo(4096);
  }

  @Test
  void createRefusesNonsenseAndMakesNothing() {
    Path made = folder.resolve("made.raw");
    assertThat(image("create", "-f", "vmdk", made, "1M")).isEqualTo(1);
    assertThat(image("create", made)).isEqualTo(1);
    assertThat(image("create", made, "1x")).isEqualTo(1);
    assertThat(image("create", "-o", "foo=1", made, "1M")).isEqualTo(1);
    assertThat(image("create", "-b", one, "-F", "raw", made, "1M")).isEqualTo(1);
    assertThat(image("create", "-F", "raw", made, "1M")).isEqualTo(1);
    assertThat(image("create", "-o", "preallocation=zork", made, "1M")).isEqualTo(1);
    assertThat(made).doesNotExist();
  }

  @Test
  void infoTellsSizeAndFormat() {
    assertThat(image("info", "-f", "raw", one)).isZero();
    assertThat(out.toString())
        .startsWith(
            "image: "
                + one
                + "\nfile format: raw\nvirtual size: 3 MiB (3145728 bytes)\ndisk size: ");
    assertThat(image("info", "-f", "raw", "--output=json", one)).isZero();
    assertThat(out.toString())
        .contains(
            "    \"virtual-size\": 3145728,\n",
            "    \"filename\": \"" + one + "\",\n",
            "    \"dirty-flag\": false\n");
  }

  @Test
  void missingFileIsOneLineAndCodeOne() {
    Path missing = folder.resolve("missing");
    assertThat(image("info", "-f", "raw", missing)).isEqualTo(1);
    assertThat(err.toString()).isEqualTo("tidemark: " + missing + ": no such file\n");
  }

  @Test
  void compareTellsTheFirstSectorThatDiffers() {
    assertThat(image("compare", "-f", "raw", "-F", "raw", one, one)).isZero();
    assertThat(out.toString()).isEqualTo("Images are identical.\n");
    assertThat(image("compare", "-f", "raw", "-F", "raw", one, other)).isEqualTo(1);
    assertThat(out.toString())
        .isEqualTo("Content mismatch at offset " + ((1 << 20) + 4608) + "!\n");
    assertThat(image("compare", "-q", "-f", "raw", "-F", "raw", one, other)).isEqualTo(1);
    assertThat(out.toString()).isEmpty();
    assertThat(image("compare", "-f", "raw", "-F", "raw", one, folder.resolve("missing")))
        .isEqualTo(2);
    assertThat(image("compare", one)).isEqualTo(1);
  }

  @Test
  void imagesOfDifferentSizesAreTheSameWhenTheRestIsZero() throws IOException {
    Path longer =
        Files.write(folder.resolve("longer.raw"), Arrays.copyOf(Files.readAllBytes(one), 4 << 20));
    assertThat(image("compare", "-f", "raw", "-F", "raw", longer, one)).isZero();
    assertThat(out.toString()).isEqualTo("Warning: Image size mismatch!\nImages are identical.\n");
    assertThat(image("compare", "-s", "-f", "raw", "-F", "raw", longer, one)).isEqualTo(1);
    assertThat(out.toString()).isEqualTo("Strict mode: Image size mismatch!\n");
    byte[] bytes = Arrays.copyOf(Files.readAllBytes(one), 4 << 20);
    bytes[bytes.length - 1] = 1;
    Files.write(longer, bytes);
    assertThat(image("compare", "-f", "raw", "-F", "raw", longer, one)).isEqualTo(1);
    assertThat(out.toString()).endsWith("Content mismatch at offset " + ((4 << 20) - 512) + "!\n");
  }

  @Test
  void convertCopiesOneOrMoreImages() throws IOException {
    Path copy = folder.resolve("copy.raw");
    assertThat(image("convert", "-f", "raw", "-O", "raw", one, copy)).isZero();
    assertThat(copy).hasSameBinaryContentAs(one);
    assertThat(image("convert", "-f", "raw", one, other, copy)).isZero();
    assertThat(Files.size(copy)).isEqualTo(6 << 20);
    assertThat(Arrays.copyOfRange(Files.readAllBytes(copy), 3 << 20, 6 << 20))
        .isEqualTo(Files.readAllBytes(other));
  }

  @Test
  void convertOverAnExistingTargetClearsWhatTheSourceDoesNotHold() throws IOException {
    byte[] full = new byte[4 << 20];
    Arrays.fill(full, (byte) 9);
    Path target = Files.write(folder.resolve("target.raw"), full);
    assertThat(image("convert", "-n", "-f", "raw", one, target)).isZero();
    assertThat(Arrays.copyOf(Files.readAllBytes(target), 3 << 20))
        .isEqualTo(Files.readAllBytes(one));
    assertThat(Arrays.copyOfRange(Files.readAllBytes(target), 3 << 20, 4 << 20)).containsOnly(9);
  }

  @Test
  void convertRefusesASourceAsTargetAndLeavesItAlone() throws IOException {
    byte[] before = Files.readAllBytes(one);
    Path link = Files.createSymbolicLink(folder.resolve("link"), one);
    assertThat(image("convert", "-f", "raw", one, one)).isEqualTo(1);
    assertThat(image("convert", "-f", "raw", one, link)).isEqualTo(1);
    assertThat(Files.readAllBytes(one)).isEqualTo(before);
  }

  @Test
  void convertThatFailsLeavesNoNewTarget() {
    Path target = folder.resolve("target.raw");
    assertThat(image("convert", "-f", "raw", "-o", "size=1M", one, target)).isEqualTo(1);
    assertThat(err.toString()).contains("has 1048576 bytes, the source has 3145728");
    assertThat(target).doesNotExist();
  }

  @Test
  void convertRefusesOptionsThatMakeNoSense() {
    Path target = folder.resolve("target.raw");
    for (String options :
        new String[] {
          "-c",
          "-l snap",
          "-n -o size=1",
          "-n -B x",
          "--target-is-zero",
          "--skip-broken-bitmaps",
          "-m 0",
          "-m 17",
          "-S 100",
          "-S 32M",
          "-t zork"
        }) {
      Object[] words = (options + " -f raw").split(" ");
      Object[] all = new Object[words.length + 3];
      all[0] = "convert";
      System.arraycopy(words, 0, all, 1, words.length);
      all[words.length + 1] = one;
      all[words.length + 2] = target;
      assertThat(image(all)).as(options).isEqualTo(1);
      assertThat(err.toString().lines())
          .as(options)
          .hasSize(1)
          .first()
          .asString()
          .startsWith("tidemark: ");
      assertThat(target).doesNotExist();
    }
  }

  @Test
  void progressIsOneLineThatEndsAtAHundred() {
    assertThat(image("convert", "-p", "-f", "raw", one, folder.resolve("copy.raw"))).isZero();
    assertThat(out.toString()).startsWith("    (0.00/100%)\r").endsWith("    (100.00/100%)\r\n");
  }

  @Test
  void checkHasNothingToCheckInRaw() {
    assertThat(image("check", "-f", "raw", one)).isEqualTo(63);
  }

  @Test
  void mapOfRawIsData() {
    assertThat(image("map", "-f", "raw", "-s", "1M", "-l", "64k", one)).isZero();
    assertThat(out.toString())
        .isEqualTo(
            "Offset          Length          Mapped to       File\n"
                + "0x100000        0x10000         0x100000        "
                + one
                + "\n");
    assertThat(image("map", "-f", "raw", "--output=json", "-s", "9M", one)).isZero();
    assertThat(out.toString())
        .isEqualTo(
            "[{ \"start\": 9437184, \"length\": 0, \"depth\": 0, \"present\": false, \"zero\": false, \"data\": false}]\n");
  }
}
