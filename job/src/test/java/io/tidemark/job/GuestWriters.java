// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Drive;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;

/// Guest threads that never pause. Stripes of 24 KiB belong to the threads in turn, so that threads
/// share granules but never bytes, and the expected content is known exactly: a zero or write is
/// what it says; a discard is followed by a read of what it left.
final class GuestWriters implements AutoCloseable {
  private static final int STRIPE = 24 << 10;

  final AtomicLong operations = new AtomicLong();
  final AtomicLong longestNanos = new AtomicLong();
  private final ConcurrentLinkedQueue<Throwable> failures = new ConcurrentLinkedQueue<>();
  private final Drive drive;
  private final byte[] expected;
  private final List<Thread> threads = new ArrayList<>();
  private volatile boolean stop;

  GuestWriters(Drive drive, int count, long seed) throws BlockException {
    this.drive = drive;
    this.expected = new byte[(int) drive.virtualSize()];
    drive.read(0, ByteBuffer.wrap(expected));
    for (int n = 0; n < count; n++) {
      int number = n;
      threads.add(
          Thread.ofPlatform()
              .daemon()
              .name("guest-" + n)
              .start(() -> run(number, count, new Random(seed * 31 + number))));
    }
  }

  private void run(int number, int count, Random random) {
    try {
      while (!stop) {
        long start = System.nanoTime();
        step(number, count, random);
        longestNanos.accumulateAndGet(System.nanoTime() - start, Math::max);
        operations.incrementAndGet();
      }
    } catch (Throwable e) {
      failures.add(e);
    }
  }

  private void step(int number, int count, Random random) throws BlockException {
    int stripes = (expected.length + STRIPE - 1) / STRIPE;
    int mine = (stripes - number + count - 1) / count;
    // A few stripes are hot.
    int pick = random.nextInt(3) == 0 ? random.nextInt(mine) : random.nextInt(Math.min(4, mine));
    int start = (number + pick * count) * STRIPE;
    int room = Math.min(STRIPE, expected.length - start);
    int offset = start + random.nextInt(room);
    int length = 1 + random.nextInt(start + room - offset);
    switch (random.nextInt(10)) {
      case 0 -> {
        drive.writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
        Arrays.fill(expected, offset, offset + length, (byte) 0);
      }
      case 1 -> {
        drive.discard(offset, length);
        drive.read(offset, ByteBuffer.wrap(expected, offset, length));
      }
      case 2 -> drive.flush();
      default -> {
        byte[] bytes = new byte[length];
        random.nextBytes(bytes);
        drive.write(offset, ByteBuffer.wrap(bytes));
        System.arraycopy(bytes, 0, expected, offset, length);
      }
    }
  }

  /// Returns when the writers did `count` more operations.
  void awaitOperations(long count) {
    long wanted = operations.get() + count;
    while (operations.get() < wanted) {
      check();
      LockSupport.parkNanos(50_000);
    }
  }

  void check() {
    if (!failures.isEmpty()) {
      throw new AssertionError("a guest request failed", failures.peek());
    }
  }

  /// Stops, and compares what was acknowledged with the node.
  void stopAndCompare(BlockNode node) throws BlockException {
    close();
    byte[] found = new byte[expected.length];
    node.read(0, ByteBuffer.wrap(found));
    int differs = Arrays.mismatch(found, expected);
    if (differs >= 0) {
      throw new AssertionError(node.name() + " differs from what was acknowledged at " + differs);
    }
  }

  @Override
  public void close() {
    stop = true;
    for (Thread thread : threads) {
      try {
        if (!thread.join(Duration.ofSeconds(20))) {
          throw new AssertionError(thread.getName() + " is stuck in a request");
        }
      } catch (InterruptedException e) {
        throw new AssertionError(e);
      }
    }
    check();
  }
}
