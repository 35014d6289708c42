// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Random runs of calls: checkpoints, snapshots, copies, pulls, commits, backups, resizes, restarts
/// of the domain, in any order, asked for by python3-libvirt. Each answer is held against the one
/// that libvirtd 9.0.0 with QEMU 7.2 gave to the same run: return values, error numbers and
/// domains, the XML of disks, the order of events, which files are left, and of each image the
/// content, the chain and the bitmaps.
///
/// `sequences.json.gz` has 397 recorded runs, `sequences.py` plays them. `-Dsequences.count=N`
/// plays more than a few, all from 397 on; `-Dsequences.seed=N` plays others.
@Tag("interop")
class RandomSequencesIT {
  private static final Path RESOURCES = Root.path().resolve("interop/src/test/resources");
  private static final int COUNT = Integer.getInteger("sequences.count", 16);
  private static final long SEED = Long.getLong("sequences.seed", 1);

  @TempDir Path folder;

  @Test
  void areAnsweredAsLibvirtAnsweredThem() throws IOException {
    Tool.require("qemu-img");
    Tool.require("qemu-io");
    Tool.require("virsh"); // and with it python3-libvirt, for the distribution's own Python
    Path images = Files.createDirectory(folder.resolve("images"));
    try (TidemarkProcess daemon = TidemarkProcess.daemon(folder.resolve("tidemark"))) {
      List<String> said =
          Tool.at(Path.of("/usr/bin/python3"))
              .timeout(Duration.ofSeconds(120 + 10L * COUNT))
              .ok(
                  RESOURCES.resolve("sequences.py"),
                  daemon.uri(),
                  "tidemark",
                  daemon.runDir().resolve("guest"),
                  images,
                  RESOURCES.resolve("sequences.json.gz"),
                  "pick",
                  COUNT,
                  SEED)
              .out()
              .lines()
              .toList();
      assertThat(said)
          .hasSizeGreaterThanOrEqualTo(Math.min(COUNT, 397))
          .allMatch(line -> line.matches("seed \\d+: as recorded"));
    }
  }
}
