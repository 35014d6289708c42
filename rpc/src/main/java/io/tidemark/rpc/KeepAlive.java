// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

/// When to ping a silent peer and when to give it up, as libvirtd does: a ping after each interval
/// without any packet, at most `count` of them, the end one interval after the last.
///
/// Times are nanoseconds of one clock. Not safe for several threads.
final class KeepAlive {
  enum Action {
    NONE,
    PING,
    GIVE_UP
  }

  private final long interval;
  private final int count;
  private long last;
  private int pings;

  KeepAlive(long interval, int count, long now) {
    this.interval = interval;
    this.count = count;
    this.last = now;
  }

  /// A packet came: whatever it was, the peer lives.
  void received(long now) {
    last = now;
    pings = 0;
  }

  Action tick(long now) {
    if (now - last < interval) {
      return Action.NONE;
    }
    last = now;
    if (pings == count) {
      return Action.GIVE_UP;
    }
    pings++;
    return Action.PING;
  }
}
