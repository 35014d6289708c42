// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import io.tidemark.rpc.Calls.Nothing;

/// The procedures whose structures are known here, under libvirt's own names.
///
/// Spec: libvirt 9.0.0, remote_protocol.x and qemu_protocol.x (names, numbers, field order).
public final class Remote {
  public static final Procedure<Calls.Open, Nothing> CONNECT_OPEN =
      Procedure.remote(1, Calls.Open.class, Nothing.class);
  public static final Procedure<Nothing, Nothing> CONNECT_CLOSE =
      Procedure.remote(2, Nothing.class, Nothing.class);
  public static final Procedure<Nothing, Replies.Text> CONNECT_GET_TYPE =
      Procedure.remote(3, Nothing.class, Replies.Text.class);
  public static final Procedure<Nothing, Replies.Hyper> CONNECT_GET_VERSION =
      Procedure.remote(4, Nothing.class, Replies.Hyper.class);
  public static final Procedure<Nothing, Replies.NodeInfo> NODE_GET_INFO =
      Procedure.remote(6, Nothing.class, Replies.NodeInfo.class);
  public static final Procedure<Nothing, Replies.Text> CONNECT_GET_CAPABILITIES =
      Procedure.remote(7, Nothing.class, Replies.Text.class);
  public static final Procedure<Calls.DomainText, Nothing> DOMAIN_ATTACH_DEVICE =
      Procedure.remote(8, Calls.DomainText.class, Nothing.class);
  public static final Procedure<Calls.Domain, Nothing> DOMAIN_CREATE =
      Procedure.remote(9, Calls.Domain.class, Nothing.class);
  public static final Procedure<Calls.XmlFlags, Replies.Domain> DOMAIN_CREATE_XML =
      Procedure.remote(10, Calls.XmlFlags.class, Replies.Domain.class);
  public static final Procedure<Calls.Xml, Replies.Domain> DOMAIN_DEFINE_XML =
      Procedure.remote(11, Calls.Xml.class, Replies.Domain.class);
  public static final Procedure<Calls.Domain, Nothing> DOMAIN_DESTROY =
      Procedure.remote(12, Calls.Domain.class, Nothing.class);
  public static final Procedure<Calls.DomainText, Nothing> DOMAIN_DETACH_DEVICE =
      Procedure.remote(13, Calls.DomainText.class, Nothing.class);
  public static final Procedure<Calls.DomainFlags, Replies.Text> DOMAIN_GET_XML_DESC =
      Procedure.remote(14, Calls.DomainFlags.class, Replies.Text.class);
  public static final Procedure<Calls.Domain, Replies.Int> DOMAIN_GET_AUTOSTART =
      Procedure.remote(15, Calls.Domain.class, Replies.Int.class);
  public static final Procedure<Calls.Domain, Replies.DomainInfo> DOMAIN_GET_INFO =
      Procedure.remote(16, Calls.Domain.class, Replies.DomainInfo.class);
  public static final Procedure<Calls.Domain, Replies.Hyper> DOMAIN_GET_MAX_MEMORY =
      Procedure.remote(17, Calls.Domain.class, Replies.Hyper.class);
  public static final Procedure<Calls.Domain, Replies.Int> DOMAIN_GET_MAX_VCPUS =
      Procedure.remote(18, Calls.Domain.class, Replies.Int.class);
  public static final Procedure<Calls.Domain, Replies.Text> DOMAIN_GET_OS_TYPE =
      Procedure.remote(19, Calls.Domain.class, Replies.Text.class);
  public static final Procedure<Calls.Most, Replies.Names> CONNECT_LIST_DEFINED_DOMAINS =
      Procedure.remote(21, Calls.Most.class, Replies.Names.class);
  public static final Procedure<Calls.Id, Replies.Domain> DOMAIN_LOOKUP_BY_ID =
      Procedure.remote(22, Calls.Id.class, Replies.Domain.class);
  public static final Procedure<Calls.Name, Replies.Domain> DOMAIN_LOOKUP_BY_NAME =
      Procedure.remote(23, Calls.Name.class, Replies.Domain.class);
  public static final Procedure<Calls.Uuid, Replies.Domain> DOMAIN_LOOKUP_BY_UUID =
      Procedure.remote(24, Calls.Uuid.class, Replies.Domain.class);
  public static final Procedure<Nothing, Replies.Int> CONNECT_NUM_OF_DEFINED_DOMAINS =
      Procedure.remote(25, Nothing.class, Replies.Int.class);
  public static final Procedure<Calls.DomainFlags, Nothing> DOMAIN_REBOOT =
      Procedure.remote(27, Calls.DomainFlags.class, Nothing.class);
  public static final Procedure<Calls.Domain, Nothing> DOMAIN_RESUME =
      Procedure.remote(28, Calls.Domain.class, Nothing.class);
  public static final Procedure<Calls.DomainNumber, Nothing> DOMAIN_SET_AUTOSTART =
      Procedure.remote(29, Calls.DomainNumber.class, Nothing.class);
  public static final Procedure<Calls.DomainHyper, Nothing> DOMAIN_SET_MAX_MEMORY =
      Procedure.remote(30, Calls.DomainHyper.class, Nothing.class);
  public static final Procedure<Calls.DomainHyper, Nothing> DOMAIN_SET_MEMORY =
      Procedure.remote(31, Calls.DomainHyper.class, Nothing.class);
  public static final Procedure<Calls.DomainNumber, Nothing> DOMAIN_SET_VCPUS =
      Procedure.remote(32, Calls.DomainNumber.class, Nothing.class);
  public static final Procedure<Calls.Domain, Nothing> DOMAIN_SHUTDOWN =
      Procedure.remote(33, Calls.Domain.class, Nothing.class);
  public static final Procedure<Calls.Domain, Nothing> DOMAIN_SUSPEND =
      Procedure.remote(34, Calls.Domain.class, Nothing.class);
  public static final Procedure<Calls.Domain, Nothing> DOMAIN_UNDEFINE =
      Procedure.remote(35, Calls.Domain.class, Nothing.class);
  public static final Procedure<Calls.Most, Replies.Ids> CONNECT_LIST_DOMAINS =
      Procedure.remote(37, Calls.Most.class, Replies.Ids.class);
  public static final Procedure<Nothing, Replies.Int> CONNECT_NUM_OF_DOMAINS =
      Procedure.remote(51, Nothing.class, Replies.Int.class);
  public static final Procedure<Calls.DomainTextFlags, Nothing> DOMAIN_CORE_DUMP =
      Procedure.remote(53, Calls.DomainTextFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainText, Nothing> DOMAIN_SAVE =
      Procedure.remote(55, Calls.DomainText.class, Nothing.class);
  public static final Procedure<Nothing, Replies.Text> CONNECT_GET_HOSTNAME =
      Procedure.remote(59, Nothing.class, Replies.Text.class);
  public static final Procedure<Calls.Feature, Replies.Int> CONNECT_SUPPORTS_FEATURE =
      Procedure.remote(60, Calls.Feature.class, Replies.Int.class);
  public static final Procedure<Calls.DomainText, Replies.BlockStats> DOMAIN_BLOCK_STATS =
      Procedure.remote(64, Calls.DomainText.class, Replies.BlockStats.class);
  public static final Procedure<Nothing, Replies.AuthTypes> AUTH_LIST =
      Procedure.remote(66, Nothing.class, Replies.AuthTypes.class);
  public static final Procedure<Nothing, Replies.Int> CONNECT_DOMAIN_EVENT_REGISTER =
      Procedure.remote(105, Nothing.class, Replies.Int.class);
  public static final Procedure<Nothing, Replies.Int> CONNECT_DOMAIN_EVENT_DEREGISTER =
      Procedure.remote(106, Nothing.class, Replies.Int.class);
  public static final Procedure<Nothing, Replies.Text> CONNECT_GET_URI =
      Procedure.remote(110, Nothing.class, Replies.Text.class);
  public static final Procedure<Calls.Domain, Replies.SecurityLabel> DOMAIN_GET_SECURITY_LABEL =
      Procedure.remote(121, Calls.Domain.class, Replies.SecurityLabel.class);
  public static final Procedure<Calls.BlockPeek, Replies.BlockPeek> DOMAIN_BLOCK_PEEK =
      Procedure.remote(103, Calls.BlockPeek.class, Replies.BlockPeek.class);
  public static final Procedure<Nothing, Replies.SecurityModel> NODE_GET_SECURITY_MODEL =
      Procedure.remote(122, Nothing.class, Replies.SecurityModel.class);
  public static final Procedure<Nothing, Replies.Int> CONNECT_IS_SECURE =
      Procedure.remote(149, Nothing.class, Replies.Int.class);
  public static final Procedure<Calls.Domain, Replies.Int> DOMAIN_IS_ACTIVE =
      Procedure.remote(150, Calls.Domain.class, Replies.Int.class);
  public static final Procedure<Calls.Domain, Replies.Int> DOMAIN_IS_PERSISTENT =
      Procedure.remote(151, Calls.Domain.class, Replies.Int.class);
  public static final Procedure<Nothing, Replies.Hyper> CONNECT_GET_LIB_VERSION =
      Procedure.remote(157, Nothing.class, Replies.Hyper.class);
  public static final Procedure<Calls.DomainTextFlags, Nothing> DOMAIN_ATTACH_DEVICE_FLAGS =
      Procedure.remote(160, Calls.DomainTextFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainTextFlags, Nothing> DOMAIN_DETACH_DEVICE_FLAGS =
      Procedure.remote(161, Calls.DomainTextFlags.class, Nothing.class);
  public static final Procedure<Calls.Domain, Replies.JobInfo> DOMAIN_GET_JOB_INFO =
      Procedure.remote(163, Calls.Domain.class, Replies.JobInfo.class);
  public static final Procedure<Calls.Domain, Nothing> DOMAIN_ABORT_JOB =
      Procedure.remote(164, Calls.Domain.class, Nothing.class);
  public static final Procedure<Calls.Id, Nothing> CONNECT_DOMAIN_EVENT_REGISTER_ANY =
      Procedure.remote(167, Calls.Id.class, Nothing.class);
  public static final Procedure<Calls.Id, Nothing> CONNECT_DOMAIN_EVENT_DEREGISTER_ANY =
      Procedure.remote(168, Calls.Id.class, Nothing.class);
  public static final Procedure<Calls.DomainTextFlags, Nothing> DOMAIN_UPDATE_DEVICE_FLAGS =
      Procedure.remote(174, Calls.DomainTextFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainFlags, Nothing> DOMAIN_MANAGED_SAVE =
      Procedure.remote(182, Calls.DomainFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainFlags, Replies.Int> DOMAIN_HAS_MANAGED_SAVE_IMAGE =
      Procedure.remote(183, Calls.DomainFlags.class, Replies.Int.class);
  public static final Procedure<Calls.DomainFlags, Nothing> DOMAIN_MANAGED_SAVE_REMOVE =
      Procedure.remote(184, Calls.DomainFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainTextFlags, Replies.Snapshot>
      DOMAIN_SNAPSHOT_CREATE_XML =
          Procedure.remote(185, Calls.DomainTextFlags.class, Replies.Snapshot.class);
  public static final Procedure<Calls.Snapshot, Replies.Text> DOMAIN_SNAPSHOT_GET_XML_DESC =
      Procedure.remote(186, Calls.Snapshot.class, Replies.Text.class);
  public static final Procedure<Calls.DomainFlags, Replies.Int> DOMAIN_SNAPSHOT_NUM =
      Procedure.remote(187, Calls.DomainFlags.class, Replies.Int.class);
  public static final Procedure<Calls.DomainMost, Replies.Names> DOMAIN_SNAPSHOT_LIST_NAMES =
      Procedure.remote(188, Calls.DomainMost.class, Replies.Names.class);
  public static final Procedure<Calls.DomainTextFlags, Replies.Snapshot>
      DOMAIN_SNAPSHOT_LOOKUP_BY_NAME =
          Procedure.remote(189, Calls.DomainTextFlags.class, Replies.Snapshot.class);
  public static final Procedure<Calls.DomainFlags, Replies.Int> DOMAIN_HAS_CURRENT_SNAPSHOT =
      Procedure.remote(190, Calls.DomainFlags.class, Replies.Int.class);
  public static final Procedure<Calls.DomainFlags, Replies.Snapshot> DOMAIN_SNAPSHOT_CURRENT =
      Procedure.remote(191, Calls.DomainFlags.class, Replies.Snapshot.class);
  public static final Procedure<Calls.Snapshot, Nothing> DOMAIN_REVERT_TO_SNAPSHOT =
      Procedure.remote(192, Calls.Snapshot.class, Nothing.class);
  public static final Procedure<Calls.Snapshot, Nothing> DOMAIN_SNAPSHOT_DELETE =
      Procedure.remote(193, Calls.Snapshot.class, Nothing.class);
  public static final Procedure<Calls.DomainTextFlags, Replies.BlockInfo> DOMAIN_GET_BLOCK_INFO =
      Procedure.remote(194, Calls.DomainTextFlags.class, Replies.BlockInfo.class);
  public static final Procedure<Calls.DomainFlags, Replies.Domain> DOMAIN_CREATE_WITH_FLAGS =
      Procedure.remote(196, Calls.DomainFlags.class, Replies.Domain.class);
  public static final Procedure<Calls.DomainNumberFlags, Nothing> DOMAIN_SET_VCPUS_FLAGS =
      Procedure.remote(199, Calls.DomainNumberFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainFlags, Replies.Int> DOMAIN_GET_VCPUS_FLAGS =
      Procedure.remote(200, Calls.DomainFlags.class, Replies.Int.class);
  public static final Procedure<Calls.Domain, Replies.Int> DOMAIN_IS_UPDATED =
      Procedure.remote(202, Calls.Domain.class, Replies.Int.class);
  public static final Procedure<Calls.DomainHyperFlags, Nothing> DOMAIN_SET_MEMORY_FLAGS =
      Procedure.remote(204, Calls.DomainHyperFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainFlags, Replies.DomainState> DOMAIN_GET_STATE =
      Procedure.remote(212, Calls.DomainFlags.class, Replies.DomainState.class);
  public static final Procedure<Calls.DomainFlags, Replies.ControlInfo> DOMAIN_GET_CONTROL_INFO =
      Procedure.remote(229, Calls.DomainFlags.class, Replies.ControlInfo.class);
  public static final Procedure<Calls.DomainFlags, Nothing> DOMAIN_UNDEFINE_FLAGS =
      Procedure.remote(231, Calls.DomainFlags.class, Nothing.class);
  public static final Procedure<Calls.Save, Nothing> DOMAIN_SAVE_FLAGS =
      Procedure.remote(232, Calls.Save.class, Nothing.class);
  public static final Procedure<Calls.DomainFlags, Nothing> DOMAIN_DESTROY_FLAGS =
      Procedure.remote(234, Calls.DomainFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainTextFlags, Nothing> DOMAIN_BLOCK_JOB_ABORT =
      Procedure.remote(237, Calls.DomainTextFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainTextFlags, Replies.BlockJobInfo>
      DOMAIN_GET_BLOCK_JOB_INFO =
          Procedure.remote(238, Calls.DomainTextFlags.class, Replies.BlockJobInfo.class);
  public static final Procedure<Calls.BlockBandwidth, Nothing> DOMAIN_BLOCK_JOB_SET_SPEED =
      Procedure.remote(239, Calls.BlockBandwidth.class, Nothing.class);
  public static final Procedure<Calls.BlockBandwidth, Nothing> DOMAIN_BLOCK_PULL =
      Procedure.remote(240, Calls.BlockBandwidth.class, Nothing.class);
  public static final Procedure<Calls.BlockStats, Replies.BlockStatsParameters>
      DOMAIN_BLOCK_STATS_FLAGS =
          Procedure.remote(243, Calls.BlockStats.class, Replies.BlockStatsParameters.class);
  public static final Procedure<Calls.Snapshot, Replies.Snapshot> DOMAIN_SNAPSHOT_GET_PARENT =
      Procedure.remote(244, Calls.Snapshot.class, Replies.Snapshot.class);
  public static final Procedure<Calls.DomainFlags, Nothing> DOMAIN_RESET =
      Procedure.remote(245, Calls.DomainFlags.class, Nothing.class);
  public static final Procedure<Calls.Snapshot, Replies.Int> DOMAIN_SNAPSHOT_NUM_CHILDREN =
      Procedure.remote(246, Calls.Snapshot.class, Replies.Int.class);
  public static final Procedure<Calls.SnapshotMost, Replies.Names>
      DOMAIN_SNAPSHOT_LIST_CHILDREN_NAMES =
          Procedure.remote(247, Calls.SnapshotMost.class, Replies.Names.class);
  public static final Procedure<Calls.BlockResize, Nothing> DOMAIN_BLOCK_RESIZE =
      Procedure.remote(251, Calls.BlockResize.class, Nothing.class);
  public static final Procedure<Calls.SetBlockIoTune, Nothing> DOMAIN_SET_BLOCK_IO_TUNE =
      Procedure.remote(252, Calls.SetBlockIoTune.class, Nothing.class);
  public static final Procedure<Calls.GetBlockIoTune, Replies.BlockIoTune>
      DOMAIN_GET_BLOCK_IO_TUNE =
          Procedure.remote(253, Calls.GetBlockIoTune.class, Replies.BlockIoTune.class);
  public static final Procedure<Calls.DomainFlags, Nothing> DOMAIN_SHUTDOWN_FLAGS =
      Procedure.remote(258, Calls.DomainFlags.class, Nothing.class);
  public static final Procedure<Calls.DiskErrors, Replies.DiskErrors> DOMAIN_GET_DISK_ERRORS =
      Procedure.remote(263, Calls.DiskErrors.class, Replies.DiskErrors.class);
  public static final Procedure<Calls.SetMetadata, Nothing> DOMAIN_SET_METADATA =
      Procedure.remote(264, Calls.SetMetadata.class, Nothing.class);
  public static final Procedure<Calls.Metadata, Replies.Text> DOMAIN_GET_METADATA =
      Procedure.remote(265, Calls.Metadata.class, Replies.Text.class);
  public static final Procedure<Calls.BlockRebase, Nothing> DOMAIN_BLOCK_REBASE =
      Procedure.remote(266, Calls.BlockRebase.class, Nothing.class);
  public static final Procedure<Calls.Snapshot, Replies.Int> DOMAIN_SNAPSHOT_IS_CURRENT =
      Procedure.remote(271, Calls.Snapshot.class, Replies.Int.class);
  public static final Procedure<Calls.Snapshot, Replies.Int> DOMAIN_SNAPSHOT_HAS_METADATA =
      Procedure.remote(272, Calls.Snapshot.class, Replies.Int.class);
  public static final Procedure<Calls.ListAll, Replies.Domains> CONNECT_LIST_ALL_DOMAINS =
      Procedure.remote(273, Calls.ListAll.class, Replies.Domains.class);
  public static final Procedure<Calls.DomainListAll, Replies.Snapshots> DOMAIN_LIST_ALL_SNAPSHOTS =
      Procedure.remote(274, Calls.DomainListAll.class, Replies.Snapshots.class);
  public static final Procedure<Calls.SnapshotListAll, Replies.Snapshots>
      DOMAIN_SNAPSHOT_LIST_ALL_CHILDREN =
          Procedure.remote(275, Calls.SnapshotListAll.class, Replies.Snapshots.class);
  public static final Procedure<Calls.ListAll, Replies.StoragePools>
      CONNECT_LIST_ALL_STORAGE_POOLS =
          Procedure.remote(281, Calls.ListAll.class, Replies.StoragePools.class);
  public static final Procedure<Calls.BlockCommit, Nothing> DOMAIN_BLOCK_COMMIT =
      Procedure.remote(290, Calls.BlockCommit.class, Nothing.class);
  public static final Procedure<Calls.Trim, Nothing> DOMAIN_FSTRIM =
      Procedure.remote(294, Calls.Trim.class, Nothing.class);
  public static final Procedure<Calls.DomainFlags, Replies.JobStats> DOMAIN_GET_JOB_STATS =
      Procedure.remote(298, Calls.DomainFlags.class, Replies.JobStats.class);
  public static final Procedure<Calls.MigratePerform, Nothing> DOMAIN_MIGRATE_PERFORM3_PARAMS =
      Procedure.remote(305, Calls.MigratePerform.class, Nothing.class);
  public static final Procedure<Calls.RegisterEvent, Replies.Int>
      CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY =
          Procedure.remote(316, Calls.RegisterEvent.class, Replies.Int.class);
  public static final Procedure<Calls.Callback, Nothing>
      CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY =
          Procedure.remote(317, Calls.Callback.class, Nothing.class);
  public static final Procedure<Calls.CoreDump, Nothing> DOMAIN_CORE_DUMP_WITH_FORMAT =
      Procedure.remote(334, Calls.CoreDump.class, Nothing.class);
  public static final Procedure<Calls.Freeze, Replies.Int> DOMAIN_FSFREEZE =
      Procedure.remote(335, Calls.Freeze.class, Replies.Int.class);
  public static final Procedure<Calls.Freeze, Replies.Int> DOMAIN_FSTHAW =
      Procedure.remote(336, Calls.Freeze.class, Replies.Int.class);
  public static final Procedure<Calls.DomainCapabilities, Replies.Text>
      CONNECT_GET_DOMAIN_CAPABILITIES =
          Procedure.remote(342, Calls.DomainCapabilities.class, Replies.Text.class);
  public static final Procedure<Calls.DomainStats, Replies.DomainStats>
      CONNECT_GET_ALL_DOMAIN_STATS =
          Procedure.remote(344, Calls.DomainStats.class, Replies.DomainStats.class);
  public static final Procedure<Calls.BlockCopy, Nothing> DOMAIN_BLOCK_COPY =
      Procedure.remote(345, Calls.BlockCopy.class, Nothing.class);
  public static final Procedure<Calls.DomainFlags, Replies.FileSystems> DOMAIN_GET_FSINFO =
      Procedure.remote(349, Calls.DomainFlags.class, Replies.FileSystems.class);
  public static final Procedure<Calls.XmlFlags, Replies.Domain> DOMAIN_DEFINE_XML_FLAGS =
      Procedure.remote(350, Calls.XmlFlags.class, Replies.Domain.class);
  public static final Procedure<Calls.Rename, Replies.Int> DOMAIN_RENAME =
      Procedure.remote(358, Calls.Rename.class, Replies.Int.class);
  public static final Procedure<Nothing, Nothing> CONNECT_REGISTER_CLOSE_CALLBACK =
      Procedure.remote(360, Nothing.class, Nothing.class);
  public static final Procedure<Nothing, Nothing> CONNECT_UNREGISTER_CLOSE_CALLBACK =
      Procedure.remote(361, Nothing.class, Nothing.class);
  public static final Procedure<Calls.BlockThreshold, Nothing> DOMAIN_SET_BLOCK_THRESHOLD =
      Procedure.remote(386, Calls.BlockThreshold.class, Nothing.class);
  public static final Procedure<Calls.Path, Replies.StoragePool>
      STORAGE_POOL_LOOKUP_BY_TARGET_PATH =
          Procedure.remote(391, Calls.Path.class, Replies.StoragePool.class);
  public static final Procedure<Calls.DomainTextFlags, Nothing> DOMAIN_DETACH_DEVICE_ALIAS =
      Procedure.remote(392, Calls.DomainTextFlags.class, Nothing.class);
  public static final Procedure<Calls.DomainTextFlags, Replies.Checkpoint>
      DOMAIN_CHECKPOINT_CREATE_XML =
          Procedure.remote(411, Calls.DomainTextFlags.class, Replies.Checkpoint.class);
  public static final Procedure<Calls.Checkpoint, Replies.Text> DOMAIN_CHECKPOINT_GET_XML_DESC =
      Procedure.remote(412, Calls.Checkpoint.class, Replies.Text.class);
  public static final Procedure<Calls.DomainListAll, Replies.Checkpoints>
      DOMAIN_LIST_ALL_CHECKPOINTS =
          Procedure.remote(413, Calls.DomainListAll.class, Replies.Checkpoints.class);
  public static final Procedure<Calls.CheckpointListAll, Replies.Checkpoints>
      DOMAIN_CHECKPOINT_LIST_ALL_CHILDREN =
          Procedure.remote(414, Calls.CheckpointListAll.class, Replies.Checkpoints.class);
  public static final Procedure<Calls.DomainTextFlags, Replies.Checkpoint>
      DOMAIN_CHECKPOINT_LOOKUP_BY_NAME =
          Procedure.remote(415, Calls.DomainTextFlags.class, Replies.Checkpoint.class);
  public static final Procedure<Calls.Checkpoint, Replies.Checkpoint> DOMAIN_CHECKPOINT_GET_PARENT =
      Procedure.remote(416, Calls.Checkpoint.class, Replies.Checkpoint.class);
  public static final Procedure<Calls.Checkpoint, Nothing> DOMAIN_CHECKPOINT_DELETE =
      Procedure.remote(417, Calls.Checkpoint.class, Nothing.class);
  public static final Procedure<Calls.GuestInfo, Replies.GuestInfo> DOMAIN_GET_GUEST_INFO =
      Procedure.remote(418, Calls.GuestInfo.class, Replies.GuestInfo.class);
  public static final Procedure<Calls.BackupBegin, Nothing> DOMAIN_BACKUP_BEGIN =
      Procedure.remote(421, Calls.BackupBegin.class, Nothing.class);
  public static final Procedure<Calls.DomainFlags, Replies.Text> DOMAIN_BACKUP_GET_XML_DESC =
      Procedure.remote(422, Calls.DomainFlags.class, Replies.Text.class);
  public static final Procedure<Calls.DomainFlags, Replies.Messages> DOMAIN_GET_MESSAGES =
      Procedure.remote(426, Calls.DomainFlags.class, Replies.Messages.class);
  public static final Procedure<Calls.DomainFlags, Nothing> DOMAIN_ABORT_JOB_FLAGS =
      Procedure.remote(442, Calls.DomainFlags.class, Nothing.class);
  public static final Procedure<Calls.AgentCommand, Replies.MaybeText> QEMU_DOMAIN_AGENT_COMMAND =
      Procedure.of(Program.QEMU, 3, Calls.AgentCommand.class, Replies.MaybeText.class);

  private Remote() {}
}
