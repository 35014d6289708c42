// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.ErrorCode;
import io.tidemark.domain.ErrorDomain;
import io.tidemark.domain.LibvirtException;
import io.tidemark.rpc.Replies;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;

/// The machine, as the kernel tells it. What cannot be read is told as the least it can be.
///
/// @param proc `/proc`
/// @param nodes the folder that has one `nodeN` for each NUMA node
record HostInfo(Path proc, Path nodes) {
  static HostInfo system() {
    return new HostInfo(Path.of("/proc"), Path.of("/sys/devices/system/node"));
  }

  String hostname() throws IOException {
    return Files.readString(proc.resolve("sys/kernel/hostname")).strip();
  }

  /// virNodeGetInfo: `nodes × sockets × cores × threads` is the number of CPUs; where the kernel's
  /// numbers do not multiply to it, all CPUs are told as cores of one socket.
  Replies.NodeInfo node() throws IOException {
    int cpus = 0;
    int mhz = 0;
    int cores = 1;
    int siblings = 1;
    Set<String> packages = new HashSet<>();
    for (String line : lines("cpuinfo")) {
      int colon = line.indexOf(':');
      String value = line.substring(colon + 1).strip();
      switch (line.substring(0, Math.max(colon, 0)).strip()) {
        case "processor" -> cpus++;
        case "cpu MHz" -> mhz = (int) decimal(value);
        case "cpu cores" -> cores = (int) Math.max(1, decimal(value));
        case "siblings" -> siblings = (int) Math.max(1, decimal(value));
        case "physical id" -> packages.add(value);
        default -> {}
      }
    }
    cpus = Math.max(1, cpus);
    int nodes = cells();
    int sockets = Math.max(1, packages.size() / nodes);
    int threads = Math.max(1, siblings / cores);
    boolean whole = (long) nodes * sockets * cores * threads == cpus;
    return whole
        ? new Replies.NodeInfo(model(), memoryKib(), cpus, mhz, nodes, sockets, cores, threads)
        : new Replies.NodeInfo(model(), memoryKib(), cpus, mhz, 1, 1, cpus, 1);
  }

  private long memoryKib() throws IOException {
    return kib(lines("meminfo"), "MemTotal");
  }

  private static long kib(List<String> meminfo, String field) {
    for (String line : meminfo) {
      String[] words = line.strip().split("\\s+");
      for (int i = 0; i + 1 < words.length; i++) {
        if (words[i].equals(field + ":")) {
          return (long) decimal(words[i + 1]);
        }
      }
    }
    return 0;
  }

  long freeMemoryBytes() throws IOException {
    return kib(lines("meminfo"), "MemFree") << 10;
  }

  /// Of the cells `[start, end)`.
  List<Long> cellsFreeBytes(int start, int end) throws IOException {
    List<Long> free = new ArrayList<>();
    for (int cell = start; cell < end; cell++) {
      free.add(kib(cellMeminfo(cell), "MemFree") << 10);
    }
    return free;
  }

  /// Of a host that does not tell its cells, the one has all.
  private List<String> cellMeminfo(int cell) throws IOException {
    Path file = nodes.resolve("node" + cell).resolve("meminfo");
    return Files.exists(file) ? Files.readAllLines(file) : lines("meminfo");
  }

  /// virNodeGetMemoryStats, KiB.
  ///
  /// @param cell −1 for the whole host
  List<Replies.NodeStat> memoryStats(int cell) throws IOException, LibvirtException {
    if (cell == -1) {
      List<String> all = lines("meminfo");
      return List.of(
          new Replies.NodeStat("total", kib(all, "MemTotal")),
          new Replies.NodeStat("free", kib(all, "MemFree")),
          new Replies.NodeStat("buffers", kib(all, "Buffers")),
          new Replies.NodeStat("cached", kib(all, "Cached")));
    }
    int last = cells() - 1;
    if (cell < 0 || cell > last) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          ErrorDomain.NONE,
          "cellNum in virHostMemGetStats must be less than or equal to " + last);
    }
    List<String> one = cellMeminfo(cell);
    return List.of(
        new Replies.NodeStat("total", kib(one, "MemTotal")),
        new Replies.NodeStat("free", kib(one, "MemFree")));
  }

  /// virNodeGetCPUStats, nanoseconds; the kernel counts hundredths of a second.
  ///
  /// @param cpu −1 for all
  List<Replies.NodeStat> cpuStats(int cpu) throws IOException, LibvirtException {
    String wanted = cpu == -1 ? "cpu" : "cpu" + cpu;
    for (String line : lines("stat")) {
      String[] words = line.split("\\s+");
      if (words[0].equals(wanted) && words.length > 7) {
        return List.of(
            new Replies.NodeStat("kernel", ticks(words, 3, 6, 7)),
            new Replies.NodeStat("user", ticks(words, 1, 2)),
            new Replies.NodeStat("idle", ticks(words, 4)),
            new Replies.NodeStat("iowait", ticks(words, 5)));
      }
    }
    throw new LibvirtException(
        ErrorCode.INVALID_ARG, ErrorDomain.NONE, "Invalid cpuNum in virHostCPUGetStatsLinux");
  }

  private static long ticks(String[] words, int... fields) {
    long sum = 0;
    for (int field : fields) {
      sum += (long) decimal(words[field]);
    }
    return sum * 10_000_000;
  }

  /// NUMA nodes, at least one.
  int cells() throws IOException {
    if (!Files.isDirectory(nodes)) {
      return 1;
    }
    try (Stream<Path> entries = Files.list(nodes)) {
      long count =
          entries.filter(each -> each.getFileName().toString().matches("node[0-9]+")).count();
      return (int) Math.max(1, count);
    }
  }

  private List<String> lines(String file) throws IOException {
    return Files.readAllLines(proc.resolve(file));
  }

  private static double decimal(String text) {
    try {
      return Double.parseDouble(text);
    } catch (NumberFormatException e) {
      return 0;
    }
  }

  private static String model() {
    String arch = System.getProperty("os.arch", "unknown");
    return arch.equals("amd64") ? "x86_64" : arch;
  }
}
