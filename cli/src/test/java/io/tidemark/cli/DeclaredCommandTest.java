// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import picocli.CommandLine;
import picocli.CommandLine.ParameterException;

class DeclaredCommandTest {
  private final List<Object> set = new ArrayList<>();
  private final DeclaredCommand declared =
      new DeclaredCommand("try", (Runnable) () -> {}, "Tries.");

  private void parse(String... words) {
    new CommandLine(declared.spec()).setOverwrittenOptionsAllowed(true).parseArgs(words);
  }

  @Test
  void setsNothingThatIsNotGiven() {
    declared.flag("a flag", set::add, "-a");
    declared.option(Integer.class, "N", "a number", set::add, "-n");
    declared.options("X", "a list", set::add, "-x");
    declared.words("W", "words", set::add);
    parse();
    assertThat(set).isEmpty();
  }

  @Test
  void theLastValueCounts() {
    declared.option(Integer.class, "N", "a number", set::add, "-n", "--number");
    parse("-n", "1", "--number=2");
    assertThat(set.getLast()).isEqualTo(2);
  }

  @Test
  void flagTakesAValueWhenOneIsAttached() {
    declared.flag("a flag", set::add, "-a", "--all");
    parse("-a");
    assertThat(set).containsExactly(true);
    parse("--all=false");
    assertThat(set.getLast()).isEqualTo(false);
  }

  @Test
  void listsHoldAllThatWasGiven() {
    declared.options("X", "a list", set::add, "-x");
    parse("-x", "one", "-x", "two");
    assertThat(set.getLast()).isEqualTo(List.of("one", "two"));
  }

  @Test
  void wordsAreThoseThatAreNoOptions() {
    declared.flag("a flag", _ -> {}, "-a");
    declared.words("W", "words", set::add);
    parse("one", "-a", "two");
    assertThat(set.getLast()).isEqualTo(List.of("one", "two"));
  }

  @Test
  void refusesWhatIsNotOfItsType() {
    declared.option(Integer.class, "N", "a number", set::add, "-n");
    assertThatThrownBy(() -> parse("-n", "many"))
        .isInstanceOf(ParameterException.class)
        .hasMessage("Invalid value for option '-n': 'many' is not an int");
  }

  @Test
  void helpShowsAllButHiddenOptions() {
    declared.option(Integer.class, "N", "a number", set::add, "-n");
    declared.hidden("X", _ -> {}, "--secret");
    var help = new StringWriter();
    new CommandLine(declared.spec()).usage(new PrintWriter(help));
    assertThat(help.toString())
        .isEqualTo(
            """
            Usage: try [-hV] [-n=N]
            Tries.
              -h, --help      Show this help message and exit.
              -n=N            a number
              -V, --version   Print version information and exit.
            """);
  }
}
