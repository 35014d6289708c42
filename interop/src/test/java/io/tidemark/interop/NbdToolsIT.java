// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/// Unmodified NBD clients at the guest socket of a running domain, whose disk lies over a backing
/// file. [NbdServeIT] has what they find at any export.
@Tag("interop")
class NbdToolsIT {
  private static final int MIB = 1 << 20;
  private static final int SIZE = 32 * MIB;
  private static final String DOMAIN = "served";

  @TempDir Path folder;
  private Path disk;
  private String uri;
  private OneDomain domain;
  private Virsh virsh;

  /// 0x11 from the backing file in the first MiB, 0x22 of its own in the third; the rest is empty.
  @BeforeEach
  void start() throws IOException {
    Tool.require("virsh");
    Tool img = Tool.require("qemu-img");
    Tool io = Tool.require("qemu-io");
    Path base = folder.resolve("base.qcow2");
    disk = folder.resolve("disk.qcow2");
    img.ok("create", "-q", "-f", "qcow2", base, SIZE);
    io.ok("-f", "qcow2", "-c", "write -P 0x11 0 1M", base);
    img.ok("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", disk);
    io.ok("-f", "qcow2", "-c", "write -P 0x22 2M 1M", disk);
    domain = OneDomain.in(folder, DOMAIN).disk("vda", disk).start();
    virsh = domain.virsh();
    uri = domain.uri("vda");
  }

  @AfterEach
  void stop() throws IOException {
    if (domain != null) {
      domain.close();
    }
  }

  @Test
  void nbdinfoSeesTheWholeChain() throws IOException {
    Tool nbdinfo = Tool.require("nbdinfo");
    JsonNode export =
        JsonMapper.shared().readTree(nbdinfo.ok("--json", uri).out()).get("exports").get(0);
    assertThat(export.get("export-name").asString()).isEqualTo("vda");
    assertThat(export.get("export-size").asLong()).isEqualTo(SIZE);
    assertThat(export.get("is_read_only").asBoolean()).isFalse();
    assertThat(export.get("can_multi_conn").asBoolean()).isTrue();
    assertThat(nbdinfo.ok("--size", uri).out().strip()).isEqualTo("" + SIZE);
    assertThat(extents(nbdinfo))
        .containsExactly("0 1 data", "1 1 hole,zero", "2 1 data", "3 29 hole,zero");
  }

  /// The map of `base:allocation`, in MiB: offset, length, what it is. Neighbours of one kind are
  /// one, for a server may cut as it likes.
  private List<String> extents(Tool nbdinfo) {
    var merged = new ArrayList<String>();
    String kind = "";
    long from = 0;
    long to = 0;
    JsonNode map = JsonMapper.shared().readTree(nbdinfo.ok("--map", "--json", uri).out());
    for (JsonNode extent : map) {
      String found = extent.get("description").asString();
      assertThat(extent.get("offset").asLong()).isEqualTo(to);
      if (!found.equals(kind) && to > 0) {
        merged.add("%d %d %s".formatted(from / MIB, (to - from) / MIB, kind));
        from = to;
      }
      kind = found;
      to += extent.get("length").asLong();
    }
    merged.add("%d %d %s".formatted(from / MIB, (to - from) / MIB, kind));
    return merged;
  }

  @Test
  void nbdcopyTakesTheDiskOutAndPutsAnotherIn() throws IOException {
    Tool nbdcopy = Tool.require("nbdcopy");
    Tool img = Tool.require("qemu-img");
    Path out = folder.resolve("out.raw");
    nbdcopy.ok(uri, out);
    assertThat(img.ok("compare", "-U", "-f", "raw", "-F", "qcow2", out, disk).out())
        .contains("identical");

    byte[] bytes = new byte[SIZE];
    new Random(7).nextBytes(bytes);
    java.util.Arrays.fill(bytes, 5 * MIB, 20 * MIB, (byte) 0);
    Path in = Files.write(folder.resolve("in.raw"), bytes);
    nbdcopy.ok("--connections=4", "--flush", in, uri);
    assertThat(img.ok("compare", "-f", "raw", "-F", "raw", in, uri).out()).contains("identical");

    virsh.ok("destroy", DOMAIN);
    img.ok("check", "-q", disk);
    assertThat(img.ok("compare", "-f", "raw", "-F", "qcow2", in, disk).out()).contains("identical");
  }

  @Test
  void qemuWritesOverBackingFileAndOwnData() {
    Tool io = Tool.require("qemu-io");
    io.ok(
        words(
            uri,
            "raw",
            "read -P 0x11 0 1M",
            "read -P 0 1M 1M",
            "read -P 0x22 2M 1M",
            "write -P 0x33 5000 3000",
            "write -P 0x44 1M 700k",
            "write -z 2M 300k",
            "discard 2500k 100k",
            "flush"));
    Object[] expected = {
      "read -P 0x11 0 5000",
      "read -P 0x33 5000 3000",
      "read -P 0x11 8000 1040576",
      "read -P 0x44 1M 700k",
      "read -P 0 2M 300k",
      "read -P 0x22 2348k 152k"
    };
    io.ok(words(uri, "raw", expected));
    virsh.ok("destroy", DOMAIN);
    io.ok(words(disk, "qcow2", expected));
    Tool.require("qemu-img").ok("check", "-q", disk);
  }

  /// qemu-io's words: it ends with 1 when a command fails or a pattern is not there.
  private static Object[] words(Object image, String format, Object... commands) {
    var words = new ArrayList<Object>(List.of("-f", format));
    for (Object command : commands) {
      words.add("-c");
      words.add(command);
    }
    words.add(image);
    return words.toArray();
  }

  @Test
  void fioVerifiesWhileTheDiskIsCopiedAndPivoted() throws Exception {
    Tool fio = Tool.require("fio");
    Process load =
        fio.start(
            "--name=v",
            "--ioengine=nbd",
            "--uri=" + uri,
            "--rw=randrw",
            "--bsrange=512-64k",
            "--size=16M",
            "--iodepth=16",
            "--io_size=24M",
            "--rate=2M,2M",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--output=" + folder.resolve("fio.txt"));
    try {
      Patience.await()
          .atMost(Duration.ofSeconds(30))
          .until(() -> !virsh.ok("domblkstat", DOMAIN, "vda").contains("wr_req 0\n"));
      Path copy = folder.resolve("copy.qcow2");
      virsh.ok("blockcopy", DOMAIN, "vda", copy, "--transient-job", "--wait", "--pivot");
      assertThat(load.isAlive()).as("fio worked when the disk was pivoted").isTrue();
      assertThat(load.waitFor(60, TimeUnit.SECONDS)).isTrue();
      assertThat(load.exitValue()).as(Files.readString(folder.resolve("fio.txt"))).isZero();
      virsh.ok("destroy", DOMAIN);
      Tool.require("qemu-img").ok("check", "-q", copy);
    } finally {
      load.destroyForcibly();
    }
  }
}
