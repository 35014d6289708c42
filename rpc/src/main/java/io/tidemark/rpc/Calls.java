// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;
import java.util.UUID;

/// The arguments of procedures, one record for each shape. Field order is wire order; which
/// procedure takes which is in [Remote].
public final class Calls {
  private Calls() {}

  /// Arguments with flags: some of them need a writable connection.
  public interface Flagged {
    int flags();
  }

  /// No arguments.
  public record Nothing() {}

  public record Open(Optional<String> name, int flags) implements Flagged {}

  public record Feature(int feature) {}

  public record Id(int id) {}

  public record Name(String name) {}

  public record MaybeName(Optional<String> name) {}

  public record Uuid(UUID uuid) {}

  /// @param most cells that are wanted
  public record Cells(int start, int most) {}

  /// @param cpu −1 for all
  /// @param nparams none asks for the count alone
  public record NodeCpuStats(int cpu, int nparams, int flags) implements Flagged {}

  /// @param nparams none asks for the count alone
  /// @param cell −1 for all
  public record NodeMemoryStats(int nparams, int cell, int flags) implements Flagged {}

  public record CpuMap(int needMap, int needOnline, int flags) implements Flagged {}

  public record DeviceCap(Optional<String> cap, int flags) implements Flagged {}

  public record DevicesOfCap(Optional<String> cap, int most, int flags) implements Flagged {}

  public record SecretUsage(int type, String id) {}

  public record Path(String path) {}

  public record Most(int most) {}

  public record Xml(String xml) {}

  public record XmlFlags(String xml, int flags) implements Flagged {}

  /// @param needResults zero asks for the count alone
  public record ListAll(int needResults, int flags) implements Flagged {}

  public record Domain(Wire.Domain dom) {}

  public record DomainFlags(Wire.Domain dom, int flags) implements Flagged {}

  public record DomainText(Wire.Domain dom, String text) {}

  /// A disk, checkpoint or snapshot of a domain by name, or a document about it.
  public record DomainTextFlags(Wire.Domain dom, String text, int flags) implements Flagged {}

  public record DomainListAll(Wire.Domain dom, int needResults, int flags) implements Flagged {}

  public record DomainNumber(Wire.Domain dom, int number) {}

  public record DomainNumberFlags(Wire.Domain dom, int number, int flags) implements Flagged {}

  public record DomainHyper(Wire.Domain dom, long number) {}

  public record DomainHyperFlags(Wire.Domain dom, long number, int flags) implements Flagged {}

  public record Rename(Wire.Domain dom, Optional<String> name, int flags) implements Flagged {}

  public record BlockBandwidth(Wire.Domain dom, String path, long bandwidth, int flags)
      implements Flagged {}

  public record BlockStats(Wire.Domain dom, String path, int nparams, int flags)
      implements Flagged {}

  public record BlockResize(Wire.Domain dom, String disk, long size, int flags)
      implements Flagged {}

  public record BlockPeek(Wire.Domain dom, String path, long offset, int size, int flags)
      implements Flagged {}

  public record BlockRebase(
      Wire.Domain dom, String path, Optional<String> base, long bandwidth, int flags)
      implements Flagged {}

  public record BlockCommit(
      Wire.Domain dom,
      String disk,
      Optional<String> base,
      Optional<String> top,
      long bandwidth,
      int flags)
      implements Flagged {}

  public record BlockCopy(
      Wire.Domain dom,
      String path,
      String destXml,
      @Structure.Max(Limits.BLOCK_COPY_PARAMETERS) List<Wire.TypedParameter> params,
      int flags)
      implements Flagged {}

  /// @param disk none asks for the count alone
  public record GetBlockIoTune(Wire.Domain dom, Optional<String> disk, int nparams, int flags)
      implements Flagged {}

  public record SetBlockIoTune(
      Wire.Domain dom,
      String disk,
      @Structure.Max(Limits.BLOCK_IO_TUNE_PARAMETERS) List<Wire.TypedParameter> params,
      int flags)
      implements Flagged {}

  public record BlockThreshold(Wire.Domain dom, String device, long threshold, int flags)
      implements Flagged {}

  /// @param xml of the domain, to be run by after a restore
  public record Save(Wire.Domain dom, String to, Optional<String> xml, int flags)
      implements Flagged {}

  public record CoreDump(Wire.Domain dom, String to, int format, int flags) implements Flagged {}

  public record MigratePerform(
      Wire.Domain dom,
      Optional<String> uri,
      @Structure.Max(Limits.MIGRATE_PARAMETERS) List<Wire.TypedParameter> params,
      @Structure.Max(Limits.MIGRATE_COOKIE_BYTES) ByteBuffer cookie,
      int flags)
      implements Flagged {}

  public record DomainStats(
      @Structure.Max(Limits.DOMAINS) List<Wire.Domain> doms, int stats, int flags)
      implements Flagged {}

  public record BackupBegin(
      Wire.Domain dom, String backupXml, Optional<String> checkpointXml, int flags)
      implements Flagged {}

  public record Freeze(
      Wire.Domain dom,
      @Structure.Max(Limits.FREEZE_MOUNTPOINTS) List<String> mountpoints,
      int flags)
      implements Flagged {}

  public record Trim(Wire.Domain dom, Optional<String> mountPoint, long minimum, int flags)
      implements Flagged {}

  public record GuestInfo(Wire.Domain dom, int types, int flags) implements Flagged {}

  public record AgentCommand(Wire.Domain dom, String cmd, int timeout, int flags)
      implements Flagged {}

  public record DomainCapabilities(
      Optional<String> emulator,
      Optional<String> arch,
      Optional<String> machine,
      Optional<String> virtType,
      int flags)
      implements Flagged {}

  public record DiskErrors(Wire.Domain dom, int maxErrors, int flags) implements Flagged {}

  public record Metadata(Wire.Domain dom, int type, Optional<String> uri, int flags)
      implements Flagged {}

  public record SetMetadata(
      Wire.Domain dom,
      int type,
      Optional<String> metadata,
      Optional<String> key,
      Optional<String> uri,
      int flags)
      implements Flagged {}

  public record Checkpoint(Wire.Checkpoint checkpoint, int flags) implements Flagged {}

  public record CheckpointListAll(Wire.Checkpoint checkpoint, int needResults, int flags)
      implements Flagged {}

  public record Snapshot(Wire.Snapshot snapshot, int flags) implements Flagged {}

  public record SnapshotListAll(Wire.Snapshot snapshot, int needResults, int flags)
      implements Flagged {}

  /// @param most names that are wanted
  public record SnapshotMost(Wire.Snapshot snapshot, int most, int flags) implements Flagged {}

  /// @param most names that are wanted
  public record DomainMost(Wire.Domain dom, int most, int flags) implements Flagged {}

  /// @param eventId virDomainEventID
  /// @param dom only this domain's events
  public record RegisterEvent(int eventId, Optional<Wire.Domain> dom) {}

  public record Callback(int callbackId) {}
}
