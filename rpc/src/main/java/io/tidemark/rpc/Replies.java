// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.Optional;

/// The results of procedures, one record for each shape. Field order is wire order; which procedure
/// gives which is in [Remote].
public final class Replies {
  private Replies() {}

  public record Int(int value) {}

  public record Hyper(long value) {}

  public record Text(String text) {}

  public record MaybeText(Optional<String> text) {}

  public record AuthTypes(@Structure.Max(Limits.AUTH_TYPES) List<Integer> types) {}

  /// @param memoryKib of the host
  public record NodeInfo(
      @Structure.FixedChars(32) String model,
      long memoryKib,
      int cpus,
      int mhz,
      int nodes,
      int sockets,
      int cores,
      int threads) {}

  /// Bytes of each cell.
  public record CellsFreeMemory(@Structure.Max(Limits.NODE_CELLS) List<Long> bytes) {}

  public record NodeStat(String field, long value) {}

  /// @param nparams the count when none were asked for, else 0
  public record NodeStats(@Structure.Max(Limits.NODE_STATS) List<NodeStat> params, int nparams) {}

  /// @param map a bit for each CPU, the first in the lowest bit of the first byte
  /// @param count of CPUs
  public record CpuMap(
      @Structure.Max(Limits.CPU_MAP_BYTES) ByteBuffer map, int online, int count) {}

  /// An empty list of whatever it is.
  ///
  /// @param elements 0
  /// @param count 0
  public record NoneListed(int elements, int count) {}

  public record SecurityModel(
      @Structure.MaxChars(Limits.SECURITY_MODEL_CHARS) String model,
      @Structure.MaxChars(Limits.SECURITY_MODEL_CHARS) String doi) {}

  public record SecurityLabel(
      @Structure.MaxChars(Limits.SECURITY_LABEL_CHARS) String label, int enforcing) {}

  public record Domain(Wire.Domain dom) {}

  public record Domains(@Structure.Max(Limits.DOMAINS) List<Wire.Domain> domains, int count) {}

  public record Names(@Structure.Max(Limits.DOMAIN_NAMES) List<String> names) {}

  public record Ids(@Structure.Max(Limits.DOMAINS) List<Integer> ids) {}

  public record StoragePool(Wire.StoragePool pool) {}

  public record StoragePools(
      @Structure.Max(Limits.STORAGE_POOLS) List<Wire.StoragePool> pools, int count) {}

  /// @param cpuTime nanoseconds
  public record DomainInfo(int state, long maxMemKib, long memoryKib, int vcpus, long cpuTime) {}

  public record DomainState(int state, int reason) {}

  public record ControlInfo(int state, int details, long stateTime) {}

  public record BlockPeek(@Structure.Max(Limits.BLOCK_PEEK_BYTES) ByteBuffer buffer) {}

  public record BlockInfo(long allocation, long capacity, long physical) {}

  public record BlockStats(
      long readRequests, long readBytes, long writeRequests, long writeBytes, long errors) {}

  /// @param nparams the count when none were asked for, else 0
  public record BlockStatsParameters(
      @Structure.Max(Limits.BLOCK_STATS_PARAMETERS) List<Wire.TypedParameter> params,
      int nparams) {}

  /// @param nparams the count when none were asked for, else 0
  public record BlockIoTune(
      @Structure.Max(Limits.BLOCK_IO_TUNE_PARAMETERS) List<Wire.TypedParameter> params,
      int nparams) {}

  /// @param found 0: no job, the rest is 0
  public record BlockJobInfo(int found, int type, long bandwidth, long cur, long end) {}

  public record DiskError(String disk, int error) {}

  public record DiskErrors(
      @Structure.Max(Limits.DISK_ERRORS) List<DiskError> errors, int nerrors) {}

  public record FileSystem(
      String mountpoint,
      String name,
      String type,
      @Structure.Max(Limits.FILE_SYSTEM_DISKS) List<String> disks) {}

  public record FileSystems(
      @Structure.Max(Limits.FILE_SYSTEMS) List<FileSystem> fileSystems, int count) {}

  public record StatsRecord(
      Wire.Domain dom,
      @Structure.Max(Limits.DOMAIN_STATS_PARAMETERS) List<Wire.TypedParameter> params) {}

  public record DomainStats(@Structure.Max(Limits.DOMAINS) List<StatsRecord> records) {}

  /// Times in milliseconds, sizes in bytes.
  public record JobInfo(
      int type,
      long timeElapsed,
      long timeRemaining,
      long dataTotal,
      long dataProcessed,
      long dataRemaining,
      long memTotal,
      long memProcessed,
      long memRemaining,
      long fileTotal,
      long fileProcessed,
      long fileRemaining) {}

  public record JobStats(
      int type, @Structure.Max(Limits.JOB_STATS_PARAMETERS) List<Wire.TypedParameter> params) {}

  public record Checkpoint(Wire.Checkpoint checkpoint) {}

  public record Checkpoints(
      @Structure.Max(Limits.CHECKPOINTS) List<Wire.Checkpoint> checkpoints, int count) {}

  public record Snapshot(Wire.Snapshot snapshot) {}

  public record Snapshots(
      @Structure.Max(Limits.SNAPSHOTS) List<Wire.Snapshot> snapshots, int count) {}

  public record Messages(@Structure.Max(Limits.MESSAGES) List<String> messages) {}

  public record GuestInfo(
      @Structure.Max(Limits.GUEST_INFO_PARAMETERS) List<Wire.TypedParameter> params) {}
}
