// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// What every job makes of a disk of which little is data: holes stay holes, zeroes take no space,
/// and what the guest discards meanwhile takes none either. Each image is held against the disk by
/// qemu-img, and its blocks on the host are counted.
@Tag("interop")
class SparseJobsIT {
  private static final int MIB = 1 << 20;

  /// Data of the whole chain, and what tables and file systems add.
  private static final long DATA_BYTES = 2L * MIB;

  private static final long MOST_BYTES = DATA_BYTES + MIB;

  @TempDir Path folder;
  private OneDomain domain;
  private Virsh virsh;
  private Path base;
  private Path top;
  private Path expected;

  @BeforeEach
  void start() throws IOException {
    Tool.require("virsh");
    base = folder.resolve("base.qcow2");
    top = folder.resolve("top.qcow2");
    expected = folder.resolve("expected.raw");
    qemuImg("create", "-q", "-f", "qcow2", base, "256M");
    write(base, "write -P 1 0 1M");
    write(base, "write -z 128M 64M");
    qemuImg("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, top);
    write(top, "write -P 2 64M 1M");
    write(top, "write -z 200M 32M");
    qemuImg("convert", "-O", "raw", top, expected);
    domain = OneDomain.in(folder, "vm").disk("vda", top).transientOne().start();
    virsh = domain.virsh();
  }

  @AfterEach
  void stop() throws IOException {
    domain.close();
  }

  private static void qemuImg(Object... words) {
    Tool.require("qemu-img").ok(words);
  }

  private static void write(Path image, String command) {
    Tool.require("qemu-io").ok("-f", "qcow2", "-c", command, image);
  }

  private void assertSparse(Path image, String format) throws IOException {
    virsh.ok("destroy", "vm");
    qemuImg("compare", "-q", "-f", format, "-F", "raw", image, expected);
    assertThat(takenBytes(image)).isLessThan(MOST_BYTES);
  }

  private static long takenBytes(Path image) throws IOException {
    return Long.parseLong(Tool.require("stat").ok("--format=%b", image).out().strip()) * 512;
  }

  @ParameterizedTest
  @ValueSource(strings = {"raw", "qcow2"})
  void copyOfHolesAndZeroesTakesNoSpace(String format) throws IOException {
    Path copy = folder.resolve("copy");
    virsh.ok("blockcopy", "vm", "vda", copy, "--format", format, "--wait", "--pivot");
    assertSparse(copy, format);
  }

  @Test
  void copyOntoAPreparedImageTakesNoSpaceForZeroes() throws IOException {
    Path copy = folder.resolve("copy.raw");
    qemuImg("create", "-q", "-f", "raw", copy, "256M");
    virsh.ok(
        "blockcopy", "vm", "vda", copy, "--format", "raw", "--reuse-external", "--wait", "--pivot");
    assertSparse(copy, "raw");
  }

  @Test
  void pullOfHolesAndZeroesTakesNoSpace() throws IOException {
    virsh.ok("blockpull", "vm", "vda", "--wait");
    assertSparse(top, "qcow2");
  }

  @Test
  void commitOfHolesAndZeroesTakesNoSpace() throws IOException {
    virsh.ok("blockcommit", "vm", "vda", "--active", "--wait", "--pivot");
    assertSparse(base, "qcow2");
  }

  @ParameterizedTest
  @ValueSource(strings = {"raw", "qcow2"})
  void whatTheGuestDiscardsDuringACopyTakesNoSpaceInIt(String format) throws IOException {
    Path copy = folder.resolve("copy");
    try (NbdClient guest = NbdClient.connect(NbdUri.unix(domain.guestSocket(), "vda"))) {
      fill(guest, 16 * MIB, 32 * MIB);
      virsh.ok("blockcopy", "vm", "vda", copy, "--format", format);
      Patience.await().until(this::ready);
      assertThat(takenBytes(copy)).isGreaterThan(32L * MIB);
      guest.discard(16L * MIB, 32L * MIB);
      guest.flush();
      Patience.await()
          .atMost(Duration.ofSeconds(60))
          .until(() -> virsh.run("blockjob", "vm", "vda", "--pivot").exit() == 0);
    }
    assertSparse(copy, format);
  }

  private boolean ready() {
    return virsh.ok("dumpxml", "vm").contains("ready='yes'");
  }

  private static void fill(NbdClient guest, long offset, int length) throws BlockException {
    ByteBuffer data = ByteBuffer.allocate(MIB);
    while (data.hasRemaining()) {
      data.put((byte) 7);
    }
    for (long at = offset; at < offset + length; at += MIB) {
      guest.write(at, data.rewind());
    }
  }
}
