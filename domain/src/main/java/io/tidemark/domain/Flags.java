// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// libvirt's flag bits, by the verb that takes them.
public final class Flags {
  private Flags() {}

  // virDomainXMLFlags
  public static final int XML_SECURE = 1;
  public static final int XML_INACTIVE = 2;
  public static final int XML_UPDATE_CPU = 4;
  public static final int XML_MIGRATABLE = 8;

  // virDomainDefineFlags
  public static final int DEFINE_VALIDATE = 1;

  // virDomainCreateFlags
  public static final int START_PAUSED = 1;
  public static final int START_AUTODESTROY = 2;
  public static final int START_BYPASS_CACHE = 4;
  public static final int START_FORCE_BOOT = 8;
  public static final int START_VALIDATE = 16;
  public static final int START_RESET_NVRAM = 32;

  // virDomainShutdownFlagValues and virDomainRebootFlagValues, those that QEMU's driver takes
  public static final int SHUTDOWN_ACPI_POWER_BTN = 1;
  public static final int SHUTDOWN_GUEST_AGENT = 2;

  // virDomainDestroyFlagsValues
  public static final int DESTROY_GRACEFUL = 1;
  public static final int DESTROY_REMOVE_LOGS = 2;

  // virDomainUndefineFlagsValues
  /// What virDomainGetMessages chooses from: VIR_DOMAIN_MESSAGE_DEPRECATION and _TAINTING.
  static final int MESSAGES = 1 | 2;

  public static final int UNDEFINE_MANAGED_SAVE = 1;
  public static final int UNDEFINE_SNAPSHOTS_METADATA = 2;
  public static final int UNDEFINE_NVRAM = 4;
  public static final int UNDEFINE_KEEP_NVRAM = 8;
  public static final int UNDEFINE_CHECKPOINTS_METADATA = 16;
  public static final int UNDEFINE_TPM = 32;
  public static final int UNDEFINE_KEEP_TPM = 64;

  // virConnectListAllDomainsFlags
  public static final int LIST_ACTIVE = 1;
  public static final int LIST_INACTIVE = 2;
  public static final int LIST_PERSISTENT = 4;
  public static final int LIST_TRANSIENT = 8;
  public static final int LIST_RUNNING = 16;
  public static final int LIST_PAUSED = 32;
  public static final int LIST_SHUTOFF = 64;
  public static final int LIST_OTHER = 128;
  public static final int LIST_MANAGEDSAVE = 256;
  public static final int LIST_NO_MANAGEDSAVE = 512;
  public static final int LIST_AUTOSTART = 1024;
  public static final int LIST_NO_AUTOSTART = 2048;
  public static final int LIST_HAS_SNAPSHOT = 4096;
  public static final int LIST_NO_SNAPSHOT = 8192;
  public static final int LIST_HAS_CHECKPOINT = 16384;
  public static final int LIST_NO_CHECKPOINT = 32768;

  // virDomainBlockRebaseFlags
  public static final int REBASE_SHALLOW = 1;
  public static final int REBASE_REUSE_EXT = 2;
  public static final int REBASE_COPY_RAW = 4;
  public static final int REBASE_COPY = 8;
  public static final int REBASE_RELATIVE = 16;
  public static final int REBASE_COPY_DEV = 32;
  public static final int REBASE_BANDWIDTH_BYTES = 64;

  // virDomainBlockCopyFlags
  public static final int COPY_SHALLOW = 1;
  public static final int COPY_REUSE_EXT = 2;
  public static final int COPY_TRANSIENT_JOB = 4;
  public static final int COPY_SYNCHRONOUS_WRITES = 8;

  // virDomainBlockPullFlags: REBASE_BANDWIDTH_BYTES

  // virDomainBlockCommitFlags
  public static final int COMMIT_SHALLOW = 1;
  public static final int COMMIT_DELETE = 2;
  public static final int COMMIT_ACTIVE = 4;
  public static final int COMMIT_RELATIVE = 8;
  public static final int COMMIT_BANDWIDTH_BYTES = 16;

  // virDomainBlockResizeFlags
  public static final int RESIZE_BYTES = 1;
  public static final int RESIZE_CAPACITY = 2;

  // virDomainBlockJobAbortFlags
  public static final int ABORT_ASYNC = 1;
  public static final int ABORT_PIVOT = 2;

  // virDomainBlockJobInfoFlags and virDomainBlockJobSetSpeedFlags
  public static final int BANDWIDTH_BYTES = 1;

  // virDomainCheckpointCreateFlags
  public static final int CHECKPOINT_REDEFINE = 1;
  public static final int CHECKPOINT_QUIESCE = 2;
  public static final int CHECKPOINT_REDEFINE_VALIDATE = 4;

  // virDomainCheckpointXMLFlags
  public static final int CHECKPOINT_XML_SECURE = 1;
  public static final int CHECKPOINT_XML_NO_DOMAIN = 2;
  public static final int CHECKPOINT_XML_SIZE = 4;

  // virDomainCheckpointListFlags
  public static final int CHECKPOINT_LIST_ROOTS = 1;
  public static final int CHECKPOINT_LIST_DESCENDANTS = 1;
  public static final int CHECKPOINT_LIST_TOPOLOGICAL = 2;
  public static final int CHECKPOINT_LIST_LEAVES = 4;
  public static final int CHECKPOINT_LIST_NO_LEAVES = 8;

