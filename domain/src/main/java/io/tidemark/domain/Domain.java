// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.ImageSizes;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import org.jspecify.annotations.Nullable;

/// One domain, running or not. Safe for any thread. A domain that is gone (transient and stopped,
/// or undefined) answers every call with "domain not found".
///
/// `flags` are libvirt's bits for the verb, see [Flags]; unknown ones are refused as libvirt does.
public final class Domain {
  Domain() {}

  public String name() {
    throw new UnsupportedOperationException();
  }

  public UUID uuid() {
    throw new UnsupportedOperationException();
  }

  /// Positive while it runs, else -1.
  public int id() {
    throw new UnsupportedOperationException();
  }

  public DomainRef ref() {
    throw new UnsupportedOperationException();
  }

  /// virDomainCreateWithFlags.
  ///
  /// @param connection identity of the client for `START_AUTODESTROY`
  public void create(int flags, Object connection) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public void destroy(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public void undefine(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public void suspend() throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public void resume() throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// A domain without a CPU has nobody to ask: it stops, flushed, with the reason SHUTDOWN.
  public void shutdown(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public String xmlDesc(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public DomainState state() throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public DomainInfo info() throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public boolean isActive() {
    throw new UnsupportedOperationException();
  }

  public boolean isPersistent() {
    throw new UnsupportedOperationException();
  }

  public boolean isUpdated() {
    throw new UnsupportedOperationException();
  }

  public boolean autostart() throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public void setAutostart(boolean autostart) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public String osType() {
    throw new UnsupportedOperationException();
  }

  /// virDomainGetBlockInfo.
  ///
  /// @param disk target or path of the active layer
  public ImageSizes blockInfo(String disk, int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainBlockStats; an empty `disk` sums all.
  public BlockStats blockStats(String disk) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainBlockStatsFlags, all fields.
  public List<TypedParam> blockStatsParams(String disk, int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// The domain's part of virConnectGetAllDomainStats: `state.*`, `balloon.*`, `vcpu.*`, `block.*`.
  ///
  /// @param types virDomainStatsTypes, 0 for all
  public List<TypedParam> stats(int types, int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainBlockCopy.
  public void blockCopy(String disk, String destXml, List<TypedParam> params, int flags)
      throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainBlockRebase; without COPY it is a pull.
  ///
  /// @param base the destination with COPY; null is libvirt's NULL
  /// @param bandwidth MiB/s, or bytes/s with `REBASE_BANDWIDTH_BYTES`
  public void blockRebase(String disk, @Nullable String base, long bandwidth, int flags)
      throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainBlockJobAbort. Without ASYNC it returns when the job is over.
  public void blockJobAbort(String disk, int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainGetBlockJobInfo; empty when the disk has no job.
  public Optional<BlockJobInfo> blockJobInfo(String disk, int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public void blockJobSetSpeed(String disk, long bandwidth, int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public Checkpoint checkpointCreateXml(String xml, int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainListAllCheckpoints, parents before children.
  public List<Checkpoint> checkpoints(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public Checkpoint checkpointLookupByName(String name, int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainBackupBegin.
  ///
  /// @param checkpointXml a checkpoint to make at the same instant; null for none
  public void backupBegin(String backupXml, @Nullable String checkpointXml, int flags)
      throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public String backupXmlDesc(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public JobInfo jobInfo() throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public JobStats jobStats(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainAbortJobFlags: asks a backup to end; returns before it has.
  public void abortJob(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }
}
