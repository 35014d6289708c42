// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.DriverListener;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.RequestFailure;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.engine.EmbeddedDriver;
import io.tidemark.engine.EngineConfig;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What QEMU says of the bitmaps that the embedded engine leaves in an image, and the other way
/// about.
@Tag("interop")
class EngineBitmapsIT {
  private static final DriverListener NOBODY =
      new DriverListener() {
        @Override
        public void jobStatusChanged(String jobId, DriverJobStatus status) {}

        @Override
        public void writeThresholdPassed(String target, long threshold, long excess) {}

        @Override
        public void requestFailed(RequestFailure failure) {}

        @Override
        public void stopped(String reason) {}
      };

  private static final Pattern EXTENT = Pattern.compile("\"length\": (\\d+),\\s*\"type\": (\\d+)");

  @TempDir Path folder;
  private Path disk;
  private Tool img;
  private Tool io;

  @BeforeEach
  void makeDisk() {
    disk = folder.resolve("vda.qcow2");
    img = Tool.require("qemu-img");
    io = Tool.require("qemu-io");
    img.ok("create", "-q", "-f", "qcow2", disk, "64M");
  }

  @Test
  void areInUseWhileTheDomainRunsAndUsableByQemuAfterIt() throws IOException {
    RunningDomain domain = launch();
    domain.transaction(List.of(new AddBitmap("vda", "c1", 65536, true)));
    assertThat(info("-U")).contains("\"in-use\"").contains("\"name\": \"c1\"");
    write("0", "1M", "5");
    domain.stop();

    assertThat(info()).contains("\"name\": \"c1\"").contains("\"auto\"").doesNotContain("in-use");
    img.ok("check", "-q", disk);
    assertThat(dirty("c1")).isEqualTo(16 * 65536);
    io.ok("-f", "qcow2", "-c", "write -P 6 32M 64k", disk);
    assertThat(dirty("c1")).as("QEMU recorded on").isEqualTo(17 * 65536);

    RunningDomain again = launch();
    assertThat(again.bitmaps("vda"))
        .singleElement()
        .matches(bitmap -> bitmap.dirtyBytes() == 17 * 65536 && !bitmap.inconsistent());
    again.stop();
    img.ok("check", "-q", disk);
  }

  @Test
  void recordWhereQemuHasMadeThem() throws IOException {
    img.ok("bitmap", "--add", "-g", "128k", disk, "made");
    io.ok("-f", "qcow2", "-c", "write -P 6 0 64k", disk);

    RunningDomain domain = launch();
    assertThat(domain.bitmaps("vda"))
        .singleElement()
        .matches(bitmap -> bitmap.granularityBytes() == 131072 && bitmap.dirtyBytes() == 131072);
    write("1M", "64k", "7");
    domain.stop();

    assertThat(dirty("made")).isEqualTo(2 * 131072);
    img.ok("check", "-q", disk);
  }

  private RunningDomain launch() throws IOException {
    var driver = new EmbeddedDriver(EngineConfig.of(folder.resolve("run"), folder));
    var node = new NodeSpec("libvirt-1-format", disk, "qcow2", false, Optional.empty());
    return driver.launch(
        new LaunchSpec(
            "vm",
            new UUID(1, 2),
            1,
            List.of(new DriveSpec("vda", "virtio-disk0", node, false)),
            false),
        NOBODY);
  }

  private void write(String at, String length, String pattern) {
    io.ok(
        "-f",
        "raw",
        "-c",
        "write -P " + pattern + " " + at + " " + length,
        "nbd+unix:///vda?socket=" + folder.resolve("run/guest/vm.sock"));
  }

  private String info(String... options) {
    List<Object> words = new ArrayList<>(List.of("info", "--output=json"));
    words.addAll(List.of(options));
    words.add(disk);
    return img.ok(words.toArray()).out();
  }

  /// Bytes that QEMU finds marked in the image's bitmap.
  private long dirty(String bitmap) {
    String map =
        Tool.require("nbdinfo")
            .ok(
                "--map=qemu:dirty-bitmap:" + bitmap,
                "--json",
                "--",
                "[",
                Tool.require("qemu-nbd").program(),
                "-r",
                "-f",
                "qcow2",
                "-B",
                bitmap,
                disk,
                "]")
            .out();
    long bytes = 0;
    Matcher extents = EXTENT.matcher(map);
    while (extents.find()) {
      bytes += extents.group(2).equals("1") ? Long.parseLong(extents.group(1)) : 0;
    }
    return bytes;
  }
}
