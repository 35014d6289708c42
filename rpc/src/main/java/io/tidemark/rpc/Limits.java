// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

/// The limits of libvirt's protocol, in its own numbers, and those of our server. A peer that
/// passes one is answered with an error or, where framing is lost, cut off.
public final class Limits {
  /// A whole packet, its length word left out.
  public static final int PACKET_BYTES = 33_554_432;

  /// What follows the header.
  static final int PAYLOAD_BYTES = PACKET_BYTES - 24;

  public static final int STRING_BYTES = 4_194_304;
  public static final int DOMAINS = 16_384;
  public static final int CHECKPOINTS = 16_384;
  public static final int SNAPSHOTS = 16_384;
  public static final int STORAGE_POOLS = 16_384;
  public static final int DOMAIN_NAMES = 16_384;
  public static final int DOMAIN_STATS_PARAMETERS = 262_144;
  public static final int JOB_STATS_PARAMETERS = 64;
  public static final int BLOCK_STATS_PARAMETERS = 16;
  public static final int BLOCK_COPY_PARAMETERS = 16;
  public static final int BLOCK_IO_TUNE_PARAMETERS = 32;
  public static final int MIGRATE_PARAMETERS = 64;
  public static final int MIGRATE_COOKIE_BYTES = 4_194_304;
  public static final int TUNABLE_PARAMETERS = 2_048;
  public static final int BLOCK_PEEK_BYTES = 4_194_304;
  public static final int DISK_ERRORS = 256;
  public static final int FILE_SYSTEMS = 256;
  public static final int FILE_SYSTEM_DISKS = 256;
  public static final int FREEZE_MOUNTPOINTS = 256;
  public static final int MESSAGES = 2_048;
  public static final int GUEST_INFO_PARAMETERS = 2_048;
  public static final int NODE_CELLS = 1_024;
  public static final int NODE_STATS = 16;
  public static final int CPU_MAP_BYTES = 2_048;
  public static final int AUTH_TYPES = 20;
  public static final int SECURITY_MODEL_CHARS = 257;
  public static final int SECURITY_LABEL_CHARS = 4_097;

  /// Clients of writable sockets at a time.
  public static final int CLIENTS = 1_000;

  /// Clients of read-only sockets at a time.
  public static final int READ_ONLY_CLIENTS = 100;

  /// A packet of a read-only client, its length word left out.
  public static final int READ_ONLY_PACKET_BYTES = 1 << 20;

  /// Calls of one client that are read and not yet answered, as libvirtd.
  public static final int CALLS_IN_FLIGHT = 5;

  /// Events that wait for one client.
  public static final int QUEUED_EVENTS = 10_000;

  /// What the events that wait for one client may take.
  public static final int QUEUED_EVENT_BYTES = 16 << 20;

  private Limits() {}
}
