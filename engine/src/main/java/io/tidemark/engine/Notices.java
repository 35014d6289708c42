// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/// Tells a domain's listener what happened: in order, one at a time, from one thread that holds no
/// lock of the engine.
///
/// The queue is unbounded by itself and bounded by what fills it: each job has a dozen statuses,
/// and a domain [JobTable#MAX_JOBS] jobs.
final class Notices {
  private static final Logger LOG = System.getLogger(Notices.class.getName());

  private final BlockingQueue<Runnable> queue = new LinkedBlockingQueue<>();
  private final String domain;
  private volatile boolean ended;

  Notices(String domain) {
    this.domain = domain;
    Thread.ofVirtual().name("notices-" + domain).start(this::run);
  }

  void tell(Runnable notice) {
    if (!ended) {
      queue.add(notice);
    }
  }

  /// Tells nothing more, what is queued included; does not wait for a notice that is being told, so
  /// that a caller may hold a lock that the listener wants.
  void end() {
    ended = true;
    queue.add(() -> {}); // wakes the thread
  }

  private void run() {
    try {
      Runnable notice = queue.take();
      while (!ended) {
        tellNow(notice);
        notice = queue.take();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void tellNow(Runnable notice) {
    try {
      notice.run();
    } catch (RuntimeException e) {
      LOG.log(Level.ERROR, "domain " + domain + ": its listener failed", e);
    }
  }
}
