// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HexFormat;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A real QEMU, its CPU emulated, boots from a domain's disk over NBD and works on it.
///
/// The guest is one boot sector. It greets on QEMU's debug console, then for n = 0, 1, ... writes n
/// into the sector `FIRST + n % SECTORS` through the BIOS, reads it back, compares, and says `.`;
/// whatever goes wrong makes it say `E` and stop.
@Tag("interop")
class GuestBootIT {
  private static final String GREETING = "booted over NBD\n";
  private static final int FIRST = 2048;
  private static final int SECTORS = 1024;
  private static final int SECTOR = 512;
  private static final int MIB = 1 << 20;

  /// Where the program below keeps things, from the start of the boot sector (at 0x7c00).
  private static final int PACKET = 0x110;

  private static final int TEXT = 0x120;
  private static final int SIGNATURE = 510;

  /// 16-bit code; n is at 0x7d00, the disk address packet at 0x7d10, the BIOS's drive at 0x7e00,
  /// the sector to write at 0x8000, the sector read at 0x8200.
  private static final String PROGRAM =
      """
      31c0         xor  ax, ax
      8ed8         mov  ds, ax
      8ed0         mov  ss, ax
      bc007c       mov  sp, 0x7c00
      fc           cld
      8816007e     mov  [0x7e00], dl
      be207d       mov  si, 0x7d20
      ac        1: lodsb
      84c0         test al, al
      7404         jz   2
      e6e9         out  0xe9, al
      ebf7         jmp  1
      66a1007d  2: mov  eax, [0x7d00]
      66a30080     mov  [0x8000], eax
      6625ff030000 and  eax, 1023
      660500080000 add  eax, 2048
      66a3187d     mov  [0x7d18], eax
      c606157d80   mov  byte [0x7d15], 0x80
      b443         mov  ah, 0x43
      e82700       call 4
      c606157d82   mov  byte [0x7d15], 0x82
      b442         mov  ah, 0x42
      e81d00       call 4
      66a10082     mov  eax, [0x8200]
      663b06007d   cmp  eax, [0x7d00]
      750b         jne  3
      66ff06007d   inc  dword [0x7d00]
      b02e         mov  al, '.'
      e6e9         out  0xe9, al
      ebbe         jmp  2
      b045      3: mov  al, 'E'
      e6e9         out  0xe9, al
      f4           hlt
      ebf9         jmp  3
      b000      4: mov  al, 0
      be107d       mov  si, 0x7d10
      8a16007e     mov  dl, [0x7e00]
      cd13         int  0x13
      72ec         jc   3
      c3           ret
      """;

  @TempDir Path folder;
  private Path disk;
  private Path console;
  private OneDomain domain;
  private Virsh virsh;
  private Process guest;

  @BeforeEach
  void boot() throws IOException {
    Tool qemu = Tool.require("qemu-system-x86_64");
    Tool.require("virsh");
    Path raw = folder.resolve("boot.raw");
    Files.write(raw, bootSector());
    try (var file = new java.io.RandomAccessFile(raw.toFile(), "rw")) {
      file.setLength(16 * MIB);
    }
    disk = folder.resolve("disk.qcow2");
    Tool.require("qemu-img").ok("convert", "-f", "raw", "-O", "qcow2", raw, disk);
    domain = OneDomain.in(folder, "booted").disk("vda", disk).start();
    virsh = domain.virsh();
    console = folder.resolve("console");
    Path log = folder.resolve("qemu.log");
    guest =
        new ProcessBuilder(
                qemu.program().toString(),
                "-M",
                "pc,accel=tcg",
                "-m",
                "16",
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-debugcon",
                "file:" + console,
                "-drive",
                "driver=nbd,server.type=unix,server.path="
                    + domain.guestSocket()
                    + ",export=vda,reconnect-delay=60,if=none,id=d0",
                "-device",
                "virtio-blk-pci,drive=d0,bootindex=0")
            .redirectErrorStream(true)
            .redirectOutput(log.toFile())
            .start();
    guest.getOutputStream().close();
  }

