// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.domain.spi.DriverException;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class GuestSocketTest {
  private static final EngineConfig CONFIG =
      EngineConfig.of(Path.of("/run/tidemark"), Path.of("/var/tmp"));

  @ParameterizedTest
  @CsvSource({
    "vm,vm",
    "web-1_a+b.example,web-1_a+b.example",
    "a/b,a%2Fb",
    "a%2Fb,a%252Fb",
    "..,%2E.",
    ".hidden,%2Ehidden",
    "two words,two%20words",
    "ü,%C3%BC"
  })
  void escapesWhatAFileNameMustNotHold(String name, String escaped) {
    assertThat(GuestSocket.escape(name)).isEqualTo(escaped);
  }

  @Test
  void liesInTheGuestFolderOfTheRunDir() throws DriverException {
    assertThat(GuestSocket.path(CONFIG, "vm")).isEqualTo(Path.of("/run/tidemark/guest/vm.sock"));
  }

  @Test
  void takesTheLongestNameThatFitsASocketAddressAndRefusesTheNext() throws DriverException {
    int room = 107 - "/run/tidemark/guest/.sock".length();
    assertThat(GuestSocket.path(CONFIG, "n".repeat(room)).toString()).hasSize(107);
    assertThatThrownBy(() -> GuestSocket.path(CONFIG, "n".repeat(room + 1)))
        .isInstanceOf(DriverException.class)
        .hasMessageContaining("takes 108 bytes, a socket address holds 107");
  }

  @Test
  void countsBytesNotCharacters() {
    assertThatThrownBy(() -> GuestSocket.path(CONFIG, "ü".repeat(20)))
        .isInstanceOf(DriverException.class)
        .hasMessageContaining("takes 145 bytes");
  }
}
