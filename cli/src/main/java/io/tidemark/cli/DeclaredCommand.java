// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.util.List;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.IGetter;
import picocli.CommandLine.Model.ISetter;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.PositionalParamSpec;

/// A command that is told to picocli by calls.
///
/// The other commands carry annotations. To read those, the JVM writes classes anew at each start,
/// which took a third of the time until `export serve` listened; so the commands on the way there
/// are declared here. What a user sees is the same.
final class DeclaredCommand {
  private final CommandSpec spec;

  /// With `--help` and `--version`, as `mixinStandardHelpOptions` adds them.
  ///
  /// @param command a `Runnable` or `Callable<Integer>`
  DeclaredCommand(String name, Object command, String... description) {
    spec = CommandSpec.wrapWithoutInspection(command).name(name);
    spec.exitCodeOnInvalidInput(Tidemark.USAGE);
    spec.usageMessage().description(description);
    spec.addOption(
        OptionSpec.builder("-h", "--help")
            .type(boolean.class)
            .usageHelp(true)
            .description("Show this help message and exit.")
            .build());
    spec.addOption(
        OptionSpec.builder("-V", "--version")
            .type(boolean.class)
            .versionHelp(true)
            .description("Print version information and exit.")
            .build());
  }

  /// With commands beneath.
  DeclaredCommand withCommands() {
    spec.usageMessage().synopsisSubcommandLabel("COMMAND");
    return this;
  }

  CommandSpec spec() {
    return spec;
  }

  /// An option without a value.
  void flag(String description, Consumer<Boolean> into, String... names) {
    add(
        OptionSpec.builder(names).type(boolean.class).description(description),
        Boolean.class,
        into);
  }

  /// An option with a value; the last one counts.
  <V> void option(
      Class<V> type, String label, String description, Consumer<V> into, String... names) {
    add(
        OptionSpec.builder(names).type(type).paramLabel(label).description(description),
        type,
        into);
  }

  /// An option that no help shows.
  void hidden(String label, Consumer<String> into, String name) {
    add(
        OptionSpec.builder(name).type(String.class).paramLabel(label).hidden(true),
        String.class,
        into);
  }

  private <V> void add(OptionSpec.Builder option, Class<V> type, Consumer<V> into) {
    var place = new Place(value -> into.accept(type.cast(value)));
    spec.addOption(option.getter(place).setter(place).build());
  }

  /// An option that may be given several times.
  void options(String label, String description, Consumer<List<String>> into, String... names) {
    var place = new Place(value -> into.accept(texts(value)));
    spec.addOption(
        OptionSpec.builder(names)
            .type(List.class)
            .auxiliaryTypes(String.class)
            .paramLabel(label)
            .description(description)
            .getter(place)
            .setter(place)
            .build());
  }

  /// The words that are no options, any number of them.
  void words(String label, String description, Consumer<List<String>> into) {
    var place = new Place(value -> into.accept(texts(value)));
    spec.addPositional(
        PositionalParamSpec.builder()
            .type(List.class)
            .auxiliaryTypes(String.class)
            .arity("0..*")
            .paramLabel(label)
            .description(description)
            .getter(place)
            .setter(place)
            .build());
  }

  private static List<String> texts(Object values) {
    return ((List<?>) values).stream().map(String.class::cast).toList();
  }

  /// Where a value goes. picocli reads it back, to add to a list.
  private static final class Place implements IGetter, ISetter {
    private final Consumer<Object> into;
    private @Nullable Object value; // null until one is given

    Place(Consumer<Object> into) {
      this.into = into;
    }

    @Override
    @SuppressWarnings({"unchecked", "TypeParameterUnusedInFormals"}) // picocli's signature
    public <T> @Nullable T get() {
      return (T) value;
    }

    @Override
    @SuppressWarnings("unchecked") // as above
    public <T> @Nullable T set(@Nullable T next) {
      T before = (T) value;
      value = next;
      if (next != null) {
        into.accept(next);
      }
      return before;
    }
  }
}
