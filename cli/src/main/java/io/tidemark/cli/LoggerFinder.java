// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.text.MessageFormat;
import java.util.Locale;
import java.util.ResourceBundle;
import java.util.function.IntSupplier;
import org.jspecify.annotations.Nullable;
import org.slf4j.LoggerFactory;

/// Hands log lines to SLF4J, and wakes Logback only for the first line that will be written:
/// reading its configuration takes longer than most commands run.
///
/// Which lines those are is decided here, as `logback.xml` decides it: by TIDEMARK_LOG, else by the
/// property `tidemark.log.level`, else WARN. With another configuration
/// (`logback.configurationFile`) Logback decides alone.
public final class LoggerFinder extends System.LoggerFinder {
  /// The level from which on a command logs, where the environment does not say it. Set before the
  /// first line is logged.
  static final String LEVEL = "tidemark.log.level";

  @Override
  public System.Logger getLogger(String name, Module module) {
    return new LateLogger(name, () -> Threshold.SEVERITY);
  }

  static System.Logger logger(String name, String level) {
    return new LateLogger(name, () -> Threshold.severity(level));
  }

  /// Read when the first line asks whether it is wanted: by then the command has said its level.
  private static final class Threshold {
    static final int SEVERITY = wanted();

    private static int wanted() {
      if (System.getProperty("logback.configurationFile") != null) {
        return Integer.MIN_VALUE;
      }
      String level = System.getenv("TIDEMARK_LOG");
      if (level == null) {
        level = System.getProperty(LEVEL, "WARN");
      }
      return severity(level);
    }

    static int severity(String level) {
      return switch (level.toUpperCase(Locale.ROOT)) {
        case "OFF" -> Integer.MAX_VALUE;
        case "ERROR" -> System.Logger.Level.ERROR.getSeverity();
        case "WARN" -> System.Logger.Level.WARNING.getSeverity();
        case "INFO" -> System.Logger.Level.INFO.getSeverity();
        case "TRACE", "ALL" -> Integer.MIN_VALUE;
        default ->
            System.Logger.Level.DEBUG.getSeverity(); // Logback reads what it does not know so
      };
    }
  }

  private static final class LateLogger implements System.Logger {
    private final String name;
    private final IntSupplier threshold;
    private volatile org.slf4j.@Nullable Logger made; // null until a line is to be written

    LateLogger(String name, IntSupplier threshold) {
      this.name = name;
      this.threshold = threshold;
    }

    private org.slf4j.Logger target() {
      org.slf4j.Logger target = made;
      if (target == null) {
        target = LoggerFactory.getLogger(name);
        made = target;
      }
      return target;
    }

    @Override
    public String getName() {
      return name;
    }

    @Override
    public boolean isLoggable(System.Logger.Level level) {
      return level != System.Logger.Level.OFF
          && level.getSeverity() >= threshold.getAsInt()
          && target().isEnabledForLevel(slf4j(level));
    }

    @Override
    public void log(
        System.Logger.Level level,
        @Nullable ResourceBundle bundle,
        @Nullable String message,
        @Nullable Throwable thrown) {
      if (isLoggable(level)) {
        var event = target().atLevel(slf4j(level));
        if (thrown != null) {
          event = event.setCause(thrown);
        }
        event.log(localized(bundle, message));
      }
    }

    @Override
    public void log(
        System.Logger.Level level,
        @Nullable ResourceBundle bundle,
        @Nullable String format,
        @Nullable Object @Nullable ... parameters) {
      if (isLoggable(level)) {
        String text = localized(bundle, format);
        if (parameters != null && parameters.length > 0) {
          text = MessageFormat.format(text, parameters);
        }
        target().atLevel(slf4j(level)).log(text);
      }
    }

    private static String localized(@Nullable ResourceBundle bundle, @Nullable String text) {
      if (bundle == null || text == null || !bundle.containsKey(text)) {
        return String.valueOf(text);
      }
      return bundle.getString(text);
    }

    private static org.slf4j.event.Level slf4j(System.Logger.Level level) {
      return switch (level) {
        case ALL, TRACE -> org.slf4j.event.Level.TRACE;
        case DEBUG -> org.slf4j.event.Level.DEBUG;
        case INFO -> org.slf4j.event.Level.INFO;
        case WARNING -> org.slf4j.event.Level.WARN;
        case ERROR, OFF -> org.slf4j.event.Level.ERROR;
      };
    }
  }
}
