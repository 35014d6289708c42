// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.rpc.Replies;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class HostInfoTest {
  private static final String CPU =
      """
      processor : %d
      cpu MHz   : 2599.998
      physical id : %d
      siblings  : 4
      cpu cores : 2

      """;

  @Test
  void multipliesToTheNumberOfCpus(@TempDir Path dir) throws IOException {
    StringBuilder text = new StringBuilder();
    for (int cpu = 0; cpu < 8; cpu++) {
      text.append(CPU.formatted(cpu, cpu / 4));
    }
    Replies.NodeInfo info = read(dir, text.toString());
    assertThat(info.cpus()).isEqualTo(8);
    assertThat(info.mhz()).isEqualTo(2599);
    assertThat(info.memoryKib()).isEqualTo(24_576_000);
    assertThat(info.nodes()).isEqualTo(1);
    assertThat(info.sockets()).isEqualTo(2);
    assertThat(info.cores()).isEqualTo(2);
    assertThat(info.threads()).isEqualTo(2);
  }

  @Test
  void tellsOneSocketWhenTheKernelsNumbersDoNotMultiply(@TempDir Path dir) throws IOException {
    Replies.NodeInfo info = read(dir, CPU.formatted(0, 0) + CPU.formatted(1, 0));
    assertThat(info.cpus()).isEqualTo(2);
    assertThat(info.sockets()).isEqualTo(1);
    assertThat(info.cores()).isEqualTo(2);
    assertThat(info.threads()).isEqualTo(1);
  }

  @Test
  void readsThisMachine() throws IOException {
    Replies.NodeInfo info = HostInfo.system().node();
    assertThat(info.cpus()).isPositive();
    assertThat(info.memoryKib()).isPositive();
    assertThat(HostInfo.system().hostname()).isNotEmpty();
  }

  private static Replies.NodeInfo read(Path dir, String cpuinfo) throws IOException {
    Files.writeString(dir.resolve("cpuinfo"), cpuinfo);
    Files.writeString(dir.resolve("meminfo"), "MemTotal:       24576000 kB\nMemFree: 1 kB\n");
    return new HostInfo(dir, dir.resolve("none")).node();
  }
}
