// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ZeroMode;
import io.tidemark.qcow2.Qcow2Image;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/// The same writes, zeroes and discards by qemu-io and by ours: what is data, what says zero and
/// what is left to the backing file is then the same.
@Tag("interop")
class Qcow2ZeroesIT {
  private static final Pattern EXTENT =
      Pattern.compile(
          "\"start\": (\\d+), \"length\": (\\d+), \"depth\": (\\d+), \"present\": (\\w+),"
              + " \"zero\": (\\w+), \"data\": (\\w+)");

  private static final int SIZE = 64 * 65536;

  private final ScratchFolder scratch = new ScratchFolder();

  @AfterEach
  void cleanUp() {
    scratch.close();
  }

  /// One request; offsets in units.
  private record Request(String kind, int first, int count) {
    String forQemu(int unit) {
      String range = (first * unit) + " " + (count * unit);
      return switch (kind) {
        case "write" -> "write -P 7 " + range;
        case "zero" -> "write -z " + range;
        case "unmap" -> "write -z -u " + range;
        default -> "discard " + range;
      };
    }

    void by(Qcow2Image image, int unit) throws Exception {
      long offset = (long) first * unit;
      int length = count * unit;
      switch (kind) {
        case "write" -> {
          byte[] bytes = new byte[length];
          Arrays.fill(bytes, (byte) 7);
          image.write(offset, ByteBuffer.wrap(bytes));
        }
        case "zero" -> image.writeZeroes(offset, length, ZeroMode.NO_UNMAP);
        case "unmap" -> image.writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
        default -> image.discard(offset, length);
      }
    }
  }

  private static List<Request> requests(long seed, int unit, List<String> kinds) {
    var random = new Random(seed);
    int units = SIZE / unit;
    int perCluster = 65536 / unit;
    List<Request> all = new ArrayList<>();
    for (int i = 0; i < 40; i++) {
      String kind = kinds.get(random.nextInt(kinds.size()));
      // QEMU gives back whole clusters only.
      int step = kind.equals("discard") ? perCluster : 1;
      int first = random.nextInt(units / step) * step;
      int most = Math.min(units - first, 4 * perCluster);
      int count = Math.max(step, (1 + random.nextInt(most)) / step * step);
      all.add(new Request(kind, first, Math.min(count, units - first)));
    }
    return all;
  }

  /// What each unit of the disk is: the layer that answers, and whether it is zero or data. In
  /// version 2, where zeroes are written, that hangs on holes of the file: there only the layer.
  private static List<String> map(Path image, int unit, boolean overNothing, boolean v2) {
    String json = Tool.require("qemu-img").ok("map", "--output=json", image).out();
    List<String> units = new ArrayList<>();
    Matcher extent = EXTENT.matcher(json);
    while (extent.find()) {
      String state =
          v2
              ? "depth " + extent.group(3)
              : overNothing && extent.group(5).equals("true") && extent.group(6).equals("false")
                  ? "zero" // ours leaves unallocated what never was here
                  : "depth "
                      + extent.group(3)
                      + " zero "
                      + extent.group(5)
                      + " data "
                      + extent.group(6);
      for (long left = Long.parseLong(extent.group(2)); left > 0; left -= unit) {
        units.add(state);
      }
    }
    return units;
  }

  @ParameterizedTest
  @CsvSource({
    "compat=1.1, 65536, false",
    "compat=1.1, 65536, true",
    "compat=0.10, 65536, false",
    "compat=0.10, 65536, true",
    "extended_l2=on, 2048, false",
    "extended_l2=on, 2048, true"
  })
  void leaveTheSameBehind(String options, int unit, boolean backed) throws Exception {
    Tool qemuImg = Tool.require("qemu-img");
    List<String> kinds = List.of("write", "write", "zero", "unmap", "discard");
    boolean v2 = options.equals("compat=0.10");
    Path base = scratch.resolve("base.raw");
    byte[] bytes = new byte[SIZE / 2];
    new Random(1).nextBytes(bytes);
    Files.write(base, bytes);
    for (int seed = 1; seed <= 4; seed++) {
      Path theirs = scratch.resolve("theirs-" + seed);
      Path ours = scratch.resolve("ours-" + seed);
      for (Path path : List.of(theirs, ours)) {
        List<Object> words = new ArrayList<>(List.of("create", "-q", "-f", "qcow2", "-o", options));
        if (backed) {
          words.addAll(List.of("-b", base, "-F", "raw"));
        }
        words.addAll(List.of(path, SIZE));
        qemuImg.ok(words.toArray());
      }
      List<Request> requests = requests(seed, unit, kinds);
      List<Object> words = new ArrayList<>(List.of("-f", "qcow2", "-d", "unmap"));
      try (Qcow2Image image =
          Qcow2Image.open(FileNode.open(ours, OpenOptions.readWrite()), OpenOptions.readWrite())) {
        if (backed) {
          image.attachBacking(FileNode.open(base, OpenOptions.reading()));
        }
        for (Request request : requests) {
          words.add("-c");
          words.add(request.forQemu(unit));
          request.by(image, unit);
        }
      }
      words.add(theirs);
      Tool.require("qemu-io").ok(words.toArray());
      qemuImg.ok("compare", theirs, ours);
      assertThat(qemuImg.ok("check", ours).out()).contains("No errors were found");
      assertThat(map(ours, unit, !backed, v2))
          .as("seed %d: %s", seed, requests)
          .isEqualTo(map(theirs, unit, !backed, v2));
    }
  }
}
