// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// virtnbdbackup, unmodified: what it takes off a running domain, it restores, and that is what the
/// guest had.
@Tag("interop")
class VirtnbdbackupIT {
  private static final Duration LIMIT = Duration.ofMinutes(3);

  @TempDir Path folder;

  /// It asks for a name and a password whenever the URI is not one of its own kinds.
  private static String run(String program, TidemarkProcess daemon, Object... words) {
    Tool tool = Tool.require(program).timeout(LIMIT);
    Object[] all =
        Stream.concat(
                Stream.of("-U", daemon.uri(), "--user", "x", "--password", "x"), Stream.of(words))
            .toArray();
    return tool.ok(all).out();
  }

  /// virtnbdrestore waits 20 seconds for the qemu-nbd that it starts, which a busy machine may not
  /// give it, and leaves it running then.
  private void restore(TidemarkProcess daemon, Path backup, Path to) throws IOException {
    Object[] words = {"-U", daemon.uri(), "--user", "x", "--password", "x", "-i", backup, "-o", to};
    Tool tool = Tool.require("virtnbdrestore").timeout(LIMIT);
    Tool.Result result = tool.run(words);
    for (int again = 0; again < 2 && gaveUp(result); again++) {
      endLeftServers();
      removeFiles(to);
      result = tool.run(words);
    }
    assertThat(result.exit()).as(result.text()).isZero();
  }

  private static boolean gaveUp(Tool.Result result) {
    return result.exit() != 0 && result.text().contains("Waiting for NBD Server");
  }

  private static void removeFiles(Path restored) throws IOException {
    if (Files.exists(restored)) {
      try (Stream<Path> files = Files.list(restored)) {
        for (Path file : files.toList()) {
          Files.delete(file);
        }
      }
      Files.delete(restored);
    }
  }

  /// Those that were started for a file in this test's own folder.
  @AfterEach
  void endLeftServers() {
    List<ProcessHandle> left =
        ProcessHandle.allProcesses()
            .filter(process -> process.info().command().orElse("").endsWith("/qemu-nbd"))
            .filter(process -> process.info().commandLine().orElse("").contains(folder.toString()))
            .toList();
    left.forEach(ProcessHandle::destroyForcibly);
    Patience.await().until(() -> left.stream().noneMatch(ProcessHandle::isAlive));
  }

  @Test
  void restoresFullIncrementsDifferenceAndCopyAsTheGuestHadThem() throws IOException {
    Tool.require("virtnbdbackup");
    Tool img = Tool.require("qemu-img");
    Path vda = OneDomain.newImage(folder, "vda", "48M");
    Path vdb = OneDomain.newImage(folder, "vdb", "16M");
    Path backup = folder.resolve("backup");
    Path restored = folder.resolve("restored");
    try (OneDomain domain = OneDomain.in(folder, "vm").disk("vda", vda).disk("vdb", vdb).start()) {
      Virsh virsh = domain.virsh();
      domain.io("vda", "write -P 0x11 1M 5M");
      domain.io("vdb", "write -P 0x22 0 1M");
      run("virtnbdbackup", domain.daemon(), "-d", "vm", "-l", "full", "-o", backup);
      domain.io("vda", "write -P 0x33 20M 2M");
      domain.io("vdb", "write -P 0x44 3M 64k");
      run("virtnbdbackup", domain.daemon(), "-d", "vm", "-l", "inc", "-o", backup);
      domain.io("vda", "write -P 0x55 2M 1M");
      domain.io("vda", "write -z 4M 1M");
      run("virtnbdbackup", domain.daemon(), "-d", "vm", "-l", "inc", "-z", "-o", backup);
      assertThat(virsh.ok("checkpoint-list", "vm", "--name").lines().filter(l -> !l.isBlank()))
          .containsExactly("virtnbdbackup.0", "virtnbdbackup.1", "virtnbdbackup.2");
      run("virtnbdbackup", domain.daemon(), "-d", "vm", "-l", "copy", "-o", folder.resolve("copy"));
      run("virtnbdrestore", domain.daemon(), "-i", backup, "-a", "dump", "-o", restored);
      restore(domain.daemon(), backup, restored);
      restore(domain.daemon(), folder.resolve("copy"), folder.resolve("copied"));
      run("virtnbdbackup", domain.daemon(), "-d", "vm", "-l", "diff", "-o", backup);
      assertThat(virsh.run("domjobinfo", "vm").out()).contains("None");
      virsh.ok("destroy", "vm");
    }
    for (Path disk : List.of(vda, vdb)) {
      img.ok("compare", "-q", disk, restored.resolve(disk.getFileName()));
      img.ok("compare", "-q", disk, folder.resolve("copied").resolve(disk.getFileName()));
      img.ok("check", "-q", disk);
    }
  }
}
