// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.EnumMap;
import java.util.Map;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import java.util.function.LongSupplier;

/// Holds guest requests to limits of bytes and operations a second. Several drives may share one:
/// they are then limited together.
///
/// For each limit a bucket fills by what is admitted and leaks at the limit's average; a request is
/// admitted while no bucket that concerns it is over its size, and may take it beyond by itself.
/// The size is a tenth of a second at the average, or, with a maximum, that maximum for the time it
/// is allowed; a second bucket then keeps the flow at the maximum.
///
/// Spec: QEMU 7.2 `docs/throttle.txt`.
public final class Throttle {
  /// What is limited. Totals concern reads and writes alike.
  public enum Kind {
    TOTAL_BYTES(true, true, true),
    READ_BYTES(true, true, false),
    WRITE_BYTES(true, false, true),
    TOTAL_OPERATIONS(false, true, true),
    READ_OPERATIONS(false, true, false),
    WRITE_OPERATIONS(false, false, true);

    private final boolean bytes;
    private final boolean reads;
    private final boolean writes;

    Kind(boolean bytes, boolean reads, boolean writes) {
      this.bytes = bytes;
      this.reads = reads;
      this.writes = writes;
    }
  }

  /// @param average a second
  /// @param max a second, for a while; 0: no more than the average
  /// @param lengthSeconds how long `max` may last; at least 1
  public record Limit(long average, long max, long lengthSeconds) {}

  /// A bucket and its leak.
  private static final class Bucket {
    private final double leakPerNano;
    private final double size;
    private double level;

    Bucket(double perSecond, double size) {
      this.leakPerNano = perSecond / 1e9;
      this.size = size;
    }

    void leak(long nanos) {
      level = Math.max(0, level - leakPerNano * nanos);
    }

    long waitNanos() {
      return level <= size ? 0 : (long) Math.min((level - size) / leakPerNano, 1e18) + 1;
    }
  }

  private final ReentrantLock lock = new ReentrantLock(true);
  private final Condition changed = lock.newCondition();
  private final LongSupplier nanoTime;
  private Map<Kind, Bucket[]> buckets = new EnumMap<>(Kind.class); // guarded by lock
  private long operationBytes; // guarded by lock
  private long at; // guarded by lock

  public Throttle() {
    this(System::nanoTime);
  }

  Throttle(LongSupplier nanoTime) {
    this.nanoTime = nanoTime;
    this.at = nanoTime.getAsLong();
  }

  /// Other limits from now on; who waits is looked at again.
  ///
  /// @param limits those that there are; an average of 0 is none
  /// @param bytesOfAnOperation a request counts as one operation for each of so many bytes, rounded
  ///   up; 0: always as one
  public void set(Map<Kind, Limit> limits, long bytesOfAnOperation) {
    lock.lock();
    try {
      Map<Kind, Bucket[]> next = new EnumMap<>(Kind.class);
      limits.forEach((kind, limit) -> {
        if (limit.average() > 0) {
          next.put(kind, bucketsOf(limit));
        }
      });
      buckets = next;
      operationBytes = bytesOfAnOperation;
      at = nanoTime.getAsLong();
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  private static Bucket[] bucketsOf(Limit limit) {
    double average = limit.average();
    if (limit.max() == 0) {
      return new Bucket[] {new Bucket(average, average / 10)};
    }
    double max = limit.max();
    return new Bucket[] {
      new Bucket(average, max * Math.max(1, limit.lengthSeconds())), new Bucket(max, max / 10)
    };
  }

  /// Has everyone who waits look again, after their `over` changed.
  public void wake() {
    lock.lock();
    try {
      changed.signalAll();
    } finally {
      lock.unlock();
    }
  }

  /// Waits until a request may go.
  ///
  /// @param over whether it need not wait any more
  void admit(boolean write, long bytes, BooleanSupplier over) {
    lock.lock();
    try {
      while (!over.getAsBoolean()) {
        long wait = waitNanos(write);
        if (wait == 0) {
          take(write, bytes);
          return;
        }
        long ignored = changed.awaitNanos(wait);
        assert ignored <= wait;
      }
    } catch (InterruptedException e) {
      throw new IllegalStateException("a thread of guest requests was interrupted", e);
    } finally {
      lock.unlock();
    }
  }

  /// 0: now.
  long waitNanos(boolean write) {
    long now = nanoTime.getAsLong();
    long passed = now - at;
    at = now;
    long wait = 0;
    for (Map.Entry<Kind, Bucket[]> entry : buckets.entrySet()) {
      Kind kind = entry.getKey();
      for (Bucket bucket : entry.getValue()) {
        bucket.leak(passed);
        if (write ? kind.writes : kind.reads) {
          wait = Math.max(wait, bucket.waitNanos());
        }
      }
    }
    return wait;
  }

  private void take(boolean write, long bytes) {
    double operations =
        operationBytes == 0 ? 1 : Math.max(1, Math.ceil((double) bytes / operationBytes));
    buckets.forEach((kind, all) -> {
      if (write ? kind.writes : kind.reads) {
        for (Bucket bucket : all) {
          bucket.level += kind.bytes ? bytes : operations;
        }
      }
    });
  }
}
