// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.Extent;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/// Work at an image on another thread: what goes on while a request is under way.
final class Elsewhere {
  interface Work {
    void run() throws IOException;
  }

  private final AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();
  private final Thread thread;

  private Elsewhere(Work work) {
    thread =
        Thread.ofPlatform()
            .start(() -> {
              try {
                work.run();
              } catch (IOException | RuntimeException | AssertionError e) {
                failure.set(e);
              }
            });
  }

  static Elsewhere start(Work work) {
    return new Elsewhere(work);
  }

  static void run(Work work) {
    start(work).join();
  }

  Thread.State state() {
    return thread.getState();
  }

  /// Returns when it is done, and went well.
  void join() {
    try {
      thread.join();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
    assertThat(failure.get()).isNull();
  }

  /// Discards the first eight clusters of a disk, and gives every other one a place: those of the
  /// eight, too, unless something holds them.
  static void takeEveryPlace(Qcow2Image image) throws BlockException {
    int first = 8 * (int) image.clusterSize();
    int step = 11 * first;
    int size = (int) image.virtualSize();
    image.discard(0, first);
    for (int at = first; at < size; at += step) {
      byte[] bytes = new byte[Math.min(step, size - at)];
      Arrays.fill(bytes, (byte) 2);
      image.flush();
      image.write(at, ByteBuffer.wrap(bytes));
    }
  }

  /// Whether a cluster behind the first eight has this place now.
  static boolean tookPlace(Qcow2Image image, long place) throws BlockException {
    boolean[] took = {false};
    long first = 8 * image.clusterSize();
    image.extents(
        first,
        image.virtualSize() - first,
        extent -> {
          took[0] |= holds(extent, place);
          return true;
        });
    return took[0];
  }

  private static boolean holds(Extent extent, long place) {
    return extent.hostOffset() >= 0
        && extent.hostOffset() <= place
        && place < extent.hostOffset() + extent.length();
  }

  /// Where the first cluster of a disk is in the file.
  static long firstPlace(Qcow2Image image) throws BlockException {
    long[] found = {-1};
    image.extents(
        0,
        image.clusterSize(),
        extent -> {
          found[0] = extent.hostOffset();
          return false;
        });
    return found[0];
  }
}
