// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ZeroMode;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.ScratchFolder;
import io.tidemark.testkit.Tool;
import java.nio.ByteBuffer;
import java.nio.LongBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/// Kill -9 of `export serve` while clients write: QEMU finds no corruption in what is left, and
/// what was acknowledged is there when it is served again. `-Dexport.kill.rounds=N` for more,
/// `-Dseed=N` for other moments.
@Tag("interop")
class ExportKillIT {
  private static final int ROUNDS = Integer.getInteger("export.kill.rounds", 8);
  private static final long SEED = Long.getLong("seed", 20261122L);
  private static final int CLIENTS = 3;
  private static final int BLOCK = 4096;
  private static final int BLOCKS = 1024; // of one client
  private static final int ROUNDS_OF_AN_IMAGE = 10;

  private final Random random = new Random(SEED);
  private final Tool qemuImg = Tool.require("qemu-img");

  @Test
  void whatWasAcknowledgedIsThereAndNothingIsCorrupt() throws Exception {
    long acknowledged = 0;
    for (int done = 0; done < ROUNDS; done += ROUNDS_OF_AN_IMAGE) {
      try (var folder = new ScratchFolder()) {
        acknowledged += oneImage(folder.path(), Math.min(ROUNDS_OF_AN_IMAGE, ROUNDS - done), done);
      }
    }
    System.out.println(ROUNDS + " kills, " + acknowledged + " acknowledged requests");
  }

  private long oneImage(Path folder, int rounds, int number) throws Exception {
    Path image = folder.resolve("image.qcow2");
    Path socket = folder.resolve("s.sock");
    String options = create(folder, image, number);
    var regions = new ArrayList<Region>();
    for (int i = 0; i < CLIENTS; i++) {
      regions.add(new Region(i, SEED + number + i));
    }
    String[] words = {"-k", socket.toString(), "-f", "qcow2", "-t", "-e", "0", image.toString()};
    try (TidemarkProcess server = TidemarkProcess.export(folder, words)) {
      for (int round = 0; round < rounds; round++) {
        var writers = new ArrayList<Thread>();
        for (Region region : regions) {
          region.stop = false;
          writers.add(Thread.ofPlatform().start(() -> region.write(socket)));
        }
        LockSupport.parkNanos(50_000_000L + random.nextInt(400) * 1_000_000L);
        server.kill();
        for (int i = 0; i < CLIENTS; i++) {
          regions.get(i).stop = true;
          writers.get(i).join();
        }
        Tool.Result check = qemuImg.run("check", "-f", "qcow2", image);
        assertThat(check.exit()).as("%s: %s", options, check.text()).isIn(0, 3);
        server.start();
        try (NbdClient disk = connect(socket)) {
          for (Region region : regions) {
            region.verify(disk, options + ", kill " + round);
          }
        }
      }
      assertThat(server.stop()).isZero();
    }
    Tool.Result check = qemuImg.run("check", "-f", "qcow2", image);
    assertThat(check.exit()).as("%s: %s", options, check.text()).isIn(0, 3);
    return regions.stream().mapToLong(region -> region.acknowledged).sum();
  }

  private String create(Path folder, Path image, int number) {
    List<String> kinds =
        List.of(
            "cluster_size=65536",
            "cluster_size=4096",
            "cluster_size=16384,extended_l2=on",
            "cluster_size=512,refcount_bits=1",
            "cluster_size=65536,compat=0.10",
            "cluster_size=2M,refcount_bits=64");
    String options = kinds.get(number / ROUNDS_OF_AN_IMAGE % kinds.size());
    long size = (long) CLIENTS * BLOCKS * BLOCK;
    if (random.nextBoolean()) {
      qemuImg.ok("create", "-q", "-f", "qcow2", "-o", options, image, "" + size);
      return options;
    }
    Path base = folder.resolve("base.qcow2");
    qemuImg.ok("create", "-q", "-f", "qcow2", base, "" + size / 2);
    qemuImg.ok(
        "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", "-o", options, image, "" + size);
    return options + " over a backing file";
  }

  private static NbdClient connect(Path socket) throws BlockException {
    return NbdClient.connect(NbdUri.unix(socket, ""), ClientOptions.defaults());
  }

  /// A client's part of the disk: what each block was last acknowledged to hold, and what a request
  /// without an answer may have made of it.
  private static final class Region {
    private static final long NOTHING = -1;

    private final int first; // block
    private final Random random;
    private final long[] holds = new long[BLOCKS];
    private final long[] maybe = new long[BLOCKS];
    private long stamp;
    private long acknowledged;
    private volatile boolean stop;

    Region(int index, long seed) {
      first = index * BLOCKS;
      random = new Random(seed);
      java.util.Arrays.fill(maybe, NOTHING);
    }

    void write(Path socket) {
      try (NbdClient disk = connect(socket)) {
        while (!stop) {
          step(disk);
        }
      } catch (BlockException _) {
        // the server was killed
      }
    }

    private void step(BlockNode disk) throws BlockException {
      int from = random.nextInt(BLOCKS);
      int count = 1 + random.nextInt(Math.min(BLOCKS - from, 40));
      boolean data = random.nextInt(4) != 0;
      long value = data ? ++stamp << 8 | first / BLOCKS : 0;
      java.util.Arrays.fill(maybe, from, from + count, value);
      long at = (long) (first + from) * BLOCK;
      if (data) {
        ByteBuffer bytes = ByteBuffer.allocate(count * BLOCK);
        LongBuffer longs = bytes.asLongBuffer();
        while (longs.hasRemaining()) {
          longs.put(value);
        }
        disk.write(at, bytes);
      } else {
        ZeroMode mode = random.nextBoolean() ? ZeroMode.MAY_UNMAP : ZeroMode.NO_UNMAP;
        disk.writeZeroes(at, (long) count * BLOCK, mode);
      }
      java.util.Arrays.fill(holds, from, from + count, value);
      java.util.Arrays.fill(maybe, from, from + count, NOTHING);
      acknowledged++;
      if (random.nextInt(20) == 0) {
        disk.flush();
      }
    }

    /// What was on its way may be there or not, in each block.
    void verify(BlockNode disk, String where) throws BlockException {
      ByteBuffer bytes = ByteBuffer.allocate(BLOCKS * BLOCK);
      disk.read((long) first * BLOCK, bytes);
      LongBuffer longs = bytes.flip().asLongBuffer();
      for (int block = 0; block < BLOCKS; block++) {
        for (int i = 0; i < BLOCK / 8; i++) {
          long found = longs.get();
          if (found != holds[block] && (maybe[block] == NOTHING || found != maybe[block])) {
            throw new AssertionError(
                where
                    + ": block "
                    + (first + block)
                    + " holds 0x"
                    + Long.toHexString(found)
                    + " at "
                    + 8 * i
                    + ", acknowledged was 0x"
                    + Long.toHexString(holds[block])
                    + ", on its way 0x"
                    + Long.toHexString(maybe[block]));
          }
        }
      }
      settle(disk);
    }

    /// Blocks that may hold either are written, so that the next round knows what they hold.
    private void settle(BlockNode disk) throws BlockException {
      for (int block = 0; block < BLOCKS; block++) {
        if (maybe[block] != NOTHING) {
          disk.writeZeroes((long) (first + block) * BLOCK, BLOCK, ZeroMode.MAY_UNMAP);
          holds[block] = 0;
          maybe[block] = NOTHING;
        }
      }
    }
  }
}
