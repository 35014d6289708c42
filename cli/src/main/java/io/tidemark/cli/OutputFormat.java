// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import java.util.Locale;

/// What `--output` asks for.
enum OutputFormat {
  HUMAN,
  JSON;

  /// As it is typed.
  @Override
  public String toString() {
    return name().toLowerCase(Locale.ROOT);
  }
}
