// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.FailurePolicy.Choice;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class FailurePolicyTest {
  private static final int SIZE = 1 << 16;

  /// Fails as often as it is told to.
  private static final class FailingNode extends MemoryNode {
    final AtomicInteger failures = new AtomicInteger();
    final AtomicInteger requests = new AtomicInteger();
    volatile boolean noSpace = true;

    FailingNode() {
      super("failing", SIZE);
    }

    private void failOrNot() throws BlockException {
      requests.incrementAndGet();
      if (failures.getAndUpdate(n -> Math.max(0, n - 1)) > 0) {
        throw noSpace
            ? new OutOfSpaceException("failing: no space")
            : new TransportException("failing: broken");
      }
    }

    @Override
    public void read(long offset, ByteBuffer into) throws BlockException {
      into.put((byte) 9); // part of it, before it fails
      failOrNot();
      into.position(into.position() - 1);
      super.read(offset, into);
    }

    @Override
    public void write(long offset, ByteBuffer from) throws BlockException {
      failOrNot();
      super.write(offset, from);
    }

    @Override
    public void flush() throws BlockException {
      failOrNot();
      super.flush();
    }
  }

  private final FailingNode node = new FailingNode();
  private final Drive drive = new Drive("vda", node);
  private final List<String> told = new CopyOnWriteArrayList<>();
  private final AtomicLong nanos = new AtomicLong();

  private FailurePolicy policy(Choice onRead, Choice onWrite) {
    var policy =
        new FailurePolicy(
            onRead,
            onWrite,
            (outcome, noSpace) -> told.add(outcome + (noSpace ? " space" : "")),
            nanos::get);
    drive.onFailure(policy);
    return policy;
  }

  private static ByteBuffer data(int value) {
    ByteBuffer data = ByteBuffer.allocate(4096);
    while (data.hasRemaining()) {
      data.put((byte) value);
    }
    return data.flip();
  }

  private byte at(long offset) throws BlockException {
    ByteBuffer one = ByteBuffer.allocate(1);
    drive.read(offset, one);
    return one.get(0);
  }

  private interface Request {
    void run() throws BlockException;
  }

  /// On a thread of its own, as it may have to wait.
  private static CompletableFuture<Void> begin(Request request) {
    var end = new CompletableFuture<Void>();
    Thread.ofPlatform()
        .daemon()
        .start(() -> {
          try {
            request.run();
            end.complete(null);
          } catch (BlockException | RuntimeException e) {
            end.completeExceptionally(e);
          }
        });
    return end;
  }

  private static void awaitHeld(FailurePolicy policy) {
    Await.until(() -> policy.heldForSpace().isPresent());
  }

  @Test
  void heldRequestIsMadeAgainAndTheGuestNeverLearnsOfIt() throws Exception {
    FailurePolicy policy = policy(Choice.REPORT, Choice.HOLD_WITHOUT_SPACE);
    node.failures.set(2);
    CompletableFuture<Void> write = begin(() -> drive.write(8192, data(5)));
    awaitHeld(policy);
    assertThat(policy.heldForSpace()).contains(true);
    assertThat(write).isNotDone();
    policy.retry(); // fails once more
    awaitHeld(policy);
    policy.retry();
    write.get(10, TimeUnit.SECONDS);
    assertThat(at(8192)).isEqualTo((byte) 5);
    assertThat(told).containsExactly("HELD space", "HELD space");
    assertThat(policy.heldForSpace()).isEmpty();
    assertThat(drive.statistics().errors()).isZero();
    assertThat(drive.statistics().writeBytes()).isEqualTo(4096);
  }

  @Test
  void driveIsDrainedAndRepointedWhileARequestIsHeld() throws Exception {
    FailurePolicy policy = policy(Choice.REPORT, Choice.HOLD);
    node.failures.set(1);
    CompletableFuture<Void> write = begin(() -> drive.write(0, data(7)));
    awaitHeld(policy);
    var other = new MemoryNode("other", SIZE);
    try (var _ = drive.drain()) {
      drive.repoint(other);
    }
    policy.retry();
    write.get(10, TimeUnit.SECONDS);
    assertThat(at(0)).isEqualTo((byte) 7);
    assertThat(node.requests).hasValue(1);
  }

  @Test
  void eachHoldingIsToldOnce() throws Exception {
    FailurePolicy policy = policy(Choice.REPORT, Choice.HOLD);
    node.failures.set(3);
    node.noSpace = false;
    List<CompletableFuture<Void>> all =
        List.of(
            begin(() -> drive.write(0, data(1))),
            begin(() -> drive.write(4096, data(2))),
            begin(drive::flush));
    Await.until(() -> node.requests.get() == 3);
    awaitHeld(policy);
    assertThat(policy.heldForSpace()).contains(false);
    Await.until(() -> {
      policy.retry();
      return all.stream().allMatch(CompletableFuture::isDone);
    });
    assertThat(told).first().isEqualTo("HELD");
    assertThat(at(4096)).isEqualTo((byte) 2);
  }

  @Test
  void reportsWhatItIsNotToHoldAndTellsOfItOnceASecond() {
    policy(Choice.REPORT, Choice.HOLD_WITHOUT_SPACE);
    node.noSpace = false;
    node.failures.set(4);
    assertThatThrownBy(() -> drive.write(0, data(1))).isInstanceOf(TransportException.class);
    assertThatThrownBy(() -> drive.read(0, ByteBuffer.allocate(512)))
        .isInstanceOf(TransportException.class);
    assertThat(told).containsExactly("REPORTED");
    nanos.addAndGet(TimeUnit.SECONDS.toNanos(1));
    assertThatThrownBy(drive::flush).isInstanceOf(TransportException.class);
    assertThat(told).containsExactly("REPORTED", "REPORTED");
    assertThat(drive.statistics().errors()).isEqualTo(3);
  }

  @Test
  void ignoredWriteCountsAsDoneAndIgnoredReadIsZeroes() throws BlockException {
    policy(Choice.IGNORE, Choice.IGNORE);
    node.failures.set(1);
    ByteBuffer from = data(3);
    drive.write(0, from);
    assertThat(from.hasRemaining()).isFalse();
    assertThat(at(0)).isZero();
    node.failures.set(1);
    ByteBuffer into = data(4);
    drive.read(0, into);
    assertThat(into.hasRemaining()).isFalse();
    assertThat(into.flip()).isEqualTo(ByteBuffer.allocate(4096));
    assertThat(told).containsExactly("IGNORED space");
  }

  @Test
  void heldRequestFailsWhenItsDriveIsTakenAway() throws Exception {
    FailurePolicy policy = policy(Choice.HOLD, Choice.HOLD);
    node.failures.set(1);
    CompletableFuture<Void> read = begin(() -> drive.read(0, ByteBuffer.allocate(512)));
    awaitHeld(policy);
    drive.close();
    assertThatThrownBy(() -> read.get(10, TimeUnit.SECONDS))
        .isInstanceOf(ExecutionException.class)
        .hasCauseInstanceOf(OutOfSpaceException.class);
  }

  @Test
  void writingAReadOnlyDiskIsNoFailureOfTheDisk() {
    FailurePolicy policy = policy(Choice.HOLD, Choice.HOLD);
    var readOnly =
        new Drive(
            "vdb",
            new MemoryNode("shut", SIZE) {
              @Override
              public boolean readOnly() {
                return true;
              }
            });
    readOnly.onFailure(policy);
    assertThatThrownBy(() -> readOnly.write(0, data(1))).isInstanceOf(ReadOnlyNodeException.class);
    assertThat(told).isEmpty();
  }
}
