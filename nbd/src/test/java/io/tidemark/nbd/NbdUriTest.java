// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.UnsupportedImageException;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class NbdUriTest {
  @Test
  void readsTcpForms() throws Exception {
    assertThat(NbdUri.parse("nbd://localhost")).isEqualTo(NbdUri.tcp("localhost", 10809, ""));
    assertThat(NbdUri.parse("nbd://127.0.0.1:1234/vda"))
        .isEqualTo(NbdUri.tcp("127.0.0.1", 1234, "vda"));
    assertThat(NbdUri.parse("NBD://[::1]:99/a/b")).isEqualTo(NbdUri.tcp("::1", 99, "a/b"));
    assertThat(NbdUri.parse("nbd://[::1]/")).isEqualTo(NbdUri.tcp("::1", 10809, ""));
  }

  @Test
  void readsUnixForms() throws Exception {
    assertThat(NbdUri.parse("nbd+unix:///vda?socket=/run/t/a.sock"))
        .isEqualTo(NbdUri.unix(Path.of("/run/t/a.sock"), "vda"));
    assertThat(NbdUri.parse("nbd+unix://?socket=/s")).isEqualTo(NbdUri.unix(Path.of("/s"), ""));
    assertThat(NbdUri.parse("nbd+unix:///%C3%A9%2F%3F?x=1&socket=/a%20b"))
        .isEqualTo(NbdUri.unix(Path.of("/a b"), "é/?"));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "nbd+vsock://2/x",
        "nbd+vsock:///x",
        "http://host/",
        "",
        "nbd",
        "nbd+unix:///x",
        "nbd+unix:///x?sock=/s",
        "nbd+unix://host/x?socket=/s",
        "nbd://host:99999/x",
        "nbd://host:-1/x",
        "nbd://host/%zz",
        "nbd://host/%4",
        "nbd://host/%ff",
        "nbd+unix:///x?socket=%00"
      })
  void refusesWhatItCannotReach(String text) {
    assertThatThrownBy(() -> NbdUri.parse(text))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageStartingWith(text + ": ");
  }

  @Test
  void refusesNamesLongerThanTheProtocolAllows() {
    assertThatThrownBy(() -> NbdUri.parse("nbd://h/" + "x".repeat(4097)))
        .hasMessageContaining("4096");
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "vda", "a b", "é/ü", "%41", "a?b&socket=c", "\"<>#"})
  void printsWhatItReads(String export) throws Exception {
    NbdUri unix = NbdUri.unix(Path.of("/run/a b/ü.sock"), export);
    NbdUri tcp = NbdUri.tcp("::1", 1, export);

    assertThat(NbdUri.parse(unix.toString())).isEqualTo(unix);
    assertThat(NbdUri.parse(tcp.toString())).isEqualTo(tcp);
  }

  @Test
  void knowsItsOwnFromPaths() {
    assertThat(NbdUri.matches("nbd+unix:///x?socket=/s")).isTrue();
    assertThat(NbdUri.matches("nbds://h")).isTrue();
    assertThat(NbdUri.matches("/images/nbd.qcow2")).isFalse();
  }
}
