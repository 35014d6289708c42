// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// A change of a domain's life with its detail (virDomainEventType and its detail types), those
/// that happen here.
public enum Lifecycle {
  DEFINED_ADDED(0, 0),
  DEFINED_UPDATED(0, 1),
  DEFINED_RENAMED(0, 2),
  DEFINED_FROM_SNAPSHOT(0, 3),
  UNDEFINED(1, 0),
  UNDEFINED_RENAMED(1, 1),
  STARTED_BOOTED(2, 0),
  STARTED_FROM_SNAPSHOT(2, 3),
  SUSPENDED_PAUSED(3, 0),
  SUSPENDED_IO_ERROR(3, 2),
  SUSPENDED_FROM_SNAPSHOT(3, 5),
  RESUMED_UNPAUSED(4, 0),
  STOPPED_SHUTDOWN(5, 0),
  STOPPED_DESTROYED(5, 1),
  STOPPED_CRASHED(5, 2),
  STOPPED_FAILED(5, 5),
  STOPPED_FROM_SNAPSHOT(5, 6),
  SHUTDOWN_FINISHED(6, 0),
  SHUTDOWN_HOST(6, 2);

  private final int event;
  private final int detail;

  Lifecycle(int event, int detail) {
    this.event = event;
    this.detail = detail;
  }

  public int event() {
    return event;
  }

  public int detail() {
    return detail;
  }
}
