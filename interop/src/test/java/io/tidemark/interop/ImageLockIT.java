// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ImageBusyException;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// QEMU's image locks see ours, and ours see QEMU's (rule 12).
@Tag("interop")
class ImageLockIT {
  private final ScratchFolder folder = new ScratchFolder();
  private final ImageOpener opener = new ImageOpener(ImageOpener.Probing.REFUSED);
  private final Path base = folder.resolve("base");
  private final Path top = folder.resolve("top");

  @BeforeEach
  void makeImages() {
    Tool.require("qemu-io");
  }

  @AfterEach
  void removeFolder() {
    folder.close();
  }

  private void make(String format) {
    Tool qemuImg = Tool.require("qemu-img");
    qemuImg.ok("create", "-q", "-f", format, base, "4M");
    if (format.equals("qcow2")) {
      qemuImg.ok("create", "-q", "-f", format, "-b", base, "-F", format, top);
    } else {
      qemuImg.ok("create", "-q", "-f", format, top, "4M");
    }
  }

  /// qemu-io with an image open until closed.
  private static final class Holder implements AutoCloseable {
    private final Process process;

    Holder(Object... arguments) throws IOException {
      process = Tool.require("qemu-io").start(arguments);
      Writer in = process.outputWriter(StandardCharsets.UTF_8);
      in.write("read 0 512\n");
      in.flush();
      BufferedReader out = process.inputReader(StandardCharsets.UTF_8);
      String line = out.readLine();
      while (line != null && !line.contains("read 512/512")) {
        line = out.readLine();
      }
      assertThat(line).as("qemu-io opened the image").isNotNull();
    }

    @Override
    public void close() {
      Tool.end(process);
    }
  }

  private BlockNode open(Path image, String format, OpenOptions options) throws BlockException {
    return opener.open(image, format, options);
  }

  /// What is locked on a file, as `first..last` of each lock.
  private static List<String> locks(Path image) throws IOException {
    String inode = ":" + Files.getAttribute(image, "unix:ino");
    var bytes = new TreeSet<Integer>();
    for (String line : Files.readAllLines(Path.of("/proc/locks"))) {
      List<String> words = List.of(line.trim().split(" +"));
      if (words.get(1).equals("OFDLCK") && words.get(5).endsWith(inode)) {
        assertThat(words.get(3)).isEqualTo("READ");
        for (int b = Integer.parseInt(words.get(6)); b <= Integer.parseInt(words.get(7)); b++) {
          bytes.add(b);
        }
      }
    }
    return bytes.stream().map(String::valueOf).toList();
  }

  @Test
  void weHoldTheBytesThatQemuHoldsOnAQcow2Chain() throws Exception {
    make("qcow2");
    for (boolean readOnly : new boolean[] {false, true}) {
      List<List<String>> theirs = new ArrayList<>();
      Object[] arguments = readOnly ? new Object[] {"-r", top} : new Object[] {top};
      try (var _ = new Holder(arguments)) {
        theirs.add(locks(top));
        theirs.add(locks(base));
      }
      OpenOptions options = readOnly ? OpenOptions.reading() : OpenOptions.readWrite();
      try (var _ = open(top, "qcow2", options)) {
        assertThat(List.of(locks(top), locks(base))).isEqualTo(theirs);
      }
      assertThat(locks(top)).isEmpty();
      assertThat(locks(base)).isEmpty();
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"raw", "qcow2"})
  void anImageThatQemuWritesIsRefused(String format) throws Exception {
    make(format);
    try (var _ = new Holder("-f", format, top)) {
      assertThatThrownBy(() -> open(top, format, OpenOptions.readWrite()))
          .isInstanceOf(ImageBusyException.class)
          .hasMessageContaining("\"write\" lock");
      assertThatThrownBy(() -> open(top, format, OpenOptions.reading()))
          .isInstanceOf(ImageBusyException.class)
          .hasMessageContaining("shared \"write\" lock");
      open(top, format, OpenOptions.forceShare()).close();
    }
    open(top, format, OpenOptions.readWrite()).close();
  }

  @ParameterizedTest
  @ValueSource(strings = {"raw", "qcow2"})
  void qemuRefusesAnImageThatWeWrite(String format) throws Exception {
    make(format);
    Tool qemuIo = Tool.require("qemu-io");
    try (var _ = open(top, format, OpenOptions.readWrite())) {
      Tool.Result write = qemuIo.run("-f", format, "-c", "write 0 512", top);
      assertThat(write.exit()).isNotZero();
      assertThat(write.text()).contains("Failed to get \"write\" lock");
      Tool.Result read = qemuIo.run("-r", "-f", format, "-c", "read 0 512", top);
      if (format.equals("raw")) {
        // qemu: 7.2 reads a raw image beside its own writer too
        assertThat(read.exit()).isZero();
      } else {
        assertThat(read.text()).contains("Failed to get shared \"write\" lock");
      }
    }
    qemuIo.ok("-f", format, "-c", "write 0 512", top);
  }

  @ParameterizedTest
  @ValueSource(strings = {"raw", "qcow2"})
  void readersOfBothKindsCoexistAndKeepWritersOut(String format) throws Exception {
    make(format);
    Tool qemuIo = Tool.require("qemu-io");
    try (var _ = open(top, format, OpenOptions.reading())) {
      qemuIo.ok("-r", "-f", format, "-c", "read 0 512", top);
      assertThat(qemuIo.run("-f", format, "-c", "write 0 512", top).text()).contains("lock");
    }
    try (var _ = new Holder("-r", "-f", format, top)) {
      open(top, format, OpenOptions.reading()).close();
    }
  }

