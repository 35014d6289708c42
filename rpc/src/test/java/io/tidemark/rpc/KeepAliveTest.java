// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

class KeepAliveTest {
  @Test
  void silentPeerGetsFivePingsAndIsGivenUpOneIntervalLater() {
    KeepAlive keepAlive = new KeepAlive(5, 5, 100);
    List<String> seen = new ArrayList<>();
    for (long now = 100; now <= 140; now++) {
      KeepAlive.Action action = keepAlive.tick(now);
      if (action != KeepAlive.Action.NONE) {
        seen.add(now - 100 + " " + action);
      }
      if (action == KeepAlive.Action.GIVE_UP) {
        break;
      }
    }
    assertThat(seen)
        .containsExactly("5 PING", "10 PING", "15 PING", "20 PING", "25 PING", "30 GIVE_UP");
  }

  @Test
  void anyPacketStartsOver() {
    KeepAlive keepAlive = new KeepAlive(5, 1, 0);
    assertThat(keepAlive.tick(5)).isEqualTo(KeepAlive.Action.PING);
    keepAlive.received(9);
    assertThat(keepAlive.tick(13)).isEqualTo(KeepAlive.Action.NONE);
    assertThat(keepAlive.tick(14)).isEqualTo(KeepAlive.Action.PING);
    assertThat(keepAlive.tick(19)).isEqualTo(KeepAlive.Action.GIVE_UP);
  }
}
