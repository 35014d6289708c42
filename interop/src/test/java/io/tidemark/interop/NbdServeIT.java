// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/// Unmodified NBD clients against `tidemark export serve`.
@Tag("interop")
class NbdServeIT {
  private static final int SIZE = 48 << 20;

  private final ScratchFolder folder = new ScratchFolder();
  private final Path disk = folder.resolve("disk.img");
  private final String uri = "nbd+unix:///vda?socket=" + folder.resolve("s.sock");

  @AfterEach
  void removeFolder() {
    folder.close();
  }

  private TidemarkProcess serve(String format, Path image, String... more) throws IOException {
    String[] words = new String[8 + more.length];
    System.arraycopy(
        new String[] {
          "-t", "-e0", "-k" + folder.resolve("s.sock"), "-x", "vda", "-f", format, image.toString()
        },
        0,
        words,
        more.length,
        8);
    System.arraycopy(more, 0, words, 0, more.length);
    return TidemarkProcess.export(folder.path(), words);
  }

  private Path empty() throws IOException {
    try (var file = new java.io.RandomAccessFile(disk.toFile(), "rw")) {
      file.setLength(SIZE);
    }
    return disk;
  }

  private Path random() throws IOException {
    Path file = folder.resolve("random");
    byte[] bytes = new byte[SIZE];
    new Random(1).nextBytes(bytes);
    java.util.Arrays.fill(bytes, 5 << 20, 20 << 20, (byte) 0);
    return Files.write(file, bytes);
  }

  @Test
  void nbdinfoFindsEverythingAServerShouldOffer() throws IOException {
    Tool nbdinfo = Tool.require("nbdinfo");
    try (TidemarkProcess server = serve("raw", empty(), "-D", "a disk")) {
      JsonNode export =
          JsonMapper.shared().readTree(nbdinfo.ok("--json", uri).out()).get("exports").get(0);

      assertThat(export.get("export-size").asLong()).isEqualTo(SIZE);
      assertThat(export.get("description").asString()).isEqualTo("a disk");
      assertThat(export.get("contexts").get(0).asString()).isEqualTo("base:allocation");
      for (String can :
          new String[] {"cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"}) {
        assertThat(export.get("can_" + can).asBoolean()).as(can).isTrue();
      }
      assertThat(nbdinfo.ok("--list", uri).out()).contains("export=\"vda\":");
      assertThat(server.stop()).isZero();
      assertThat(folder.resolve("s.sock")).doesNotExist();
    }
  }

  @Test
  void nbdcopyWritesAndReadsTheSameOverSeveralConnections() throws IOException {
    Tool nbdcopy = Tool.require("nbdcopy");
    Path from = random();
    Path back = folder.resolve("back");
    try (var _ = serve("raw", empty())) {
      nbdcopy.ok("--connections=4", "--requests=32", from, uri);
      nbdcopy.ok("--connections=4", uri, back);
      assertThat(Files.mismatch(from, back)).isEqualTo(-1);
      nbdcopy.ok("--synchronous", "--allocated", from, uri);
    }
    assertThat(Files.mismatch(from, disk)).isEqualTo(-1);
  }

  @Test
  void qemuReadsWhatItWrote() throws IOException {
    Tool io = Tool.require("qemu-io");
    try (var _ = serve("raw", empty())) {
      Tool.Result result =
          io.ok(
              "-f",
              "raw",
              "-c",
              "write -P 0x11 0 1M",
              "-c",
              "write -P 0x22 1000000 3333",
              "-c",
              "read -P 0x22 1000000 3333",
              "-c",
              "write -z 64k 64k",
              "-c",
              "write -zu 128k 64k",
              "-c",
              "discard 256k 128k",
              "-c",
              "flush",
              "-c",
              "write -f -P 3 512 512",
              "-c",
              "read -P 3 512 512",
              "-c",
              "read -P 0 64k 128k",
              "-c",
              "aio_write -P 7 2M 1M",
              "-c",
              "aio_write -P 8 3M 1M",
              "-c",
              "aio_flush",
              "-c",
              "read -P 7 2M 1M",
              "-c",
              "read -P 8 3M 1M",
              "-c",
              "write -P 1 5 7",
              "-c",
              "read -P 1 5 7",
              uri);
      assertThat(result.text()).doesNotContainIgnoringCase("fail").doesNotContain("error");
    }
  }

