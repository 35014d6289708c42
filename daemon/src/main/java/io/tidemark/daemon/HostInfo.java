// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.rpc.Replies;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
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
    int nodes = nodeCount();
    int sockets = Math.max(1, packages.size() / nodes);
    int threads = Math.max(1, siblings / cores);
    boolean whole = (long) nodes * sockets * cores * threads == cpus;
    return whole
        ? new Replies.NodeInfo(model(), memoryKib(), cpus, mhz, nodes, sockets, cores, threads)
        : new Replies.NodeInfo(model(), memoryKib(), cpus, mhz, 1, 1, cpus, 1);
  }

  private long memoryKib() throws IOException {
    for (String line : lines("meminfo")) {
      if (line.startsWith("MemTotal:")) {
        return (long) decimal(line.replaceAll("[^0-9]", ""));
      }
    }
    return 0;
  }

  private int nodeCount() throws IOException {
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
