// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.io.PrintWriter;
import java.util.Locale;

/// The line ` (12.34/100%)` that grows in place, as qemu-img draws it. Used by one thread at a
/// time.
final class Progress {
  private final PrintWriter out;
  private final boolean shown;
  private final double step;
  private double last = -1;

  /// @param shown whether `-p` was given
  /// @param step percent between two lines
  Progress(PrintWriter out, boolean shown, double step) {
    this.out = out;
    this.shown = shown;
    this.step = step;
    update(0, 1);
  }

  void update(long done, long total) {
    if (!shown) {
      return;
    }
    double percent = total == 0 ? 100 : 100.0 * done / total;
    if (last < 0 || percent >= last + step || (percent >= 100 && last < 100)) {
      last = percent;
      out.print(String.format(Locale.ROOT, "    (%3.2f/100%%)\r", percent));
      out.flush();
    }
  }

  /// Leaves the line, also when the work failed.
  void end() {
    if (shown) {
      out.println();
    }
  }
}
