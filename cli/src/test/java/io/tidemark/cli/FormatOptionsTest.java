// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class FormatOptionsTest {
  private static FormatOptions of(String format, String... arguments) throws CommandException {
    FormatOptions options = new FormatOptions("x.img", format);
    options.addAll("x.img", List.of(arguments));
    return options;
  }

  @Test
  void showsDefaultsInQemuImgsOrder() throws CommandException {
    FormatOptions options =
        of(
            "qcow2",
            "backing_file=a.raw,backing_fmt=raw",
            "compat=0.10,size=1.5G,preallocation=metadata");
    assertThat(options.shown())
        .isEqualTo(
            "cluster_size=65536 extended_l2=off preallocation=metadata compression_type=zlib"
                + " size=1610612736 compat=0.10 backing_file=a.raw backing_fmt=raw"
                + " lazy_refcounts=off refcount_bits=16");
  }

  @Test
  void rawShowsOnlyWhatIsGiven() throws CommandException {
    assertThat(of("raw", "size=10M,preallocation=falloc").shown())
        .isEqualTo("size=10485760 preallocation=falloc");
  }

  @Test
  void handsTheFormatSizesInBytesAndNeitherSizeNorBackingFile() throws CommandException {
    FormatOptions options =
        of("qcow2", "cluster_size=128k,size=1G,lazy_refcounts,backing_file=a,backing_fmt=raw");
    assertThat(options.forFormat())
        .isEqualTo(Map.of("cluster_size", "131072", "lazy_refcounts", "on"));
    assertThat(options.size()).contains(1L << 30);
    assertThat(options.backingFile()).contains("a");
    assertThat(options.backingFormat()).contains("raw");
  }

  /// A script that sets them for another host's file system goes on to work.
  @Test
  void takesWishesOfTheFileAndKeepsThemFromTheFormat() throws CommandException {
    FormatOptions options = of("raw", "size=1M,nocow=on,extent_size_hint=2M");
    assertThat(options.shown()).isEqualTo("size=1048576 nocow=on extent_size_hint=2097152");
    assertThat(options.forFormat()).isEmpty();
    assertThatThrownBy(() -> of("qcow2", "nocow=maybe"))
        .hasMessage("x.img: option nocow is 'maybe', wanted on or off");
  }

  @Test
  void doubledCommaIsAComma() throws CommandException {
    assertThat(of("qcow2", "backing_file=a,,b,,,size=1").backingFile()).contains("a,b,");
  }

  @Test
  void laterValueWins() throws CommandException {
    assertThat(of("raw", "size=1k,size=2k").size()).contains(2048L);
  }

  @Test
  void refusesUnknownNamesFormatsAndBackingOfRaw() {
    assertThatThrownBy(() -> of("qcow2", "foo=1"))
        .hasMessage("x.img: format 'qcow2' has no option 'foo'");
    assertThatThrownBy(() -> of("vmdk"))
        .hasMessage("x.img: format 'vmdk' is not known: use raw or qcow2");
    assertThatThrownBy(() -> of("raw", "backing_file=a"))
        .hasMessage("x.img: backing file not supported for format 'raw'");
  }
}
