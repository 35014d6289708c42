// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.Optional;

/// A point of a domain's life that is remembered, with the one it came after: a checkpoint or a
/// snapshot.
interface Moment {
  String name();

  /// Empty for a root.
  Optional<String> parent();

  /// Seconds since the epoch.
  long creationTime();
}
