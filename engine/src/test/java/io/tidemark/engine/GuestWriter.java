// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Workload;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// A guest that writes to a disk without pause and knows what it wrote.
final class GuestWriter implements AutoCloseable {
  private final BlockNode disk;
  private final ModelDisk model;
  private final Workload workload;
  private final Thread thread;
  private final ReentrantLock betweenRequests = new ReentrantLock(true);
  private volatile boolean stop;
  private final AtomicLong requests = new AtomicLong();
  private volatile @Nullable Throwable failure;

  GuestWriter(BlockNode disk, ModelDisk model, long seed) {
    this.disk = disk;
    this.model = model;
    this.workload = Workload.random(seed).maxLength(128 * 1024);
    this.thread = Thread.ofPlatform().name("guest-writer").start(this::run);
  }

  private void run() {
    try {
      while (!stop) {
        betweenRequests.lock();
        try {
          workload.run(disk, model, 1);
          requests.incrementAndGet();
        } finally {
          betweenRequests.unlock();
        }
      }
    } catch (BlockException | RuntimeException | Error e) {
      failure = e;
    }
  }

  /// Something to do at one instant of this guest.
  @FunctionalInterface
  interface Step {
    void run() throws Exception;
  }

  /// Runs `step` while no request of this guest is under way; returns what its disk then held.
  ModelDisk between(Step step) throws Exception {
    betweenRequests.lock();
    try {
      step.run();
      var copy = new ModelDisk(model.size());
      copy.write(0, model.read(0, (int) model.size()));
      copy.flushed();
      return copy;
    } finally {
      betweenRequests.unlock();
    }
  }

  /// Waits until the guest has done `more` requests.
  void awaitRequests(int more) {
    long wanted = requests.get() + more;
    while (requests.get() < wanted && thread.isAlive()) {
      Thread.onSpinWait();
    }
    requireWell();
  }

  private void requireWell() {
    Throwable seen = failure;
    if (seen != null) {
      throw new AssertionError("the guest's request failed", seen);
    }
  }

  /// Stops writing; fails when a request of the guest did.
  @Override
  public void close() {
    stop = true;
    try {
      thread.join();
    } catch (InterruptedException e) {
      throw new AssertionError(e);
    }
    requireWell();
  }
}
