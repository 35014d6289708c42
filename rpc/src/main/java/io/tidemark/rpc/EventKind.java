// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// Domain events, in the order of virDomainEventID: the message each is sent as, to clients that
/// registered a callback and to those that registered the old way.
public enum EventKind {
  LIFECYCLE(0, 318, 107, Messages.Lifecycle.class),
  REBOOT(1, 319, 169, Messages.Plain.class),
  RTC_CHANGE(2, 320, 170, Messages.RtcChange.class),
  WATCHDOG(3, 321, 171, Messages.Action.class),
  IO_ERROR(4, 322, 172, Messages.IoError.class),
  /// Registered, never sent: there are no screens.
  GRAPHICS(5, 323, 173, null),
  IO_ERROR_REASON(6, 324, 195, Messages.IoErrorReason.class),
  CONTROL_ERROR(7, 325, 224, Messages.Plain.class),
  BLOCK_JOB(8, 326, 241, Messages.BlockJob.class),
  DISK_CHANGE(9, 327, 248, Messages.DiskChange.class),
  TRAY_CHANGE(10, 328, 268, Messages.TrayChange.class),
  /// Registered, never sent: there is no guest that sleeps.
  PMWAKEUP(11, 329, 269, null),
  PMSUSPEND(12, 330, 270, null),
  BALLOON_CHANGE(13, 331, 276, Messages.BigNumber.class),
  PMSUSPEND_DISK(14, 332, 292, null),
  DEVICE_REMOVED(15, 333, 311, Messages.Device.class),
  BLOCK_JOB_2(16, 339, 0, Messages.BlockJob.class),
  TUNABLE(17, 346, 0, Messages.Tunable.class),
  AGENT_LIFECYCLE(18, 348, 0, Messages.AgentLifecycle.class),
  DEVICE_ADDED(19, 354, 0, Messages.Device.class),
  MIGRATION_ITERATION(20, 359, 0, Messages.Action.class),
  JOB_COMPLETED(21, 363, 0, Messages.JobCompleted.class),
  DEVICE_REMOVAL_FAILED(22, 367, 0, Messages.Device.class),
  METADATA_CHANGE(23, 379, 0, Messages.MetadataChange.class),
  BLOCK_THRESHOLD(24, 385, 0, Messages.BlockThreshold.class),
  MEMORY_FAILURE(25, 423, 0, Messages.MemoryFailure.class),
  MEMORY_DEVICE_SIZE_CHANGE(26, 438, 0, Messages.DeviceSize.class);

  private final int id;
  private final int message;
  private final int oldMessage;
  private final Optional<Class<? extends Record>> payload;

  EventKind(int id, int message, int oldMessage, @Nullable Class<? extends Record> payload) {
    this.id = id;
    this.message = message;
    this.oldMessage = oldMessage;
    this.payload = Optional.ofNullable(payload);
  }

  /// virDomainEventID.
  public int id() {
    return id;
  }

  /// Whether it can be registered the old way (procedure 167).
  public boolean old() {
    return oldMessage != 0;
  }

  int message(boolean oldStyle) {
    return oldStyle ? oldMessage : message;
  }

  Optional<Class<? extends Record>> payload() {
    return payload;
  }

  /// Empty for a number that is no event of libvirt 9.0.0.
  public static Optional<EventKind> of(int id) {
    for (EventKind kind : values()) {
      if (kind.id == id) {
        return Optional.of(kind);
      }
    }
    return Optional.empty();
  }

  /// The event that a message with a callback number is.
  static Optional<EventKind> ofMessage(int procedure) {
    for (EventKind kind : values()) {
      if (kind.message == procedure) {
        return Optional.of(kind);
      }
    }
    return Optional.empty();
  }
}
