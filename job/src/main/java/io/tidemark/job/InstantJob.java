// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.Drive;
import org.jspecify.annotations.Nullable;

/// A job of an [InstantGroup]: it keeps a drive's content of the group's instant in a [FrozenView].
abstract sealed class InstantJob extends Job permits BackupJob, ViewJob {
  private final Drive source;

  // Guarded by the job's lock. Null before the group's instant.
  private @Nullable FrozenView view;
  private boolean filtering;

  InstantJob(String id, Drive source, long bandwidthBytesPerSecond, JobClock clock) {
    super(id, bandwidthBytesPerSecond, clock);
    this.source = source;
  }

  final Drive source() {
    return source;
  }

  /// The view at the instant, not yet in the drive's way.
  abstract FrozenView makeView();

  /// Whether the group lets the job end without success.
  @Override
  abstract boolean mayAbort();

  /// The instant: the caller has drained the drive.
  final void freeze() {
    FrozenView frozen = makeView();
    source.addFilter(frozen);
    locked(() -> {
      view = frozen;
      filtering = true;
    });
  }

  /// Takes the view out of the drive's way. The caller has drained the drive.
  final void thaw() {
    locked(() -> {
      if (view != null && filtering) {
        source.removeFilter(view);
        filtering = false;
      }
    });
  }

  /// The view, from the group's instant on.
  final FrozenView frozen() {
    lock.lock();
    try {
      FrozenView frozen = view;
      if (frozen == null) {
        throw new IllegalStateException("job " + id() + ": was started outside its group");
      }
      return frozen;
    } finally {
      lock.unlock();
    }
  }

  /// Bytes that old data takes in the scratch now.
  public final long scratchBytes() {
    lock.lock();
    try {
      return view == null ? 0 : view.scratchBytes();
    } finally {
      lock.unlock();
    }
  }

  /// Bytes that were kept before the guest overwrote them, zeroes included.
  final long keptBytes() {
    lock.lock();
    try {
      return view == null ? 0 : view.keptBytes();
    } finally {
      lock.unlock();
    }
  }

  /// The view cannot keep what it should: the job fails, the guest does not.
  final void viewFailed(Throwable error) {
    if (error instanceof BlockException known) {
      fail(known);
    } else {
      failInternally(error);
    }
  }

  /// Ends the view: guest writes are not held up by it any more.
  final void removeView(FrozenView frozen) {
    frozen.deactivate();
    boolean inTheWay;
    lock.lock();
    try {
      inTheWay = filtering;
    } finally {
      lock.unlock();
    }
    if (inTheWay) {
      try (var _ = source.drain()) {
        thaw();
      }
    }
  }
}