  @AfterEach
  void stop() throws IOException {
    if (guest != null) {
      guest.destroyForcibly();
    }
    if (domain != null) {
      domain.close();
    }
  }

  @Test
  void guestWorksOnThroughPivotAndKilledDaemon() throws IOException {
    awaitSteps(50);
    assertThat(said()).startsWith(GREETING);

    Path copy = folder.resolve("copy.qcow2");
    virsh.ok("blockcopy", "booted", "vda", copy, "--transient-job", "--wait", "--pivot");
    awaitSteps(50);
    assertThat(virsh.ok("domblklist", "booted")).contains(copy.toString());

    domain.killAndStart();
    awaitSteps(50);

    Path backup = folder.resolve("backup.qcow2");
    DomainBackups backups = domain.backups();
    backups.begin(DomainBackups.Request.push(Map.of("vda", backup)));
    backups.awaitCompleted();
    awaitSteps(50);

    endGuest();
    long steps = steps();
    virsh.ok("destroy", "booted");
    Tool img = Tool.require("qemu-img");
    assertThat(img.run("check", "-q", copy).exit()).as("0 clean, 3 leaks only").isIn(0, 3);
    assertHolds(copy, steps);
    img.ok("check", "-q", backup);
    assertThat(image(backup).slice(0, SECTOR)).isEqualTo(ByteBuffer.wrap(bootSector()));
  }

  /// Every sector has the last n that the guest wrote there; the one in flight may be there.
  private void assertHolds(Path image, long steps) throws IOException {
    ByteBuffer bytes = image(image).order(ByteOrder.LITTLE_ENDIAN);
    for (long n = Math.max(0, steps - SECTORS + 1); n < steps; n++) {
      int sector = FIRST + (int) (n % SECTORS);
      assertThat(bytes.getInt(sector * SECTOR)).as("sector %d of %s", sector, image).isEqualTo(n);
    }
  }

  private ByteBuffer image(Path image) throws IOException {
    Path raw = folder.resolve("judged.raw");
    Tool.require("qemu-img").ok("convert", "-f", "qcow2", "-O", "raw", image, raw);
    return ByteBuffer.wrap(Files.readAllBytes(raw));
  }

  /// Waits until the guest has done so many more steps.
  private void awaitSteps(long more) throws IOException {
    long from = steps();
    Patience.await()
        .atMost(Duration.ofSeconds(60))
        .pollInterval(Duration.ofMillis(50))
        .until(() -> said().contains("E") || !guest.isAlive() || steps() >= from + more);
    assertThat(said().chars().filter(c -> c == 'E')).as("errors that the guest met").isEmpty();
    assertThat(guest.isAlive())
        .as("QEMU runs: %s", Files.readString(folder.resolve("qemu.log")))
        .isTrue();
  }

  private void endGuest() {
    guest.destroy();
    try {
      assertThat(guest.waitFor(30, TimeUnit.SECONDS)).as("QEMU ended").isTrue();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private String said() throws IOException {
    return Files.exists(console) ? Files.readString(console, StandardCharsets.ISO_8859_1) : "";
  }

  private long steps() throws IOException {
    return said().chars().filter(c -> c == '.').count();
  }

  private static byte[] bootSector() {
    ByteBuffer sector = ByteBuffer.allocate(SECTOR).order(ByteOrder.LITTLE_ENDIAN);
    PROGRAM
        .lines()
        .map(line -> line.substring(0, line.indexOf(' ')))
        .forEach(code -> sector.put(HexFormat.of().parseHex(code)));
    // Packet: its size, sectors, offset and segment of the buffer, then the sector number.
    sector.position(PACKET);
    sector.putShort((short) 16).putShort((short) 1).putShort((short) 0x8000).putShort((short) 0);
    sector.position(TEXT);
    sector.put(GREETING.getBytes(StandardCharsets.US_ASCII));
    sector.putShort(SIGNATURE, (short) 0xaa55);
    return sector.array();
  }
}
