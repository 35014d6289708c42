// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Runs what the README tells a newcomer to type.
@Tag("interop")
class ReadmeIT {
  private final ScratchFolder folder = new ScratchFolder();

  @BeforeEach
  void standInTheCheckout() throws IOException {
    Files.createSymbolicLink(folder.resolve("tidemark"), Root.launcher());
  }

  @AfterEach
  void removeFolder() {
    folder.close();
  }

  /// The shell block below a heading.
  private static String block(String heading) throws IOException {
    Matcher block =
        Pattern.compile("## " + heading + "\n.*?```sh\n(.*?)```", Pattern.DOTALL)
            .matcher(Files.readString(Root.path().resolve("README.md")));
    assertThat(block.find()).as("README.md has a block below '%s'", heading).isTrue();
    return block.group(1);
  }

  private Tool.Result run(String script) {
    // Job control gives %1 to a script; whatever it started ends with it.
    String guarded = "set -meu\ntrap 'kill %1 2>/dev/null || true; wait' EXIT\n" + script;
    return Tool.require("bash")
        .in(folder.path())
        .with(Root.NO_BUILD, "1")
        .timeout(Duration.ofMinutes(3))
        .ok("-c", guarded);
  }

  @Test
  void imagesInSixtySeconds() throws IOException {
    assertThat(run(block("Images in 60 seconds")).out())
        .contains("Images are identical.", "No errors were found on the image.");
  }

  @Test
  void virshInSixtySeconds() throws IOException {
    Tool.require("virsh");
    Tool.require("nbdinfo");
    Tool.Result result = run(block("virsh in 60 seconds"));
    assertThat(result.out()).contains("ready qemu+unix://", "export-size: 1073741824", "Completed");
    Tool.require("qemu-img")
        .ok("compare", folder.resolve("moved.qcow2"), folder.resolve("full.qcow2"));
    Tool.require("qemu-img").ok("check", folder.resolve("full.qcow2"));
  }
}
