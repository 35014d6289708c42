// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.util.List;
import java.util.Optional;

/// What domain events carry, one record for each shape. On the wire a callback number stands before
/// it, except for clients that registered the old way. Which event carries which is in [EventKind].
public final class Messages {
  private Messages() {}

  /// Every event is about a domain.
  public sealed interface About {
    Wire.Domain dom();
  }

  /// @param event virDomainEventType
  /// @param detail its own enum for each event
  public record Lifecycle(Wire.Domain dom, int event, int detail) implements About {}

  public record Plain(Wire.Domain dom) implements About {}

  public record RtcChange(Wire.Domain dom, long offsetSeconds) implements About {}

  public record Action(Wire.Domain dom, int action) implements About {}

  public record IoError(Wire.Domain dom, String sourcePath, String alias, int action)
      implements About {}

  public record IoErrorReason(
      Wire.Domain dom, String sourcePath, String alias, int action, String reason)
      implements About {}

  /// @param disk the source's path (BLOCK_JOB) or the target's name (BLOCK_JOB_2)
  /// @param type virDomainBlockJobType
  /// @param status virConnectDomainEventBlockJobStatus
  public record BlockJob(Wire.Domain dom, String disk, int type, int status) implements About {}

  public record DiskChange(
      Wire.Domain dom, Optional<String> oldPath, Optional<String> newPath, String alias, int reason)
      implements About {}

  public record TrayChange(Wire.Domain dom, String alias, int reason) implements About {}

  public record BigNumber(Wire.Domain dom, long value) implements About {}

  public record Device(Wire.Domain dom, String alias) implements About {}

  public record Tunable(
      Wire.Domain dom, @Structure.Max(Limits.TUNABLE_PARAMETERS) List<Wire.TypedParameter> params)
      implements About {}

  public record AgentLifecycle(Wire.Domain dom, int state, int reason) implements About {}

  public record JobCompleted(
      Wire.Domain dom, @Structure.Max(Limits.JOB_STATS_PARAMETERS) List<Wire.TypedParameter> params)
      implements About {}

  public record MetadataChange(Wire.Domain dom, int type, Optional<String> uri) implements About {}

  public record BlockThreshold(
      Wire.Domain dom, String disk, Optional<String> path, long threshold, long excess)
      implements About {}

  public record MemoryFailure(Wire.Domain dom, int recipient, int action, int flags)
      implements About {}

  public record DeviceSize(Wire.Domain dom, String alias, long size) implements About {}
}
