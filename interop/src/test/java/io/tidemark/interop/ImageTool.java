// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.cli.Tidemark;
import io.tidemark.testkit.Tool;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/// `tidemark image` within this process, qemu-img beside it, and random images by qemu-io.
final class ImageTool {
  /// Bytes of the small unit that random writes are made of.
  private static final int UNIT = 512;

  private ImageTool() {}

  /// Runs `tidemark image`.
  static Tool.Result tidemark(Object... words) {
    List<String> all = new ArrayList<>(List.of("image"));
    for (Object word : words) {
      all.add(word.toString());
    }
    StringWriter out = new StringWriter();
    StringWriter err = new StringWriter();
    int code = Tidemark.run(new PrintWriter(out), new PrintWriter(err), all.toArray(String[]::new));
    return new Tool.Result(code, out.toString(), err.toString());
  }

  /// Runs `tidemark image` and fails the test unless it ends well.
  static String ok(Object... words) {
    Tool.Result result = tidemark(words);
    assertThat(result.exit()).as("%s: %s", List.of(words), result.text()).isZero();
    return result.out();
  }

  static Tool.Result qemuImg(Object... words) {
    return Tool.require("qemu-img").run(words);
  }

  /// Both programs say the same on stdout and end with the same code.
  static void agree(Object... words) {
    Tool.Result theirs = qemuImg(words);
    Tool.Result ours = tidemark(words);
    assertThat(ours.out()).as("%s, stderr: %s", List.of(words), ours.err()).isEqualTo(theirs.out());
    assertThat(ours.exit()).as("%s", List.of(words)).isEqualTo(theirs.exit());
  }

  /// Makes random writes, zeroes and discards in an image by qemu-io.
  static void change(Path image, String format, long size, Random random, int count) {
    List<Object> words = new ArrayList<>(List.of("-f", format, "-d", "unmap"));
    for (int i = 0; i < count; i++) {
      words.add("-c");
      words.add(change(size, random));
    }
    words.add(image);
    Tool.require("qemu-io").ok(words.toArray());
  }

  private static String change(long size, Random random) {
    long units = size / UNIT;
    // Near one another now and then, so that clusters are met more than once.
    long at =
        random.nextInt(3) == 0 ? random.nextLong(Math.min(units, 4096)) : random.nextLong(units);
    int most = random.nextBoolean() ? 16 : 2048;
    long length = Math.min(1 + random.nextInt(most), units - at);
    String range = (at * UNIT) + " " + (length * UNIT);
    return switch (random.nextInt(6)) {
      case 0 -> "write -z " + range;
      case 1 -> "write -z -u " + range;
      case 2 -> "discard " + range;
      default -> "write -P " + (1 + random.nextInt(255)) + " " + range;
    };
  }
}
