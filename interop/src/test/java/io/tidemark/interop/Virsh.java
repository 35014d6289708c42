// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import java.util.ArrayList;
import java.util.List;

/// The distribution's virsh, connected to one daemon.
final class Virsh {
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

  /// A virsh call, to be run or changed further.
  Command command(Object... words) {
    List<Object> all = new ArrayList<>(List.of("virsh", "-q", "-c", uri));
    if (readOnly) {
      all.add("-r");
    }
    all.addAll(List.of(words));
    return Command.of(all.toArray());
  }

  /// Runs it, whatever its end.
  Command.Result run(Object... words) {
    return command(words).run();
  }

  /// Runs it, fails the test unless it ends well, and returns what it printed.
  String ok(Object... words) {
    return command(words).ok().out();
  }
}
