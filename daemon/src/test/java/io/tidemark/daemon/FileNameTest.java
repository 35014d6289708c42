// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.util.HashSet;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class FileNameTest {
  @ParameterizedTest
  @CsvSource({
    "vm, vm.xml",
    "a.b-c_d, a.b-c_d.xml",
    "a/b, a%2fb.xml",
    ".., %2e..xml",
    ".tmp-1, %2etmp-1.xml",
    "100%, 100%25.xml",
    "zwölf, zw%c3%b6lf.xml",
    "a b, a%20b.xml",
  })
  void escapesWhatIsNotPlain(String name, String file) throws IOException {
    assertThat(FileName.of(name, ".xml")).isEqualTo(file);
    assertThat(FileName.parse(file, ".xml")).isEqualTo(name);
  }

  @Test
  void everyNameComesBackAndNoTwoShareAFile() throws IOException {
    Random random = new Random(5);
    Set<String> names = new HashSet<>();
    Set<String> files = new HashSet<>();
    for (int i = 0; i < 2_000; i++) {
      StringBuilder name = new StringBuilder();
      for (int length = 1 + random.nextInt(6); length > 0; length--) {
        name.append("a.%/2fe\u00f6\n\u20ac ".charAt(random.nextInt(11)));
      }
      names.add(name.toString());
      String file = FileName.of(name.toString(), ".xml");
      files.add(file);
      assertThat(file).doesNotContain("/").doesNotStartWith(".");
      assertThat(FileName.parse(file, ".xml")).isEqualTo(name.toString());
    }
    assertThat(files).hasSameSizeAs(names);
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "%.xml", "%2.xml", "%zz.xml", "%2F.xml", "%61.xml", "a b.xml", ".a.xml", "%ff.xml", ".xml"
      })
  void refusesFilesThatNoNameGives(String file) {
    assertThatThrownBy(() -> FileName.parse(file, ".xml")).isInstanceOf(IOException.class);
  }

  @Test
  void refusesNamesTooLongForAFile() throws IOException {
    assertThat(FileName.of("x".repeat(251), ".xml")).hasSize(255);
    assertThatThrownBy(() -> FileName.of("x".repeat(252), ".xml"))
        .hasMessageContaining("at most 255");
    assertThatThrownBy(() -> FileName.of("", ".xml")).isInstanceOf(IOException.class);
  }
}
