// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// python3-libvirt, unmodified, through a domain's life, with callbacks for its events: what
/// `lifecycle.py` sees is `lifecycle.txt`, to the order of events.
///
/// libvirtd 9.0.0 gives the same lines with type `qemu`, but for its name in the first and a
/// SHUTDOWN event (6 2) before each STOPPED one (5 1).
@Tag("interop")
class PythonIT {
  private static final Path RESOURCES = Root.path().resolve("interop/src/test/resources");

  @TempDir Path folder;

  @Test
  void seesCallsAndEventsAsLibvirtHasThem() throws IOException {
    Tool img = Tool.require("qemu-img");
    Tool.require("virsh"); // and with it python3-libvirt, for the distribution's own Python
    Path images = Files.createDirectory(folder.resolve("images"));
    Path disk = images.resolve("vda.qcow2");
    img.ok("create", "-q", "-f", "qcow2", disk, "16M");
    Tool.require("qemu-io").ok("-f", "qcow2", "-c", "write -P 7 1M 4M", disk);
    try (TidemarkProcess daemon = TidemarkProcess.daemon(folder.resolve("tidemark"))) {
      String said =
          Tool.at(Path.of("/usr/bin/python3"))
              .timeout(Duration.ofMinutes(3))
              .ok(
                  RESOURCES.resolve("lifecycle.py"),
                  daemon.uri(),
                  daemon.readOnlyUri(),
                  "tidemark",
                  images)
              .out();
      assertThat(said).isEqualTo(Files.readString(RESOURCES.resolve("lifecycle.txt")));
    }
    Path copy = images.resolve("copy.qcow2");
    Path backup = images.resolve("backup.qcow2");
    img.ok("check", "-q", copy);
    img.ok("check", "-q", backup);
    img.ok("compare", "-q", copy, backup);
    img.ok("compare", "-q", disk, backup);
  }
}
