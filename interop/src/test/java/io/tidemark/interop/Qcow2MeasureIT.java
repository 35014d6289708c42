// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.Measurement;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.qcow2.Qcow2Format;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// The numbers of `qemu-img measure`, option by option.
@Tag("interop")
class Qcow2MeasureIT {
  private final ScratchFolder scratch = new ScratchFolder();
  private final Tool qemuImg = Tool.require("qemu-img");

  @AfterEach
  void cleanUp() {
    scratch.close();
  }

  private static String joined(Map<String, String> options) {
    return options.entrySet().stream()
        .map(o -> o.getKey() + "=" + o.getValue())
        .collect(Collectors.joining(","));
  }

  private static String text(Measurement measured) {
    return "required size: %d\nfully allocated size: %d\n"
            .formatted(measured.required(), measured.fullyAllocated())
        + (measured.bitmaps().isPresent()
            ? "bitmaps size: " + measured.bitmaps().getAsLong() + "\n"
            : "");
  }

  private static Map<String, String> randomOptions(Random random) {
    var options = new TreeMap<String, String>();
    boolean extended = random.nextInt(4) == 0;
    int bits = (extended ? 14 : 9) + random.nextInt(extended ? 8 : 13);
    options.put("cluster_size", "" + (1 << bits));
    if (extended) {
      options.put("extended_l2", "on");
    }
    if (!extended && random.nextInt(4) == 0) {
      options.put("compat", "0.10");
    } else {
      options.put("refcount_bits", "" + (1 << random.nextInt(7)));
      options.put("lazy_refcounts", random.nextBoolean() ? "on" : "off");
      if (random.nextInt(4) == 0) {
        options.put("data_file", "x.raw");
      }
    }
    if (random.nextBoolean()) {
      options.put(
          "preallocation", List.of("off", "metadata", "falloc", "full").get(random.nextInt(4)));
    }
    return options;
  }

  @Test
  void ofASizeAgree() throws Exception {
    var random = new Random(11);
    long[] sizes = {0, 1, 512, 1 << 20, (1 << 20) + 1, 123_456_789, 1L << 31, 1L << 36, 1L << 40};
    for (int round = 0; round < 60; round++) {
      Map<String, String> options = randomOptions(random);
      long size = sizes[random.nextInt(sizes.length)];
      var asked = new CreateOptions(size, Optional.empty(), options);
      Tool.Result theirs =
          qemuImg.run("measure", "-O", "qcow2", "-o", joined(options), "--size", "" + size);
      if (theirs.exit() == 0) {
        assertThat(text(new Qcow2Format().measure(asked, Optional.empty())))
            .as("%s of %d", options, size)
            .isEqualTo(theirs.out());
      } else {
        assertThatThrownBy(() -> new Qcow2Format().measure(asked, Optional.empty()))
            .as("%s of %d: %s", options, size, theirs.err())
            .isInstanceOf(UnsupportedImageException.class);
      }
    }
  }

  @Test
  void ofAnImageAgree() throws Exception {
    var random = new Random(5);
    Path base = scratch.resolve("base.qcow2");
    Path top = scratch.resolve("top.qcow2");
    qemuImg.ok("create", "-f", "qcow2", base, "30M");
    qemuImg.ok("create", "-f", "qcow2", "-F", "qcow2", "-b", base, top, "41M");
    var commands = new ArrayList<Object>(List.of("-f", "qcow2"));
    for (int i = 0; i < 40; i++) {
      long at = random.nextInt(40 << 11) * 512L;
      commands.add("-c");
      commands.add(
          (i % 5 == 4 ? "write -z " : "write -P 7 ") + at + " " + (1 + random.nextInt(300)) * 512L);
    }
    Tool qemuIo = Tool.require("qemu-io");
    commands.add(top);
    qemuIo.ok(commands.toArray());
    qemuIo.ok("-f", "qcow2", "-c", "write -P 1 1M 3M", "-c", "write -P 2 20M 9M", base);
    for (String bitmap : List.of("short", "a-rather-longer-name")) {
      qemuImg.ok("bitmap", "--add", "-g", "65536", top, bitmap);
    }
    var opener = new ImageOpener(ImageOpener.Probing.REFUSED);
    try (BlockNode source = opener.open(top, "qcow2", OpenOptions.reading())) {
      for (int round = 0; round < 25; round++) {
        Map<String, String> options = randomOptions(random);
        Tool.Result theirs =
            qemuImg.ok("measure", "-O", "qcow2", "-o", joined(options), "-f", "qcow2", top);
        Optional<BackingReference> none = Optional.empty();
        Measurement ours =
            new Qcow2Format().measure(new CreateOptions(0, none, options), Optional.of(source));
        assertThat(text(ours)).as("%s", options).isEqualTo(theirs.out());
      }
      Tool.Result backed =
          qemuImg.ok(
              "measure", "-O", "qcow2", "-o", "backing_file=b,backing_fmt=raw", "-f", "qcow2", top);
      var reference = new BackingReference("b", Optional.of("raw"));
      var asked = new CreateOptions(0, Optional.of(reference), Map.of());
      assertThat(text(new Qcow2Format().measure(asked, Optional.of(source))))
          .isEqualTo(backed.out());
    }
  }

  @Test
  void ofPreallocatedPlacesCountsNone() throws Exception {
    Path image = scratch.resolve("ahead.qcow2");
    qemuImg.ok("create", "-f", "qcow2", "-o", "preallocation=metadata", image, "64M");
    Tool.require("qemu-io").ok("-f", "qcow2", "-c", "write -P 3 5M 1M", image);
    var opener = new ImageOpener(ImageOpener.Probing.REFUSED);
    try (BlockNode source = opener.open(image, "qcow2", OpenOptions.reading())) {
      var asked = new CreateOptions(0, Optional.empty(), Map.of());
      assertThat(text(new Qcow2Format().measure(asked, Optional.of(source))))
          .isEqualTo(qemuImg.ok("measure", "-O", "qcow2", "-f", "qcow2", image).out());
    }
  }
}
