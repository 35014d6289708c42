// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.io.PrintWriter;
import java.time.Duration;
import java.util.Locale;
import java.util.function.LongSupplier;

/// What the demo shows: a line per step, and under it, while a step runs, its progress. On a
/// terminal one line that is redrawn; elsewhere a plain line now and then.
final class DemoScreen {
  private static final long PLAIN_INTERVAL_NANOS = Duration.ofSeconds(1).toNanos();
  private static final int WIDTH = 24;

  private final PrintWriter out;
  private final boolean terminal;
  private final LongSupplier nanoTime;
  private long lastPlain;
  private int drawn;

  DemoScreen(PrintWriter out, boolean terminal, LongSupplier nanoTime) {
    this.out = out;
    this.terminal = terminal;
    this.nanoTime = nanoTime;
    this.lastPlain = nanoTime.getAsLong();
  }

  /// Whether standard output is a terminal.
  @SuppressWarnings("SystemConsoleNull") // since 25 it is null again where there is no terminal
  static boolean onTerminal() {
    var console = System.console();
    return console != null && console.isTerminal();
  }

  /// A step begins, or something worth keeping happened.
  void line(String text) {
    erase();
    out.println(text);
    out.flush();
    lastPlain = nanoTime.getAsLong();
  }

  /// Where the running step stands.
  ///
  /// @param fraction 0 to 1
  /// @param bytesPerSecond of the job; not shown when it moves nothing
  /// @param guestOperationsPerSecond acknowledged to the guest meanwhile
  void progress(
      String what, double fraction, double bytesPerSecond, double guestOperationsPerSecond) {
    String rate =
        bytesPerSecond > 0
            ? String.format(Locale.ROOT, "%7.1f MiB/s  ", bytesPerSecond / (1024 * 1024))
            : "";
    String figures =
        String.format(
            Locale.ROOT,
            "%3.0f %%  %sguest %,7.0f IOPS",
            fraction * 100,
            rate,
            guestOperationsPerSecond);
    if (terminal) {
      int full = (int) Math.round(fraction * WIDTH);
      String text =
          "    " + what + " [" + "#".repeat(full) + " ".repeat(WIDTH - full) + "] " + figures;
      out.print("\r" + text + " ".repeat(Math.max(0, drawn - text.length())));
      out.flush();
      drawn = text.length();
    } else if (nanoTime.getAsLong() - lastPlain >= PLAIN_INTERVAL_NANOS) {
      out.println("    " + what + " " + figures);
      out.flush();
      lastPlain = nanoTime.getAsLong();
    }
  }

  private void erase() {
    if (drawn > 0) {
      out.print("\r" + " ".repeat(drawn) + "\r");
      drawn = 0;
    }
  }
}
