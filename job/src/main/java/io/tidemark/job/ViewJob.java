// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// Keeps a drive readable as it was at its group's instant, until it is cancelled (QEMU: a backup
/// with sync mode "none"). Made and started by a [ViewGroup].
///
/// It never ends by itself but when the view cannot be kept: when the scratch is full or fails. The
/// guest's writes go on, and what is read of the view from then on is an error.
public final class ViewJob extends InstantJob {
  private static final Logger LOG = System.getLogger(ViewJob.class.getName());

  private final ViewOptions options;

  // Guarded by the job's lock. Null before the instant, and when the view has no bitmap.
  private @Nullable DirtyBitmap changes;

  ViewJob(ViewOptions options) {
    super(options.id(), options.source(), 0, options.clock());
    this.options = options;
  }

  @Override
  FrozenView makeView() {
    var wanted =
        new DirtyBitmap(id() + "-wanted", source().virtualSize(), DirtyBitmap.DEFAULT_GRANULARITY);
    wanted.setAll();
    Optional<DirtyBitmap> frozen = options.bitmap().map(bitmap -> bitmap.copy(bitmap.name()));
    frozen.ifPresent(bitmap -> bitmap.setEnabled(false));
    locked(() -> changes = frozen.orElse(null));
    return new FrozenView(
        source(), wanted, options.scratch(), options.scratchLimitBytes(), this::viewFailed);
  }

  @Override
  boolean mayAbort() {
    return true;
  }

  /// The drive as it was at the instant, read-only. Only once the group has started. Reads fail
  /// when the job is over or the view could not be kept; nobody has to close the node.
  public BlockNode node() {
    return new FrozenNode(source().name(), frozen());
  }

  /// What had changed at the instant since the earlier moment; it changes no more.
  ///
  /// @param name of the copy that is returned
  public Optional<DirtyBitmap> changes(String name) {
    lock.lock();
    try {
      return Optional.ofNullable(changes).map(bitmap -> bitmap.copy(name));
    } finally {
      lock.unlock();
    }
  }

  /// Bytes that were kept because the guest overwrote them, of all that may be.
  @Override
  public JobProgress progress() {
    return new JobProgress(keptBytes(), source().virtualSize());
  }

  @Override
  void run() {
    FrozenView frozen = frozen();
    lock.lock();
    try {
      while (statusLocked() != JobStatus.ABORTING) {
        changed.awaitUninterruptibly();
      }
    } finally {
      lock.unlock();
    }
    removeView(frozen);
    giveBack(frozen);
  }

  /// So that closing the scratch has little to write. A reader that is still at it finds the view
  /// inactive.
  private void giveBack(FrozenView frozen) {
    try {
      frozen.clear();
    } catch (BlockException e) {
      LOG.log(Level.DEBUG, "job {0}: its scratch was not given back: {1}", id(), e.getMessage());
    }
  }
}