  // virDomainCheckpointDeleteFlags
  public static final int CHECKPOINT_DELETE_CHILDREN = 1;
  public static final int CHECKPOINT_DELETE_METADATA_ONLY = 2;
  public static final int CHECKPOINT_DELETE_CHILDREN_ONLY = 4;

  // virDomainSnapshotCreateFlags
  public static final int SNAPSHOT_REDEFINE = 1;
  public static final int SNAPSHOT_CURRENT = 2;
  public static final int SNAPSHOT_NO_METADATA = 4;
  public static final int SNAPSHOT_HALT = 8;
  public static final int SNAPSHOT_DISK_ONLY = 16;
  public static final int SNAPSHOT_REUSE_EXT = 32;
  public static final int SNAPSHOT_QUIESCE = 64;
  public static final int SNAPSHOT_ATOMIC = 128;
  public static final int SNAPSHOT_LIVE = 256;
  public static final int SNAPSHOT_VALIDATE = 512;

  // virDomainSnapshotXMLFlags
  public static final int SNAPSHOT_XML_SECURE = 1;

  // virDomainSnapshotListFlags; ROOTS, DESCENDANTS, LEAVES, NO_LEAVES are those of checkpoints
  public static final int SNAPSHOT_LIST_ROOTS = 1;
  public static final int SNAPSHOT_LIST_METADATA = 2;
  public static final int SNAPSHOT_LIST_LEAVES = 4;
  public static final int SNAPSHOT_LIST_NO_LEAVES = 8;
  public static final int SNAPSHOT_LIST_NO_METADATA = 16;
  public static final int SNAPSHOT_LIST_INACTIVE = 32;
  public static final int SNAPSHOT_LIST_ACTIVE = 64;
  public static final int SNAPSHOT_LIST_DISK_ONLY = 128;
  public static final int SNAPSHOT_LIST_INTERNAL = 256;
  public static final int SNAPSHOT_LIST_EXTERNAL = 512;
  public static final int SNAPSHOT_LIST_TOPOLOGICAL = 1024;

  // virDomainSnapshotDeleteFlags
  public static final int SNAPSHOT_DELETE_CHILDREN = 1;
  public static final int SNAPSHOT_DELETE_METADATA_ONLY = 2;
  public static final int SNAPSHOT_DELETE_CHILDREN_ONLY = 4;

  // virDomainSnapshotRevertFlags
  public static final int SNAPSHOT_REVERT_RUNNING = 1;
  public static final int SNAPSHOT_REVERT_PAUSED = 2;
  public static final int SNAPSHOT_REVERT_FORCE = 4;
  public static final int SNAPSHOT_REVERT_RESET_NVRAM = 8;

  // virDomainAbortJobFlagsValues
  public static final int ABORT_JOB_POSTCOPY = 1;

  // virDomainBackupBeginFlags
  public static final int BACKUP_REUSE_EXTERNAL = 1;

  // virDomainGetJobStatsFlags
  public static final int JOB_STATS_COMPLETED = 1;
  public static final int JOB_STATS_KEEP_COMPLETED = 2;

  // virDomainStatsTypes
  public static final int STATS_STATE = 1;
  public static final int STATS_CPU_TOTAL = 2;
  public static final int STATS_BALLOON = 4;
  public static final int STATS_VCPU = 8;
  public static final int STATS_INTERFACE = 16;
  public static final int STATS_BLOCK = 32;

  /// All of virDomainStatsTypes that libvirt 9.0 knows.
  public static final int STATS_ALL = 0x7ff;

  // virConnectGetAllDomainStatsFlags; those that choose domains are virConnectListAllDomainsFlags
  public static final int STATS_LIST = 0xff;
  public static final int STATS_NOWAIT = 1 << 29;
  public static final int STATS_BACKING = 1 << 30;
  public static final int STATS_ENFORCE = 1 << 31;

  /// Refuses bits outside `allowed`, as libvirt words it.
  ///
  /// @param function libvirt's name of the driver function: clients see it
  static void check(int flags, int allowed, String function) throws LibvirtException {
    check(flags, allowed, ErrorDomain.HYPERVISOR, function);
  }

  /// As the other, for functions that libvirt has elsewhere.
  public static void check(int flags, int allowed, ErrorDomain domain, String function)
      throws LibvirtException {
    int unknown = flags & ~allowed;
    if (unknown != 0) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          domain,
          "unsupported flags (0x%x) in function %s".formatted(unknown, function));
    }
  }

  /// Refuses `flag` without `needed`.
  static void require(
      int flags, int flag, String flagName, int needed, String neededName, ErrorDomain domain)
      throws LibvirtException {
    if (has(flags, flag) && !has(flags, needed)) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          domain,
          "Flag '%s' is required by flag '%s'".formatted(neededName, flagName));
    }
  }

  /// Refuses two flags together.
  static void exclusive(
      int flags, int one, String oneName, int other, String otherName, ErrorDomain domain)
      throws LibvirtException {
    if (has(flags, one) && has(flags, other)) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          domain,
          "Flags '%s' and '%s' are mutually exclusive".formatted(oneName, otherName));
    }
  }

  static boolean has(int flags, int bit) {
    return (flags & bit) != 0;
  }
}