  @Test
  void aBackingFileBeneathOurWriterMayBeReadAndNotWritten() throws Exception {
    make("qcow2");
    Tool qemuIo = Tool.require("qemu-io");
    try (var _ = open(top, "qcow2", OpenOptions.readWrite())) {
      Tool.require("qemu-img").ok("info", base);
      qemuIo.ok("-r", "-f", "qcow2", "-c", "read 0 512", base);
      assertThat(qemuIo.run("-f", "qcow2", "-c", "write 0 512", base).text())
          .contains("Failed to get \"write\" lock");
      open(base, "qcow2", OpenOptions.reading()).close();
    }
  }

  @Test
  void closingAnotherDescriptorOfTheImageKeepsTheLocks() throws Exception {
    make("raw");
    try (var _ = open(top, "raw", OpenOptions.readWrite())) {
      List<String> before = locks(top);
      Files.readAllBytes(top);
      open(top, "raw", OpenOptions.forceShare()).close();
      assertThat(locks(top)).isEqualTo(before).contains("101");
    }
  }

  /// qemu-nbd that serves an image, or ended because it could not. Its socket is there before it
  /// has opened the image.
  private Process serve(Object... options) throws IOException {
    Path socket = folder.resolve("nbd.sock");
    Files.deleteIfExists(socket);
    List<Object> arguments = new ArrayList<>(List.of("-t", "-k", socket));
    arguments.addAll(List.of(options));
    Process server = Tool.require("qemu-nbd").start(arguments.toArray());
    Tool nbdinfo = Tool.require("nbdinfo");
    String uri = "nbd+unix:///?socket=" + socket;
    Patience.await()
        .atMost(Tool.TIMEOUT)
        .until(() -> !server.isAlive() || nbdinfo.run("--size", uri).exit() == 0);
    return server;
  }

  @ParameterizedTest
  @ValueSource(strings = {"raw", "qcow2"})
  void anImageThatQemuNbdServesIsOursToReadOnlyWhenNobodyWritesIt(String format) throws Exception {
    make(format);
    Process server = serve("-f", format, top);
    try {
      assertThatThrownBy(() -> open(top, format, OpenOptions.readWrite()))
          .isInstanceOf(ImageBusyException.class);
      open(top, format, OpenOptions.forceShare()).close();
    } finally {
      Tool.end(server);
    }
    server = serve("-r", "-f", format, top);
    try (BlockNode reader = open(top, format, OpenOptions.reading())) {
      assertThatThrownBy(() -> reader.reopen(false)).isInstanceOf(ImageBusyException.class);
      assertThat(reader.readOnly()).isTrue();
    } finally {
      Tool.end(server);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"raw", "qcow2"})
  void qemuNbdDoesNotServeWhatWeWrite(String format) throws Exception {
    make(format);
    try (var _ = open(top, format, OpenOptions.readWrite())) {
      Process server = serve("-f", format, top);
      assertThat(server.isAlive()).isFalse();
      assertThat(server.exitValue()).isNotZero();
      Tool.require("qemu-img").ok("info", "-U", "-f", format, top);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"raw", "qcow2"})
  void qemuSeesAReaderBecomeAWriterAndAReaderAgain(String format) throws Exception {
    make(format);
    Tool qemuIo = Tool.require("qemu-io");
    try (BlockNode node = open(top, format, OpenOptions.reading())) {
      List<String> reading = locks(top);
      node.reopen(false);
      node.write(0, java.nio.ByteBuffer.wrap(new byte[] {1}));
      assertThat(locks(top)).contains("101", "103");
      assertThat(qemuIo.run("-f", format, "-c", "write 0 512", top).text())
          .contains("Failed to get \"write\" lock");
      node.reopen(true);
      assertThat(locks(top)).isEqualTo(reading);
      qemuIo.ok("-r", "-f", format, "-c", "read -P 1 0 1", top);
      if (format.equals("qcow2")) { // qemu: 7.2 reads a raw image beside a writer
        try (var _ = new Holder("-r", "-f", format, top)) {
          assertThatThrownBy(() -> node.reopen(false)).isInstanceOf(ImageBusyException.class);
        }
      }
      node.reopen(false);
    }
    qemuIo.ok("-f", format, "-c", "write 0 512", top);
  }

  @Test
  void anExternalDataFileIsLockedAsTheImageIs() throws Exception {
    Path data = folder.resolve("data");
    Tool.require("qemu-img")
        .ok("create", "-q", "-f", "qcow2", "-o", "data_file=" + data, top, "4M");
    List<String> theirs;
    try (var _ = new Holder("-f", "qcow2", top)) {
      theirs = locks(data);
      assertThatThrownBy(() -> open(data, "raw", OpenOptions.readWrite()))
          .isInstanceOf(ImageBusyException.class);
    }
    Tool qemuIo = Tool.require("qemu-io");
    try (BlockNode node = open(top, "qcow2", OpenOptions.readWrite())) {
      // qemu: 7.2 lets others write to a data file; we do not
      assertThat(locks(data)).containsAll(theirs).contains("201");
      assertThat(qemuIo.run("-f", "raw", "-c", "write 0 512", data).text()).contains("lock");
      node.reopen(true);
      assertThat(locks(data)).doesNotContain("101");
      node.reopen(false);
      node.write(0, java.nio.ByteBuffer.wrap(new byte[] {1}));
      assertThat(locks(data)).containsAll(theirs);
    }
    qemuIo.ok("-f", "qcow2", "-c", "read -P 1 0 1", top);
  }
}
