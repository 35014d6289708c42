// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.time.Duration;
import java.util.concurrent.locks.LockSupport;

/// What the tests share that kill a daemon at a random moment.
final class Kills {
  private Kills() {}

  /// Waits for a thread that the kill ends.
  static void join(Thread thread) {
    try {
      assertThat(thread.join(Duration.ofMinutes(1))).isTrue();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /// Lets a random time pass before the kill: the moment itself is what is chosen, nothing is
  /// waited for.
  static void pauseMillis(int millis) {
    long end = System.nanoTime() + Duration.ofMillis(millis).toNanos();
    for (long left = end - System.nanoTime(); left > 0; left = end - System.nanoTime()) {
      LockSupport.parkNanos(left);
    }
  }

  /// Pivots a copy or an active commit of vda as soon as it is ready, until the kill takes the
  /// daemon away; its errors are what is expected then.
  static void pivotWhenReady(Virsh virsh, String domain) {
    while (virsh.run("blockjob", domain, "vda", "--info").exit() == 0) {
      if (virsh.run("blockjob", domain, "vda", "--pivot").exit() == 0) {
        return;
      }
    }
  }
}
