// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;

class DaemonCommandTest {
  @Test
  void rootKeepsStateInTheSystemsFolders() throws CommandException {
    assertThat(DaemonCommand.stateDir(true, Map.of())).isEqualTo(Path.of("/var/lib/tidemark"));
    assertThat(DaemonCommand.runDir(true, Map.of("XDG_RUNTIME_DIR", "/x")))
        .isEqualTo(Path.of("/run/tidemark"));
  }

  @Test
  void otherUsersKeepItInTheirOwn() throws CommandException {
    assertThat(DaemonCommand.stateDir(false, Map.of("XDG_STATE_HOME", "/s", "HOME", "/h")))
        .isEqualTo(Path.of("/s/tidemark"));
    assertThat(DaemonCommand.stateDir(false, Map.of("XDG_STATE_HOME", "relative", "HOME", "/h")))
        .isEqualTo(Path.of("/h/.local/state/tidemark"));
    assertThat(DaemonCommand.runDir(false, Map.of("XDG_RUNTIME_DIR", "/run/user/7")))
        .isEqualTo(Path.of("/run/user/7/tidemark"));
  }

  @Test
  void withoutAFolderItSaysWhichOptionToGive() {
    assertThatThrownBy(() -> DaemonCommand.runDir(false, Map.of()))
        .hasMessageContaining("--run-dir");
    assertThatThrownBy(() -> DaemonCommand.stateDir(false, Map.of()))
        .hasMessageContaining("--state-dir");
  }
}
