// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.Preallocation;
import io.tidemark.block.ResizeOptions;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// New sizes and preallocation beside QEMU: the same map, the same space, the same bytes.
@Tag("interop")
class Qcow2ResizeIT {
  private static final Pattern RANGE =
      Pattern.compile("\"start\": (\\d+), \"length\": \\d+, (.*?\"data\": \\w+)");

  private final ScratchFolder scratch = new ScratchFolder();
  private final Tool qemuImg = Tool.require("qemu-img");
  private final ImageOpener opener = new ImageOpener(ImageOpener.Probing.REFUSED);

  @AfterEach
  void cleanUp() {
    scratch.close();
  }

  private static long allocated(Path path) {
    return Long.parseLong(Tool.require("stat").ok("-c", "%b", path).out().trim()) * 512;
  }

  /// Ranges of one state; where in the file they are may differ.
  private List<String> map(String format, Path path) {
    String json = qemuImg.ok("map", "--output=json", "-f", format, path).out();
    var ranges = new ArrayList<String>();
    String before = "";
    Matcher range = RANGE.matcher(json);
    while (range.find()) {
      if (!range.group(2).equals(before)) {
        before = range.group(2);
        ranges.add(range.group(1) + ": " + before);
      }
    }
    return ranges;
  }

  @ParameterizedTest
  @CsvSource({
    "qcow2,off,,",
    "qcow2,metadata,,",
    "qcow2,falloc,,",
    "qcow2,full,,",
    "qcow2,metadata,cluster_size,4096",
    "qcow2,falloc,refcount_bits,64",
    "qcow2,metadata,extended_l2,on",
    "qcow2,full,extended_l2,on",
    "raw,off,,",
    "raw,falloc,,",
    "raw,full,,"
  })
  void preallocationIsTheSame(String format, String mode, String option, String value)
      throws Exception {
    Path theirs = scratch.resolve("theirs");
    Path ours = scratch.resolve("ours");
    boolean more = option != null;
    qemuImg.ok(
        "create",
        "-f",
        format,
        "-o",
        "preallocation=" + mode + (more ? "," + option + "=" + value : ""),
        theirs,
        "11M");
    Map<String, String> options =
        more ? Map.of("preallocation", mode, option, value) : Map.of("preallocation", mode);
    opener.create(ours, format, new CreateOptions(11 << 20, Optional.empty(), options));
    same(format, theirs, ours);
    qemuImg.ok("resize", "-f", format, "--preallocation=" + mode, theirs, "17M");
    try (FormatNode node =
        opener.open(ours, format, OpenOptions.readWrite().with(Durability.FLUSHED))) {
      node.resize(17 << 20, new ResizeOptions(Preallocation.of(mode).orElseThrow(), false));
    }
    same(format, theirs, ours);
  }

  private void same(String format, Path theirs, Path ours) throws Exception {
    assertThat(map(format, ours)).isEqualTo(map(format, theirs));
    assertThat(allocated(ours)).isBetween(allocated(theirs) - 600_000, allocated(theirs) + 600_000);
    qemuImg.ok("compare", "-f", format, "-F", format, ours, theirs);
    if (format.equals("qcow2")) {
      assertThat(qemuImg.ok("check", ours).out()).contains("No errors were found");
    }
  }

  @ParameterizedTest
  @CsvSource({"qcow2,,", "qcow2,cluster_size,512", "qcow2,extended_l2,on", "raw,,"})
  void shrinkingAndGrowingLeavesTheSame(String format, String option, String value)
      throws Exception {
    Path theirs = scratch.resolve("theirs");
    Path ours = scratch.resolve("ours");
    if (option == null) {
      qemuImg.ok("create", "-f", format, theirs, "9M");
    } else {
      qemuImg.ok("create", "-f", format, "-o", option + "=" + value, theirs, "9M");
    }
    if (format.equals("qcow2")) {
      qemuImg.ok("bitmap", "--add", theirs, "b");
    }
    Tool.require("qemu-io")
        .ok("-f", format, "-c", "write -P 5 100k 5M", "-c", "write -P 6 8M 900k", theirs);
    Files.copy(theirs, ours);
    for (String size : new String[] {"5120k", "8256k", "64k", "30M"}) {
      qemuImg.ok("resize", "-f", format, "--shrink", theirs, size);
      long bytes =
          size.endsWith("M")
              ? 30L << 20
              : Long.parseLong(size.substring(0, size.length() - 1)) << 10;
      try (FormatNode node =
          opener.open(ours, format, OpenOptions.readWrite().with(Durability.FLUSHED))) {
        node.resize(bytes, ResizeOptions.ANY);
      }
      qemuImg.ok("compare", "-f", format, "-F", format, ours, theirs);
      if (format.equals("qcow2")) {
        assertThat(qemuImg.ok("check", ours).out()).contains("No errors were found");
        assertThat(qemuImg.ok("info", ours).out()).contains("name: b");
      }
    }
  }
}
