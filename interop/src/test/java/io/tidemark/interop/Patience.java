// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import java.time.Duration;
import org.awaitility.Awaitility;
import org.awaitility.core.ConditionFactory;

/// Waiting for other programs: as long as a machine with ten times too much to do needs, where
/// nothing says otherwise. A condition that comes true ends the wait at once.
final class Patience {
  static final Duration LIMIT = Duration.ofMinutes(1);

  private Patience() {}

  static ConditionFactory await() {
    return Awaitility.await().atMost(LIMIT);
  }
}
