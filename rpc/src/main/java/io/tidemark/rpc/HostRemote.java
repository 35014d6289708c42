// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import io.tidemark.rpc.Calls.Nothing;
import java.util.List;
import java.util.Map;

/// The procedures about a host, and about what libvirt manages beside domains, under libvirt's own
/// names.
///
/// Spec: libvirt 9.0.0, remote_protocol.x (names, numbers, field order).
public final class HostRemote {
  public static final Procedure<Calls.MaybeName, Replies.Int> CONNECT_GET_MAX_VCPUS =
      Procedure.remote(5, Calls.MaybeName.class, Replies.Int.class);
  public static final Procedure<Calls.Cells, Replies.CellsFreeMemory> NODE_GET_CELLS_FREE_MEMORY =
      Procedure.remote(101, Calls.Cells.class, Replies.CellsFreeMemory.class);
  public static final Procedure<Nothing, Replies.Hyper> NODE_GET_FREE_MEMORY =
      Procedure.remote(102, Nothing.class, Replies.Hyper.class);
  public static final Procedure<Calls.NodeCpuStats, Replies.NodeStats> NODE_GET_CPU_STATS =
      Procedure.remote(227, Calls.NodeCpuStats.class, Replies.NodeStats.class);
  public static final Procedure<Calls.NodeMemoryStats, Replies.NodeStats> NODE_GET_MEMORY_STATS =
      Procedure.remote(228, Calls.NodeMemoryStats.class, Replies.NodeStats.class);
  public static final Procedure<Calls.CpuMap, Replies.CpuMap> NODE_GET_CPU_MAP =
      Procedure.remote(293, Calls.CpuMap.class, Replies.CpuMap.class);

  /// How many of a kind there are.
  public static final List<Procedure<Nothing, Replies.Int>> COUNTS =
      List.of(
          count(50), // CONNECT_NUM_OF_DEFINED_NETWORKS
          count(52), // CONNECT_NUM_OF_NETWORKS
          count(71), // CONNECT_NUM_OF_STORAGE_POOLS
          count(73), // CONNECT_NUM_OF_DEFINED_STORAGE_POOLS
          count(126), // CONNECT_NUM_OF_INTERFACES
          count(137), // CONNECT_NUM_OF_DEFINED_INTERFACES
          count(139), // CONNECT_NUM_OF_SECRETS
          count(178)); // CONNECT_NUM_OF_NWFILTERS

  /// The names of a kind.
  public static final List<Procedure<Calls.Most, Replies.Names>> NAMES =
      List.of(
          names(36), // CONNECT_LIST_DEFINED_NETWORKS
          names(38), // CONNECT_LIST_NETWORKS
          names(72), // CONNECT_LIST_STORAGE_POOLS
          names(74), // CONNECT_LIST_DEFINED_STORAGE_POOLS
          names(127), // CONNECT_LIST_INTERFACES
          names(138), // CONNECT_LIST_DEFINED_INTERFACES
          names(140), // CONNECT_LIST_SECRETS
          names(179)); // CONNECT_LIST_NWFILTERS

  /// All of a kind, as lists of which only the empty one is known here; with the flags that each
  /// takes. Storage pools are in [Remote].
  public static final Map<Procedure<Calls.ListAll, Replies.NoneListed>, Integer> LISTS =
      Map.of(
          list(283), // CONNECT_LIST_ALL_NETWORKS
          0x3f, list(284), // CONNECT_LIST_ALL_INTERFACES
          0x3, list(285), // CONNECT_LIST_ALL_NODE_DEVICES
          -1, list(286), // CONNECT_LIST_ALL_NWFILTERS
          0, list(287), // CONNECT_LIST_ALL_SECRETS
          0xf, list(401), // CONNECT_LIST_ALL_NWFILTER_BINDINGS
          0);

  public static final Procedure<Calls.DeviceCap, Replies.Int> NODE_NUM_OF_DEVICES =
      Procedure.remote(111, Calls.DeviceCap.class, Replies.Int.class);
  public static final Procedure<Calls.DevicesOfCap, Replies.Names> NODE_LIST_DEVICES =
      Procedure.remote(112, Calls.DevicesOfCap.class, Replies.Names.class);

  public static final Procedure<Calls.Name, Nothing> NETWORK_LOOKUP_BY_NAME = byName(46);
  public static final Procedure<Calls.Uuid, Nothing> NETWORK_LOOKUP_BY_UUID = byUuid(47);
  public static final Procedure<Calls.Name, Nothing> STORAGE_POOL_LOOKUP_BY_NAME = byName(84);
  public static final Procedure<Calls.Uuid, Nothing> STORAGE_POOL_LOOKUP_BY_UUID = byUuid(85);
  public static final Procedure<Calls.Name, Nothing> STORAGE_VOL_LOOKUP_BY_KEY = byName(96);
  public static final Procedure<Calls.Name, Nothing> STORAGE_VOL_LOOKUP_BY_PATH = byName(97);
  public static final Procedure<Calls.Name, Nothing> NODE_DEVICE_LOOKUP_BY_NAME = byName(113);
  public static final Procedure<Calls.Name, Nothing> INTERFACE_LOOKUP_BY_NAME = byName(128);
  public static final Procedure<Calls.Name, Nothing> INTERFACE_LOOKUP_BY_MAC_STRING = byName(129);
  public static final Procedure<Calls.Uuid, Nothing> SECRET_LOOKUP_BY_UUID = byUuid(141);
  public static final Procedure<Calls.SecretUsage, Nothing> SECRET_LOOKUP_BY_USAGE =
      Procedure.remote(147, Calls.SecretUsage.class, Nothing.class);
  public static final Procedure<Calls.Name, Nothing> NWFILTER_LOOKUP_BY_NAME = byName(175);
  public static final Procedure<Calls.Uuid, Nothing> NWFILTER_LOOKUP_BY_UUID = byUuid(176);
  public static final Procedure<Calls.Name, Nothing> NWFILTER_BINDING_LOOKUP_BY_PORT_DEV =
      byName(397);

  private HostRemote() {}

  private static Procedure<Nothing, Replies.Int> count(int number) {
    return Procedure.remote(number, Nothing.class, Replies.Int.class);
  }

  private static Procedure<Calls.Most, Replies.Names> names(int number) {
    return Procedure.remote(number, Calls.Most.class, Replies.Names.class);
  }

  private static Procedure<Calls.ListAll, Replies.NoneListed> list(int number) {
    return Procedure.remote(number, Calls.ListAll.class, Replies.NoneListed.class);
  }

  /// A look-up that finds nothing, so that its result has no form here.
  private static Procedure<Calls.Name, Nothing> byName(int number) {
    return Procedure.remote(number, Calls.Name.class, Nothing.class);
  }

  private static Procedure<Calls.Uuid, Nothing> byUuid(int number) {
    return Procedure.remote(number, Calls.Uuid.class, Nothing.class);
  }
}