  @Test
  void qemuKeepsAQcow2ImageInsideAnExport() throws IOException {
    Tool img = Tool.require("qemu-img");
    Tool io = Tool.require("qemu-io");
    try (var _ = serve("raw", empty())) {
      img.ok("create", "-q", "-f", "qcow2", uri, "32M");
      io.ok("-f", "qcow2", "-c", "write -P 9 0 5M", "-c", "write -P 9 9999999 64", uri);
      img.ok("check", "-f", "qcow2", uri);
      assertThat(io.ok("-f", "qcow2", "-c", "read -P 9 0 5M", uri).text()).doesNotContain("failed");
    }
  }

  @Test
  void aChainIsServedAsAGuestSeesIt() throws IOException {
    Tool img = Tool.require("qemu-img");
    Tool io = Tool.require("qemu-io");
    Path base = folder.resolve("base.qcow2");
    Path top = folder.resolve("top.qcow2");
    img.ok("create", "-q", "-f", "qcow2", base, SIZE);
    io.ok("-f", "qcow2", "-c", "write -P 1 0 4M", base);
    img.ok("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top);
    io.ok("-f", "qcow2", "-c", "write -P 2 1M 1M", top);
    try (var _ = serve("qcow2", top)) {
      assertThat(img.ok("compare", "-f", "raw", "-F", "qcow2", uri, top, "-U").out())
          .contains("identical");
      assertThat(
              io.ok("-f", "raw", "-c", "write -P 3 10M 70k", "-c", "read -P 3 10M 70k", uri).text())
          .doesNotContain("failed");
    }
    img.ok("check", "-q", top);
    assertThat(io.ok("-f", "qcow2", "-c", "read -P 3 10M 70k", "-c", "read -P 2 1M 1M", top).text())
        .doesNotContain("failed");
  }

  @Test
  void fioVerifiesWhatItWroteAtDepth() throws IOException {
    Tool fio = Tool.require("fio");
    try (var _ = serve("raw", empty())) {
      fio.ok(
          "--name=v",
          "--ioengine=nbd",
          "--uri=" + uri,
          "--rw=randrw",
          "--bsrange=512-256k",
          "--size=32M",
          "--iodepth=16",
          "--number_ios=3000",
          "--verify=crc32c",
          "--verify_fatal=1",
          "--verify_state_save=0");
    }
  }

  @Test
  void endsWithItsLastClientUnlessToldToStay() throws IOException {
    Tool io = Tool.require("qemu-io");
    String socket = "-k" + folder.resolve("once.sock");
    try (TidemarkProcess server =
        TidemarkProcess.export(
            folder.path(), socket, "-x", "vda", "-f", "raw", empty().toString())) {
      io.ok("-f", "raw", "-c", "write -P 1 0 4k", uri.replace("s.sock", "once.sock"));
      Patience.await().until(() -> !server.alive());
    }
  }

  @Test
  void whatWasAcknowledgedIsThereAfterKill() throws IOException {
    Tool io = Tool.require("qemu-io");
    Tool img = Tool.require("qemu-img");
    Path image = folder.resolve("k.qcow2");
    img.ok("create", "-q", "-f", "qcow2", image, SIZE);
    try (TidemarkProcess server = serve("qcow2", image)) {
      io.ok("-f", "raw", "-c", "write -P 5 1M 3M", "-c", "flush", uri);
      server.kill();
      server.start();
      assertThat(io.ok("-f", "raw", "-c", "read -P 5 1M 3M", uri).text()).doesNotContain("failed");
    }
    assertThat(img.run("check", image).exit()).as("0 clean, 3 leaks only").isIn(0, 3);
  }
}
