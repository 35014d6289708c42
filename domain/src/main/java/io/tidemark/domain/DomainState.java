// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// State with its reason (virDomainState and the reason types), those that occur here.
public enum DomainState {
  RUNNING_BOOTED(1, 1),
  RUNNING_UNPAUSED(1, 5),
  PAUSED_USER(3, 1),
  PAUSED_IO_ERROR(3, 5),
  PAUSED_STARTING_UP(3, 11),
  SHUTOFF_UNKNOWN(5, 0),
  SHUTOFF_SHUTDOWN(5, 1),
  SHUTOFF_DESTROYED(5, 2),
  SHUTOFF_CRASHED(5, 3),
  SHUTOFF_FAILED(5, 6),
  SHUTOFF_FROM_SNAPSHOT(5, 7),
  SHUTOFF_DAEMON(5, 8);

  private final int state;
  private final int reason;

  DomainState(int state, int reason) {
    this.state = state;
    this.reason = reason;
  }

  public int state() {
    return state;
  }

  public int reason() {
    return reason;
  }

  boolean isRunning() {
    return state == 1;
  }

  boolean isPaused() {
    return state == 3;
  }
}
