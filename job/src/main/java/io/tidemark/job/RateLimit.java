// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

/// A token bucket of bytes. It holds one slice (100 ms) of the speed and starts full; work may take
/// it below zero by one extent, and then waits until it is not. Guarded by its job's lock.
final class RateLimit {
  private static final long SLICE_NANOS = 100_000_000;
  private static final double NANOS_PER_SECOND = 1e9;

  private final JobClock clock;
  private long bytesPerSecond;
  private double tokens;
  private long at;

  RateLimit(long bytesPerSecond, JobClock clock) {
    this.clock = clock;
    this.at = clock.nanoTime();
    this.bytesPerSecond = bytesPerSecond;
    this.tokens = slice();
  }

  long bytesPerSecond() {
    return bytesPerSecond;
  }

  /// Bytes taken beyond the old speed stay owed at the new one.
  void set(long newBytesPerSecond) {
    refill();
    bytesPerSecond = newBytesPerSecond;
    tokens = Math.min(tokens, slice());
    if (newBytesPerSecond == 0) {
      tokens = 0;
    }
  }

  /// Takes bytes that are about to be copied.
  void take(long bytes) {
    if (bytesPerSecond > 0) {
      refill();
      tokens -= bytes;
    }
  }

  /// How long to wait before more may be taken; 0 for now.
  long delayNanos() {
    if (bytesPerSecond == 0) {
      return 0;
    }
    refill();
    if (tokens > 0) {
      return 0;
    }
    double nanos = (1 - tokens) / bytesPerSecond * NANOS_PER_SECOND;
    return (long) Math.min(nanos, Long.MAX_VALUE / 4.0) + 1;
  }

  /// The largest piece of work that fits the speed, for copies that can choose.
  long sliceBytes() {
    return bytesPerSecond == 0 ? Long.MAX_VALUE : Math.max(1, (long) slice());
  }

  private double slice() {
    return Math.max(1, bytesPerSecond * (SLICE_NANOS / NANOS_PER_SECOND));
  }

  private void refill() {
    long now = clock.nanoTime();
    tokens = Math.min(slice(), tokens + (now - at) * (bytesPerSecond / NANOS_PER_SECOND));
    at = now;
  }
}
