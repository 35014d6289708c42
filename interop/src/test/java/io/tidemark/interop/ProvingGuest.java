// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
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
import java.util.concurrent.locks.ReentrantLock;
import org.awaitility.Awaitility;
import org.jspecify.annotations.Nullable;

/// A guest of a domain that never pauses and reconnects when its server goes, on a thread of its
/// own: it can say at any moment whether the disk holds all that was acknowledged to it.
final class ProvingGuest implements AutoCloseable {
  /// How long it waits for a lost server before its requests fail, as a real guest with
  /// `reconnect-delay` does.
  static final Duration RECONNECT = Duration.ofSeconds(60);

  private final NbdUri uri;
  private final GuestProof proof;
  private final NbdClient disk;
  private final Thread thread;
  private final ReentrantLock step = new ReentrantLock(true);
  private volatile boolean stop;
  private volatile @Nullable Throwable
      failure; // what its writer met; a guest must never meet anything
  private volatile long longestNanos;

  /// Connects to `target` of the domain whose guest socket this is, and begins to write. The disk
  /// must read as zeroes.
  ProvingGuest(Path socket, String target, Path proofFile, long seed) throws IOException {
    uri = NbdUri.unix(socket, target);
    disk = NbdClient.connect(uri, ClientOptions.defaults().withReconnectDelay(RECONNECT));
    proof = GuestProof.create(proofFile, disk.virtualSize() / GuestPattern.BLOCK, 0);
    var writer = new GuestWriter(disk, proof, seed);
    thread = Thread.ofPlatform().name("guest").start(() -> write(writer));
  }

  private void write(GuestWriter writer) {
    try {
      while (!stop) {
        step.lock();
        try {
          long start = System.nanoTime();
          writer.step();
          longestNanos = Math.max(longestNanos, System.nanoTime() - start);
        } finally {
          step.unlock();
        }
      }
    } catch (BlockException | RuntimeException e) {
      failure = e;
    }
  }

  GuestProof proof() {
    return proof;
  }

  /// The longest any one operation has taken.
  Duration longestOperation() {
    return Duration.ofNanos(longestNanos);
  }

  /// Waits until `operations` more were acknowledged.
  void awaitProgress(long operations) {
    long from = proof.acknowledged();
    Awaitility.await()
        .atMost(RECONNECT)
        .until(() -> failure != null || proof.acknowledged() >= from + operations);
    assertUnharmed();
  }

  /// No request of the guest has failed.
  void assertUnharmed() {
    Throwable met = failure;
    if (met != null) {
      throw new AssertionError(
          "the guest met an error after operation " + proof.acknowledged(), met);
    }
  }

  /// Holds the guest between two operations and reads its whole disk anew: every acknowledged
  /// operation must be there, and nothing that it never did.
  void assertDiskHoldsAllAcknowledged() throws IOException {
    step.lock();
    try (var view = NbdClient.connect(uri)) {
      assertHolds(view, proof.acknowledged());
    } finally {
      step.unlock();
    }
  }

  /// That `copy` is exactly one moment, not before `notBefore`.
  void assertHolds(BlockNode copy, long notBefore) throws BlockException {
    GuestVerdict verdict = GuestVerdict.of(copy, proof);
    assertThat(verdict.holds(notBefore, proof.noted()))
        .as("%s, wanted a moment in [%d, %d]", verdict, notBefore, proof.noted())
        .isTrue();
  }

  /// Ends the writing, with the last operation acknowledged, and lets go of the disk.
  @Override
  public void close() throws IOException {
    stop = true;
    try {
      assertThat(thread.join(RECONNECT)).as("guest ended").isTrue();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    disk.close();
  }
}
