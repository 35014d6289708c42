// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.node;
import static io.tidemark.engine.Rig.reporting;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.TransactionAction.AddBitmap;
import io.tidemark.domain.spi.TransactionAction.StartBackup;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/// An engine in a process of its own, to be killed.
final class EngineProcess implements AutoCloseable {
  /// What the domain is at when the process dies.
  enum Busy {
    IDLE,
    COPYING,
    BACKING_UP,
    /// Copies as fast as it can, and says how that ended.
    COPYING_TO_THE_END
  }

  private final Process process;
  private final BufferedReader out;

  private EngineProcess(Process process) {
    this.process = process;
    this.out = process.inputReader();
  }

  /// Starts a domain `vm` whose `vda` is `vda.qcow2` in `dir`, with a new persistent bitmap `c1`,
  /// or `vda.raw`, and returns when it serves.
  static EngineProcess start(Path dir, Busy busy) throws IOException {
    return start(dir, busy, List.of());
  }

  /// The same in a process that cannot write beyond `bytes` in any file, as on a full disk.
  static EngineProcess startWithFullDisk(Path dir, Busy busy, long bytes) throws IOException {
    return start(dir, busy, List.of("prlimit", "--fsize=" + bytes));
  }

  private static EngineProcess start(Path dir, Busy busy, List<String> before) throws IOException {
    var command = new ArrayList<String>(before);
    command.addAll(
        List.of(
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "-Xmx256m",
            "-XX:TieredStopAtLevel=1",
            "--enable-native-access=ALL-UNNAMED",
            "-cp",
            System.getProperty("java.class.path"),
            EngineProcess.class.getName(),
            dir.toString(),
            busy.name()));
    var engine =
        new EngineProcess(
            new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start());
    String line = engine.says();
    if (!line.equals("ready")) {
      engine.kill();
      throw new AssertionError("the engine's process said " + line);
    }
    return engine;
  }

  /// The next line of the process.
  String says() throws IOException {
    return String.valueOf(out.readLine());
  }

  /// SIGKILL; returns when the process is gone.
  void kill() {
    process.destroyForcibly();
    try {
      if (!process.waitFor(20, TimeUnit.SECONDS)) {
        throw new AssertionError("process " + process.pid() + " outlives SIGKILL");
      }
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
  }

  @Override
  public void close() {
    kill();
  }

  public static void main(String[] arguments) throws IOException {
    var rig = new Rig(Path.of(arguments[0]));
    Busy busy = Busy.valueOf(arguments[1]);
    RunningDomain domain = launch(rig);
    switch (busy) {
      case IDLE -> {}
      case COPYING -> copy(rig, domain, 1 << 20);
      case BACKING_UP -> {
        domain.addNode(node("n2", rig.create("backup.qcow2", "qcow2"), "qcow2"));
        domain.transaction(
            List.of(new StartBackup("vda", "backup", "n2", Optional.empty(), 1 << 20)));
      }
      case COPYING_TO_THE_END -> copy(rig, domain, 0);
    }
    say("ready");
    if (busy == Busy.COPYING_TO_THE_END) {
      rig.statuses.await("copy", DriverJobStatus.CONCLUDED);
      say("copy: " + domain.jobs().getFirst().error().map(DriverException::kind));
    }
    int end = System.in.read(); // the parent's end, should it die first
    System.exit(end < 0 ? 0 : 1);
  }

  private static RunningDomain launch(Rig rig) throws IOException {
    if (Files.exists(rig.file("vda.raw"))) {
      return rig.launch(reporting("vda", node("n1", rig.file("vda.raw"), "raw")));
    }
    RunningDomain domain = rig.launch(reporting("vda", node("n1", rig.file("vda.qcow2"), "qcow2")));
    domain.transaction(List.of(new AddBitmap("vda", "c1", 65536, true)));
    return domain;
  }

  private static void copy(Rig rig, RunningDomain domain, long bandwidth) throws IOException {
    domain.addNode(node("n2", rig.create("copy.qcow2", "qcow2"), "qcow2"));
    domain.startMirror(new MirrorSpec("copy", "vda", "n2", false, true, 0, bandwidth, 0, false));
  }

  private static void say(String line) {
    System.out.println(line);
    System.out.flush();
  }
}
