// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.PromisedBlocks;
import io.tidemark.testkit.Seeds;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Random;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

/// What FUA and FLUSH promise over NBD, on a file that loses power under several connections.
class PowerCutTest {
  private static final int WRITERS = 4;

  @TempDir Path folder;

  @ParameterizedTest
  @Seeds(40)
  void whatWasForcedOrFlushedOnAnyConnectionSurvives(long seed) throws Exception {
    var blocks = new PromisedBlocks(WRITERS, 64);
    CrashingFile file = CrashingFile.ofSize(seed, blocks.size());
    Path socket = folder.resolve("s.sock");
    try (var server = new ExportServer()) {
      server.addExport(Export.of("vda", file));
      server.listen(socket);
      file.cutPowerAt(1 + new Random(seed).nextInt(400));
      var threads = new ArrayList<Thread>();
      for (int i = 0; i < WRITERS; i++) {
        int writer = i;
        var peer = new RawPeer(socket).greeted().go("vda");
        threads.add(
            Thread.ofPlatform()
                .start(() -> {
                  blocks.write(writer, seed, new Peer(peer));
                }));
      }
      for (Thread thread : threads) {
        thread.join();
      }
      assertThat(file.powerIsCut()).isTrue();
    }
    for (long crash = 0; crash < 4; crash++) {
      blocks.verify(file.crash(seed * 10 + crash));
    }
  }

  private record Peer(RawPeer peer) implements PromisedBlocks.Guest {
    @Override
    public void write(long offset, byte[] bytes, boolean forced) throws IOException {
      ask(Wire.Command.WRITE, forced, offset, bytes.length, bytes);
    }

    @Override
    public void zero(long offset, int length, boolean forced) throws IOException {
      ask(Wire.Command.WRITE_ZEROES, forced, offset, length);
    }

    @Override
    public void flush() throws IOException {
      ask(Wire.Command.FLUSH, false, 0, 0);
    }

    private void ask(int command, boolean forced, long offset, long length, byte... data)
        throws IOException {
      int flags = forced ? Wire.CommandFlag.FUA : 0;
      if (peer.error(command, flags, offset, length, data) != 0) {
        peer.close();
        throw new IOException("refused");
      }
    }
  }
}
