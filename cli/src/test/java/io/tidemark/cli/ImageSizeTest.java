// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class ImageSizeTest {
  /// What `qemu-img create -f raw` of 7.2 makes of these.
  @ParameterizedTest
  @CsvSource({
    "0,0",
    "1k,1024",
    "1.5k,1536",
    "0x100,256",
    "1.M,1048576",
    "1.23456G,1325598706",
    "7.9E,9108079886394091136",
    "+5,5",
    "010,10",
    "1b,1",
    "1B,1",
    "9223372036854775807,9223372036854775807"
  })
  void readsSizesAsQemuImg(String text, long bytes) throws CommandException {
    // A double is what qemu-img keeps fractions in: the last bits may differ.
    assertThat((double) ImageSize.parse("size", text)).isEqualTo((double) bytes);
    if (bytes < 1L << 53) {
      assertThat(ImageSize.parse("size", text)).isEqualTo(bytes);
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"", "10x", "-10", "1e3", ".5M", "1KiB", "1 M", "1MB", "1.5", "0x", "0x1k", "M"})
  void refusesWhatQemuImgRefuses(String text) {
    assertThatThrownBy(() -> ImageSize.parse("size", text))
        .isInstanceOf(CommandException.class)
        .hasMessageContaining("size '" + text + "' is not a size");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {"8E", "16E", "9223372036854775808", "0xffffffffffffffff", "99999999999999999999E"})
  void refusesSizesPastSixtyThreeBits(String text) {
    assertThatThrownBy(() -> ImageSize.parse("size", text))
        .isInstanceOf(CommandException.class)
        .hasMessageContaining("is not between 0 and 9223372036854775807");
  }

  /// What `qemu-img info` of 7.2 prints.
  @ParameterizedTest
  @CsvSource({
    "0,0 B",
    "512,512 B",
    "999,999 B",
    "1000,0.977 KiB",
    "1024,1 KiB",
    "1536,1.5 KiB",
    "10240,10 KiB",
    "1023488,1e+03 KiB",
    "1024000,0.977 MiB",
    "1048576,1 MiB",
    "1610612736,1.5 GiB",
    "123457024,118 MiB",
    "1000000000,954 MiB",
    "1073741823,1 GiB",
    "107374182400,100 GiB",
    "5000000000000,4.55 TiB",
    "9223372036854775807,8 EiB"
  })
  void printsSizesAsQemuImg(long bytes, String text) {
    assertThat(ImageSize.human(bytes)).isEqualTo(text);
  }
}
