// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// What must be refused, asked for by python3-libvirt, and each refusal's number, domain and text.
///
/// `refusals.txt` has the numbers and domains that libvirtd 9.0.0 gives for the same program with
/// type `qemu`; where its text is QEMU's or libxml's, ours stands. The program also looks that
/// nothing was changed.
@Tag("interop")
class RefusalsIT {
  private static final Path RESOURCES = Root.path().resolve("interop/src/test/resources");

  @TempDir Path folder;

  @Test
  void eachIsRefusedAsLibvirtDoesAndChangesNothing() throws IOException {
    Tool.require("qemu-img");
    Tool.require("virsh"); // and with it python3-libvirt, for the distribution's own Python
    Tool python = Tool.at(Path.of("/usr/bin/python3"));
    Path images = Files.createDirectory(folder.resolve("images"));
    try (TidemarkProcess daemon = TidemarkProcess.daemon(folder.resolve("tidemark"))) {
      String said =
          python.ok(RESOURCES.resolve("refusals.py"), daemon.uri(), "tidemark", images).out();
      assertThat(normal(said, images))
          .isEqualTo(Files.readString(RESOURCES.resolve("refusals.txt")));
    }
  }

  private static String normal(String said, Path images) {
    return said.replace(images.toString(), "$DIR")
        .replaceAll("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "\\$UUID")
        .replaceAll("(?m) +$", "");
  }
}
