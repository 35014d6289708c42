// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.util.List;
import java.util.Optional;
import java.util.function.Supplier;
import picocli.CommandLine;

/// The commands beneath a command, made only when the command line names them: reading the
/// annotations of all of them takes longer than most of them run.
record Subcommands(List<Subcommand> list) {
  /// One of them.
  ///
  /// @param name as in its `@Command`
  /// @param make makes the object with the annotations
  /// @param beneath what lies beneath it
  record Subcommand(String name, Supplier<Object> make, Subcommands beneath) {
    /// A command with none beneath.
    static Subcommand of(String name, Supplier<Object> make) {
      return new Subcommand(name, make, new Subcommands(List.of()));
    }
  }

  Subcommands {
    list = List.copyOf(list);
  }

  static Subcommands of(Subcommand... list) {
    return new Subcommands(List.of(list));
  }

  /// Adds the one that the first word names, and beneath it the one that the next word names. Adds
  /// all where no word names one: help lists them, and an error suggests one.
  void addTo(CommandLine parent, List<String> words) {
    Optional<Subcommand> named =
        list.stream()
            .filter(one -> !words.isEmpty() && one.name.equals(words.getFirst()))
            .findAny();
    if (named.isPresent()) {
      add(named.get(), parent, words.subList(1, words.size()));
    } else {
      list.forEach(one -> add(one, parent, List.of()));
    }
  }

  private static void add(Subcommand one, CommandLine parent, List<String> words) {
    var command = new CommandLine(one.make.get());
    one.beneath.addTo(command, words);
    parent.addSubcommand(one.name, command);
  }
}
