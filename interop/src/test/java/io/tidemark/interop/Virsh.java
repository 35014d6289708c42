// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/// The distribution's virsh, connected to one daemon.
final class Virsh {
  /// How long one call may take: a copy that is waited for, on a busy machine.
  private static final Duration LIMIT = Duration.ofMinutes(3);

  private final String uri;
  private final boolean readOnly;

  Virsh(TidemarkProcess daemon) {
    this(daemon.uri(), false);
  }

  Virsh(String uri, boolean readOnly) {
    this.uri = uri;
    this.readOnly = readOnly;
  }

  static Virsh readOnly(TidemarkProcess daemon) {
    return new Virsh(daemon.readOnlyUri(), true);
  }

  /// Runs it, whatever its end. Without virsh the test ends here, as [Tool#require] says.
  Tool.Result run(Object... words) {
    return Tool.require("virsh").timeout(LIMIT).run(arguments(words));
  }

  /// Runs it, fails the test unless it ends well, and returns what it printed.
  String ok(Object... words) {
    return Tool.require("virsh").timeout(LIMIT).ok(arguments(words)).out();
  }

  /// Starts it, for calls that wait: the caller reads its streams and ends it.
  Process start(Object... words) throws IOException {
    return Tool.require("virsh").start(arguments(words));
  }

  private Object[] arguments(Object... words) {
    List<Object> all = new ArrayList<>(List.of("-q", "-c", uri));
    if (readOnly) {
      all.add("-r");
    }
    all.addAll(List.of(words));
    return all.toArray();
  }
}
