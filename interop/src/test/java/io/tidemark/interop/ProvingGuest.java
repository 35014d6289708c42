// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.WindowNode;
import io.tidemark.cli.GuestPattern;
import io.tidemark.cli.GuestProof;
import io.tidemark.cli.GuestVerdict;
import io.tidemark.cli.GuestWriter;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// A guest of a domain that never pauses and reconnects when its server goes, on a thread of its
/// own: it can say at any moment whether its disks hold all that was acknowledged to it.
///
/// It goes over its disks in turn, one operation on each: operation n of a disk is not sent before
/// operation n of the disk before it is acknowledged. So at any one instant the counts of two disks
/// are the same, or the earlier one is one ahead.
final class ProvingGuest implements AutoCloseable {
  /// How long it waits for a lost server before its requests fail, as a real guest with
  /// `reconnect-delay` does.
  static final Duration RECONNECT = Duration.ofSeconds(60);

  private final List<Disk> disks = new ArrayList<>();
  private final Thread thread;
  private final ReentrantLock step = new ReentrantLock(true);
  private volatile boolean stop;
  private volatile @Nullable Throwable
      failure; // what its writer met; a guest must never meet anything
  private volatile long longestNanos;
  private final Latencies.Counter latencies = new Latencies.Counter(); // guarded by `step`

  private record Disk(NbdUri uri, NbdClient client, GuestProof proof, GuestWriter writer) {
    static Disk of(NbdUri uri, Path proofFile, long seed) throws IOException {
      var client = NbdClient.connect(uri, ClientOptions.defaults().withReconnectDelay(RECONNECT));
      var proof = GuestProof.create(proofFile, client.virtualSize() / GuestPattern.BLOCK, 0);
      return new Disk(uri, client, proof, new GuestWriter(client, proof, seed));
    }
  }

  /// Connects to `target` of the domain whose guest socket this is, and begins to write. The disk
  /// must read as zeroes.
  ProvingGuest(Path socket, String target, Path proofFile, long seed) throws IOException {
    this(socket, List.of(target), proofFile, seed);
  }

  /// The same with several disks.
  ProvingGuest(Path socket, List<String> targets, Path proofFile, long seed) throws IOException {
    for (String target : targets) {
      Path file = proofFile.resolveSibling(proofFile.getFileName() + "-" + target);
      disks.add(Disk.of(NbdUri.unix(socket, target), file, seed + disks.size()));
    }
    thread = Thread.ofPlatform().name("guest").start(this::write);
  }

  private void write() {
    try {
      while (!stop) {
        step.lock();
        try {
          for (Disk disk : disks) {
            long start = System.nanoTime();
            disk.writer().step();
            long taken = System.nanoTime() - start;
            longestNanos = Math.max(longestNanos, taken);
            latencies.add(taken);
          }
        } finally {
          step.unlock();
        }
      }
    } catch (BlockException | RuntimeException e) {
      failure = e;
    }
  }

  /// What it did to its first disk.
  GuestProof proof() {
    return disks.getFirst().proof();
  }

  GuestProof proof(int disk) {
    return disks.get(disk).proof();
  }

  /// The longest any one operation has taken.
  Duration longestOperation() {
    return Duration.ofNanos(longestNanos);
  }

  /// What its operations took since this was asked last. Waits for the one that is out.
  Latencies takeLatencies() {
    step.lock();
    try {
      return latencies.take();
    } finally {
      step.unlock();
    }
  }

  /// Waits until `operations` more were acknowledged.
  void awaitProgress(long operations) {
    long from = proof().acknowledged();
    Patience.await()
        .atMost(RECONNECT)
        .pollInterval(Duration.ofMillis(10))
        .until(() -> failure != null || proof().acknowledged() >= from + operations);
    assertUnharmed();
  }

  /// No request of the guest has failed.
  void assertUnharmed() {
    Throwable met = failure;
    if (met != null) {
      throw new AssertionError(
          "the guest met an error after operation " + proof().acknowledged(), met);
    }
  }

  /// Holds the guest between two operations and reads its whole disks anew: every acknowledged
  /// operation must be there, and nothing that it never did. A disk may have grown.
  void assertDiskHoldsAllAcknowledged() throws IOException {
    step.lock();
    try {
      for (Disk disk : disks) {
        long size = disk.proof().diskBlocks() * GuestPattern.BLOCK;
        try (var view =
            WindowNode.of(NbdClient.connect(disk.uri()), Optional.empty(), Optional.of(size))) {
          assertHolds(disk.proof(), view, disk.proof().acknowledged());
        }
      }
    } finally {
      step.unlock();
    }
  }

  /// That `copy` is exactly one moment of the first disk, not before `notBefore`.
  void assertHolds(BlockNode copy, long notBefore) throws BlockException {
    assertHolds(proof(), copy, notBefore);
  }

  private static void assertHolds(GuestProof proof, BlockNode copy, long notBefore)
      throws BlockException {
    GuestVerdict verdict = GuestVerdict.of(copy, proof);
    assertThat(verdict.holds(notBefore, proof.noted()))
        .as("%s of %s, wanted a moment in [%d, %d]", verdict, copy.name(), notBefore, proof.noted())
        .isTrue();
  }

  /// Ends the writing, with the last operation acknowledged, and lets go of the disks.
  @Override
  public void close() throws IOException {
    stop = true;
    try {
      assertThat(thread.join(RECONNECT)).as("guest ended").isTrue();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    for (Disk disk : disks) {
      disk.client().close();
    }
  }
}
