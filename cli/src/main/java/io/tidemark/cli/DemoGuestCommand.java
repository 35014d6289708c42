// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import java.io.IOException;
import java.nio.file.Path;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/// The demo's guest, a process of its own: writes until its standard input ends, so that it never
/// outlives the demo.
@Command(
    name = "demo-guest",
    hidden = true,
    description = "Writes to a disk without pause and notes what it wrote.",
    exitCodeOnInvalidInput = Tidemark.USAGE)
final class DemoGuestCommand implements Callable<Integer> {
  @Parameters(index = "0", paramLabel = "URI", description = "The disk, over NBD.")
  private String uri = "";

  @Parameters(
      index = "1",
      paramLabel = "PROOF",
      description = "Where to note it; made by the demo.")
  private Path proofFile = Path.of("");

  @Parameters(index = "2", paramLabel = "SEED", description = "What the operations follow from.")
  private long seed;

  private volatile boolean stop;

  @Override
  public Integer call() throws IOException {
    Thread.ofVirtual().name("demo-guest-stop").start(this::awaitEndOfInput);
    try (var disk = NbdClient.connect(NbdUri.parse(uri));
        var proof = GuestProof.open(proofFile)) {
      new GuestWriter(disk, proof, seed).run(() -> stop);
      disk.flush();
    }
    return ExitStatus.DONE.code();
  }

  private void awaitEndOfInput() {
    try {
      while (System.in.read() >= 0) {
        // Nothing is said to a guest but goodbye.
      }
    } catch (IOException e) {
      // As good as its end.
    }
    stop = true;
  }
}
