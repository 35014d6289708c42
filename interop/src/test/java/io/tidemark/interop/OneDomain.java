// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/// One domain on a daemon of its own: where most tests of jobs and backups begin. Daemon, domain
/// and guest end with it.
final class OneDomain implements AutoCloseable {
  private final String name;
  private final Path folder;
  private final List<String> disks;
  private final TidemarkProcess daemon;
  private final Virsh virsh;
  private @Nullable ProvingGuest guest; // once a test began one

  private OneDomain(String name, Path folder, List<String> disks, TidemarkProcess daemon) {
    this.name = name;
    this.folder = folder;
    this.disks = disks;
    this.daemon = daemon;
    this.virsh = new Virsh(daemon);
  }

  /// What it is to be.
  static final class Wanted {
    private final Path folder;
    private final String name;
    private final Map<String, String> disks = new LinkedHashMap<>();
    private String[] options = {};
    private boolean persistent = true;

    private Wanted(Path folder, String name) {
      this.folder = folder;
      this.name = name;
    }

    /// A new disk of that size in the test's folder: `TARGET.qcow2`.
    Wanted newDisk(String target, String size) {
      return disk(target, newImage(folder, target, size));
    }

    /// The qcow2 image as a disk.
    Wanted disk(String target, Path image) {
      return disk(target, image, "");
    }

    /// @param driver attributes of its `<driver>`
    Wanted disk(String target, Path image, String driver) {
      disks.put(target, OneDomain.disk(target, image, driver));
      return this;
    }

    /// Options of the daemon.
    Wanted options(String... words) {
      options = words;
      return this;
    }

    Wanted transientOne() {
      persistent = false;
      return this;
    }

    /// Starts the daemon in a folder `tidemark` of the test's, and the domain on it.
    OneDomain start() throws IOException {
      return startOn(TidemarkProcess.daemon(folder.resolve("tidemark"), options));
    }

    /// Starts the domain on a daemon that is then its own.
    OneDomain startOn(TidemarkProcess daemon) throws IOException {
      var domain = new OneDomain(name, folder, List.copyOf(disks.keySet()), daemon);
      try {
        Path file = document(folder, name, String.join("", disks.values()));
        if (persistent) {
          domain.virsh.ok("define", file);
          domain.virsh.ok("start", name);
        } else {
          domain.virsh.ok("create", file);
        }
        return domain;
      } catch (IOException | RuntimeException | Error e) {
        daemon.close();
        throw e;
      }
    }
  }

  /// Without virsh or qemu-img the test ends here, as [Tool#require] says.
  ///
  /// @param folder the test's: daemon, images and documents lie there
  static Wanted in(Path folder, String name) {
    Tool.require("virsh");
    Tool.require("qemu-img");
    return new Wanted(folder, name);
  }

  /// `NAME.qcow2` in the folder.
  static Path newImage(Path folder, String name, String size) {
    Path image = folder.resolve(name + ".qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", image, size);
    return image;
  }

  /// A definition, as a file in `folder`.
  static Path document(Path folder, String name, String disks) throws IOException {
    return Files.writeString(
        folder.resolve(name + ".xml"),
        """
        <domain type='tidemark'>
          <name>%s</name>
          <memory unit='MiB'>16</memory>
          <os><type>hvm</type></os>
          <devices>%s</devices>
        </domain>
        """
            .formatted(name, disks));
  }

  /// The element of a disk that is a qcow2 image.
  ///
  /// @param driver attributes of its `<driver>`
  static String disk(String target, Path image, String driver) {
    return """
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' %s/>
      <source file='%s'/>
      <target dev='%s' bus='virtio'/>
    </disk>
    """
        .formatted(driver, image, target);
  }

  String name() {
    return name;
  }

  TidemarkProcess daemon() {
    return daemon;
  }

  Virsh virsh() {
    return virsh;
  }

  DomainBackups backups() {
    return new DomainBackups(virsh, name, folder);
  }

  Path guestSocket() {
    return daemon.guestSocket(name);
  }

  /// Where any NBD client reaches a disk.
  String uri(String disk) {
    return "nbd+unix:///" + disk + "?socket=" + guestSocket();
  }

  /// Runs one command of qemu-io on a disk, as its guest, and fails the test unless it succeeds.
  void io(String disk, String command) {
    Tool.require("qemu-io").ok("-f", "raw", "-c", command, uri(disk));
  }

  /// Begins a guest that writes all disks.
  ProvingGuest beginGuest(long seed) throws IOException {
    guest = new ProvingGuest(guestSocket(), disks, folder.resolve("proof"), seed);
    return guest;
  }

  /// The guest that was begun.
  ProvingGuest guest() {
    return Objects.requireNonNull(guest);
  }

  /// Kill -9 of the daemon, and another one.
  void killAndStart() throws IOException {
    daemon.kill();
    daemon.start();
  }

  /// The file that the disk stands on now.
  Path source(String disk) {
    String line =
        virsh
            .ok("domblklist", name)
            .lines()
            .filter(each -> each.strip().startsWith(disk))
            .findFirst()
            .orElseThrow();
    return Path.of(line.strip().split("\\s+", 2)[1]);
  }

  /// Ends the guest, then the domain.
  void end() throws IOException {
    if (guest != null) {
      guest.close();
    }
    virsh.ok("destroy", name);
  }

  @Override
  public void close() throws IOException {
    try (daemon) {
      if (guest != null) {
        guest.close();
      }
    }
  }
}
