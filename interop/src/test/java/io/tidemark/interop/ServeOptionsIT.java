// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/// The options of `export serve` that qemu-nbd has, seen by its clients.
@Tag("interop")
class ServeOptionsIT {
  private final ScratchFolder folder = new ScratchFolder();
  private final Path base = folder.resolve("base.qcow2");
  private final Path top = folder.resolve("top.qcow2");
  private final Path socket = folder.resolve("s.sock");
  private final Tool qemuImg = Tool.require("qemu-img");
  private final Tool qemuIo = Tool.require("qemu-io");

  @BeforeEach
  void makeChain() {
    qemuImg.ok("create", "-q", "-f", "qcow2", base, "4M");
    qemuIo.ok("-f", "qcow2", "-c", "write -P 1 0 1M", base);
    qemuImg.ok("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, top);
    qemuIo.ok("-f", "qcow2", "-c", "write -P 2 1M 1M", top);
  }

  @AfterEach
  void removeFolder() {
    folder.close();
  }

  private String uri(String export) {
    return "nbd+unix:///" + export + "?socket=" + socket;
  }

  private TidemarkProcess serve(String... words) throws IOException {
    String[] all = new String[3 + words.length];
    all[0] = "-t";
    all[1] = "-e0";
    all[2] = "-k" + socket;
    System.arraycopy(words, 0, all, 3, words.length);
    return TidemarkProcess.export(folder.path(), all);
  }

  private void read(String uri, String... commands) {
    var words = new ArrayList<Object>(List.of("-f", "raw"));
    if (Stream.of(commands).allMatch(command -> command.startsWith("read"))) {
      words.add("-r");
    }
    for (String command : commands) {
      words.add("-c");
      words.add(command);
    }
    words.add(uri);
    assertThat(qemuIo.ok(words.toArray()).out()).doesNotContain("verification failed");
  }

  @Test
  void tellsWhichImageOfTheChainHoldsWhat() throws IOException {
    try (var _ = serve("-A", "-f", "qcow2", top.toString())) {
      String map = Tool.require("nbdinfo").ok("--map=qemu:allocation-depth", uri("")).out();
      assertThat(map.lines().map(line -> line.strip().replaceAll(" +", " ")))
          .containsExactly(
              "0 1048576 2 backing depth 2", "1048576 1048576 1 local", "2097152 2097152 0 absent");
    }
  }

  /// As qemu-nbd does; the image's own comes before one of the same name beneath it.
  @Test
  void offersBitmapsOfTheWholeChain() throws IOException {
    qemuImg.ok("bitmap", "--add", "-f", "qcow2", base, "below");
    qemuImg.ok("bitmap", "--add", "-f", "qcow2", base, "both");
    qemuIo.ok("-f", "qcow2", "-c", "write -P 3 3M 64k", base);
    qemuImg.ok("bitmap", "--add", "-f", "qcow2", top, "both");
    try (var _ = serve("-r", "-B", "below", "-B", "both", "-f", "qcow2", top.toString())) {
      for (var wanted :
          Map.of("below", "0 3145728 0 clean", "both", "0 4194304 0 clean").entrySet()) {
        String map =
            Tool.require("nbdinfo").ok("--map=qemu:dirty-bitmap:" + wanted.getKey(), uri("")).out();
        assertThat(map.lines().findFirst().orElse("").strip().replaceAll(" +", " "))
            .isEqualTo(wanted.getValue());
      }
    }
    Tool.Result refused =
        Root.tidemark()
            .run("export", "serve", "-k" + socket, "-B", "none", "-f", "qcow2", top.toString());
    assertThat(refused.exit()).isEqualTo(1);
    assertThat(refused.err()).contains("bitmap 'none' is in no image of the chain");
  }

  /// 64 images, and no more; each is its own.
  @Test
  void serves64ExportsAndListsThemAsNbdinfoDoes() throws IOException {
    var words = new ArrayList<String>();
    for (int i = 0; i < 65; i++) {
      Path image = folder.resolve("disk" + i + ".raw");
      Files.writeString(image, "disk %03d".formatted(i).repeat(512));
      words.addAll(List.of("-x", "disk" + i));
    }
    List<String> images = new ArrayList<>();
    for (int i = 0; i < 65; i++) {
      images.add(folder.resolve("disk" + i + ".raw").toString());
    }
    List<String> all = new ArrayList<>(words.subList(0, 128));
    all.addAll(List.of("-D", "one of many", "-r", "-f", "raw"));
    all.addAll(images.subList(0, 64));
    try (var _ = serve(all.toArray(String[]::new))) {
      String server = "nbd+unix://?socket=" + socket;
      JsonNode theirs =
          JsonMapper.shared()
              .readTree(Tool.require("nbdinfo").ok("--list", "--json", server).out());
      JsonNode ours =
          JsonMapper.shared()
              .readTree(Root.tidemark().ok("export", "list", "--json", server).out());
      assertThat(ours.get("exports")).hasSize(64);
      assertThat(theirs.get("exports")).hasSize(64);
      for (int i = 0; i < 64; i++) {
        JsonNode mine = ours.get("exports").get(i);
        JsonNode yours = theirs.get("exports").get(i);
        for (String name : mine.propertyNames()) {
          if (name.equals("uri")) {
            continue; // nbdinfo leaves the socket out of it
          }
          assertThat(mine.get(name)).as(name).isEqualTo(yours.get(name));
        }
        read("%s".formatted(uri("disk" + i)), "read 0 512");
      }
      String text = Root.tidemark().ok("export", "list", server).out();
      assertThat(text.lines().filter(line -> line.startsWith("export="))).hasSize(64);
    }
    words.addAll(List.of("-k" + socket, "-f", "raw"));
    words.addAll(images);
    words.addAll(0, List.of("export", "serve"));
    Tool.Result refused = Root.tidemark().run(words.toArray());
    assertThat(refused.exit()).isEqualTo(64);
    assertThat(refused.err()).contains("64");
  }

  @Test
  void offersSeveralImagesByTheirNames() throws IOException {
    try (var _ =
        serve("-r", "-x", "a", "-x", "b", "-f", "qcow2", base.toString(), top.toString())) {
      read(uri("a"), "read -P 1 0 1M", "read -P 0 1M 1M");
      read(uri("b"), "read -P 1 0 1M", "read -P 2 1M 1M");
      String list = Tool.require("qemu-nbd").ok("-L", "-k", socket).out();
      assertThat(list).contains("exports available: 2", "export: 'a'", "export: 'b'");
    }
  }

  @Test
  void keepsTheImageAsItIsUnderATemporaryOne() throws IOException {
    byte[] before = Files.readAllBytes(top);
    try (var server = serve("-s", "-f", "qcow2", top.toString())) {
      read(
          uri(""),
          "write -P 9 64k 1M",
          "flush",
          "read -P 1 0 64k",
          "read -P 9 64k 1M",
          "read -P 2 1114112 64k");
      assertThat(server.stop()).isZero();
    }
    assertThat(Files.readAllBytes(top)).isEqualTo(before);
  }

  @Test
  void offersAPartOfAnImageWithWhatItsChainHolds() throws IOException {
    try (var _ = serve("--offset", "524288", "--size", "1048576", "-f", "qcow2", top.toString())) {
      read(uri(""), "read -P 1 0 512k", "read -P 2 512k 512k");
      Path copy = folder.resolve("copy");
      Tool.require("nbdcopy").ok(uri(""), copy);
      Path whole = folder.resolve("whole");
      qemuImg.ok("convert", "-U", "-f", "qcow2", "-O", "raw", top, whole);
      byte[] part = new byte[1 << 20];
      System.arraycopy(Files.readAllBytes(whole), 524288, part, 0, part.length);
      assertThat(Files.readAllBytes(copy)).isEqualTo(part);
    }
  }

  @Test
  void takesWrittenZeroesAsHolesAndKeepsWhatIsDiscarded() throws IOException {
    try (var _ = serve("--detect-zeroes", "unmap", "-f", "qcow2", top.toString())) {
      read(uri(""), "write -P 0 0 1M", "read -P 0 0 1M");
    }
    assertThat(qemuImg.ok("map", "--output=json", top).out())
        .contains(
            "\"start\": 0, \"length\": 1048576, \"depth\": 0, \"present\": true, \"zero\": true");
    try (var _ = serve("--discard", "ignore", "-f", "qcow2", top.toString())) {
      read(uri(""), "discard 1M 1M", "read -P 2 1M 1M");
    }
    assertThat(qemuImg.run("check", top).exit()).isZero();
  }

  /// Sixteen requests at a time: some go into the queue of a file of the chain, some want a new
  /// place first.
  @ParameterizedTest
  @ValueSource(strings = {"none", "directsync"})
  void keepsWhatIsWrittenAtDepthPastThePageCache(String cache) throws IOException {
    qemuImg.ok("resize", "-q", "-f", "qcow2", top, "64M");
    try (var server = serve("-f", "qcow2", "--cache", cache, top.toString())) {
      read(uri(""), "read -P 1 0 1M", "read -P 2 1M 1M", "read -P 0 2M 2M");
      verified();
      assertThat(server.stop()).isZero();
    }
    qemuImg.ok("check", "-q", top);
    Files.deleteIfExists(socket);
    try (var server = serve("-f", "qcow2", "-r", top.toString())) {
      verified("--verify_only=1");
      assertThat(server.stop()).isZero();
    }
  }

  /// Writes every block of the disk once, in random order, and reads all back.
  private void verified(String... more) {
    var words = new ArrayList<Object>(List.of("--name=verified", "--ioengine=nbd"));
    words.addAll(List.of("--uri=" + uri(""), "--rw=randwrite", "--bsrange=4k-64k", "--size=64m"));
    words.addAll(List.of("--iodepth=16", "--randseed=7", "--verify=crc32c", "--verify_fatal=1"));
    words.add("--verify_state_save=0");
    words.addAll(List.of(more));
    Tool.require("fio").ok(words.toArray());
  }

  @Test
  void goesOnInTheBackgroundAndLeavesItsProcessId() throws IOException {
    Path pid = folder.resolve("pid");
    assertThat(
            Root.tidemark()
                .run(
                    "export",
                    "serve",
                    "--fork",
                    "--pid-file",
                    pid,
                    "-t",
                    "-k",
                    socket,
                    "-f",
                    "qcow2",
                    top)
                .exit())
        .isZero();
    ProcessHandle server =
        ProcessHandle.of(Long.parseLong(Files.readString(pid).strip())).orElseThrow();
    try {
      read(uri(""), "read -P 2 1M 1M");
    } finally {
      server.destroy();
      Patience.await().until(() -> !server.isAlive());
    }
    assertThat(pid).doesNotExist();
    assertThat(socket).doesNotExist();
  }
}
