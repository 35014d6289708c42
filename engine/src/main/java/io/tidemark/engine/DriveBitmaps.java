// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// The bitmaps of one drive: those that record in memory, which of them belong in the top image,
/// and those of the image that cannot be trusted.
///
/// Invariants:
/// - While the guest may write, every consistent bitmap that the top image holds carries the in-use
///   flag on stable storage. So whatever ends the process, nobody finds an image with a bitmap that
///   looks clean and is not.
/// - A persistent bitmap that the domain room was told of is in the image, in use, before it was
///   told; so a crash leaves it inconsistent rather than missing.
/// - Contents reach the image in [#store] only, after the last guest write.
///
/// Crash order of a pivot, the live record naming the new image: first the names go in use into the
/// new image ([#announceIn]), then the drive is re-pointed, and what the bitmaps hold at that
/// moment is set aside ([#freeze], the drive is drained), then that is stored in the old one
/// ([#moveTo]): true of the old image, since nobody writes there any more. A crash between leaves
/// bitmaps that are in use in both, or in the old one alone: never a clean one.
///
/// Not thread-safe: guarded by the domain's lock.
final class DriveBitmaps {
  private static final Logger LOG = System.getLogger(DriveBitmaps.class.getName());

  /// Bitmaps of one drive, inconsistent ones included.
  static final int MAX_BITMAPS = 1024;

  /// Memory for one bitmap: enough for 128 TiB at 64 KiB.
  static final long MAX_BITMAP_BYTES = 256L << 20;

  private final Drive drive;
  private final Set<String> persistent = new LinkedHashSet<>();
  private final Map<String, BitmapStore.Stored> inconsistent = new LinkedHashMap<>();
  // Absent when the top image cannot keep bitmaps: raw, or opened read-only.
  private Optional<BitmapStore> store = Optional.empty();

  // Those of which a part beneath cannot be trusted: kept where they are, used for nothing.
  private final Set<String> broken = new LinkedHashSet<>();

  // Those that were removed: an image beneath may still keep them.
  private final Set<String> removed = new LinkedHashSet<>();

  // What the persistent bitmaps held when the drive left its image; until that image keeps it.
  private List<DirtyBitmap> frozen = List.of();

  // From [#freeze] to [#moveTo]: those that stay behind, and those of the next image.
  private final List<DirtyBitmap> leaving = new ArrayList<>();
  private final List<DirtyBitmap> joining = new ArrayList<>();

  // Whether a claim was tried, so that a start that fails has something to undo.
  private boolean claimed;

  DriveBitmaps(Drive drive) {
    this.drive = drive;
  }

  /// Takes over what the image holds: consistent bitmaps into memory, the others by name. The
  /// caller has drained the drive, and calls [#claim] before the guest writes.
  ///
  /// @param beneath what the images beneath keep, upper ones first: see [StoredBitmaps]
  /// @param writable whether the image may be changed; if not, its bitmaps are listed and record
  ///   nothing
  void load(BitmapStore from, List<BitmapStore> beneath, boolean writable) throws DriverException {
    try {
      List<BitmapStore.Stored> found = from.stored();
      if (found.size() > MAX_BITMAPS) {
        throw new DriverException(
            Kind.UNSUPPORTED,
            drive.name() + ": " + found.size() + " stored bitmaps, at most " + MAX_BITMAPS);
      }
      for (BitmapStore.Stored stored : found) {
        if (stored.inconsistent()) {
          inconsistent.put(stored.name(), stored);
        }
      }
      StoredBitmaps consistent = StoredBitmaps.read(from, drive.virtualSize(), beneath);
      for (DirtyBitmap bitmap : consistent.bitmaps()) {
        bitmap.setEnabled(writable && bitmap.enabled());
        drive.addBitmap(bitmap);
        persistent.add(bitmap.name());
      }
      broken.addAll(consistent.broken());
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
    store = writable ? Optional.of(from) : Optional.empty();
  }

  /// Marks the image's bitmaps in use, durably.
  void claim() throws DriverException {
    try {
      if (store.isPresent()) {
        claimed = true;
        store.get().claim();
      }
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  /// Undoes a [#claim] after which nothing was written.
  void release() throws DriverException {
    if (claimed) {
      store();
    }
  }

  /// Writes the persistent bitmaps into the image, no longer in use. Only when the guest cannot
  /// write any more.
  void store() throws DriverException {
    if (store.isEmpty()) {
      return;
    }
    try {
      store.get().store(persistentBitmaps());
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  private List<DirtyBitmap> persistentBitmaps() {
    return drive.bitmaps().stream().filter(b -> persistent.contains(b.name())).toList();
  }

  private List<DirtyBitmap> trustedBitmaps() {
    return persistentBitmaps().stream().filter(b -> !broken.contains(b.name())).toList();
  }

  /// A bitmap that can be trusted.
  Optional<DirtyBitmap> find(String name) {
    return drive.bitmaps().stream()
        .filter(b -> b.name().equals(name) && !broken.contains(name))
        .findFirst();
  }

  List<BitmapState> states() {
    var states = new ArrayList<BitmapState>();
    for (DirtyBitmap bitmap : drive.bitmaps()) {
      states.add(
          new BitmapState(
              bitmap.name(),
              bitmap.granularity(),
              bitmap.dirtyBytes(),
              bitmap.enabled(),
              persistent.contains(bitmap.name()),
              broken.contains(bitmap.name())));
    }
    for (BitmapStore.Stored stored : inconsistent.values()) {
      states.add(
          new BitmapState(stored.name(), stored.granularity(), 0, stored.enabled(), true, true));
    }
    return states;
  }

  /// A new, empty bitmap that no write is recorded in yet.
  DirtyBitmap create(String name, long granularityBytes) throws DriverException {
    if (Long.bitCount(granularityBytes) != 1
        || granularityBytes < DirtyBitmap.MIN_GRANULARITY
        || granularityBytes > DirtyBitmap.MAX_GRANULARITY) {
      throw DriverErrors.generic(
          "bitmap "
              + name
              + " of "
              + drive.name()
              + ": granularity "
              + granularityBytes
              + " is not a power of two from "
              + DirtyBitmap.MIN_GRANULARITY
              + " to "
              + DirtyBitmap.MAX_GRANULARITY);
    }
    try {
      requireSize(new BitmapStore.Stored(name, granularityBytes, false, true), drive.virtualSize());
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
    return new DirtyBitmap(name, drive.virtualSize(), granularityBytes);
  }

  /// Refuses a bitmap that takes too much memory.
  static void requireSize(BitmapStore.Stored bitmap, long size) throws UnsupportedImageException {
    long bytes = size / bitmap.granularity() / 8;
    if (bytes > MAX_BITMAP_BYTES) {
      throw new UnsupportedImageException(
          "bitmap "
              + bitmap.name()
              + ": granularity "
              + bitmap.granularity()
              + " takes "
              + bytes
              + " bytes of memory, at most "
              + MAX_BITMAP_BYTES
              + "; a coarser granularity is needed");
    }
  }

  /// Refuses a persistent bitmap where the image can keep none.
  BitmapStore requireKept(String name) throws DriverException {
    return store.orElseThrow(() ->
        new DriverException(
            Kind.UNSUPPORTED,
            "bitmap " + name + " of " + drive.name() + ": its image cannot keep bitmaps"));
  }

  /// Puts a bitmap's name into the image, in use, durably. The bitmap joins the drive with [#join].
  void addToImage(DirtyBitmap bitmap) throws DriverException {
    try {
      requireKept(bitmap.name()).add(bitmap);
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  /// Takes a name out of the image, durably.
  void removeFromImage(String name) throws DriverException {
    try {
      if (store.isPresent() && store.get().holds(name)) {
        store.get().remove(name);
      }
    } catch (BlockException e) {
      throw DriverErrors.of(e);
    }
  }

  /// Records from now on. Only with the drive drained.
  void join(DirtyBitmap bitmap, boolean isPersistent) {
    drive.addBitmap(bitmap);
    removed.remove(bitmap.name());
    if (isPersistent) {
      persistent.add(bitmap.name());
    }
  }

  /// Forgets a bitmap in memory. Only with the drive drained.
  void leave(String name) {
    Optional<DirtyBitmap> _ = drive.removeBitmap(name);
    persistent.remove(name);
    inconsistent.remove(name);
    broken.remove(name);
    removed.add(name);
  }

  /// Brings the bitmaps in memory to the drive's size; the image has its own words for them. Only
  /// with the drive drained.
  void resize() {
    for (DirtyBitmap bitmap : drive.bitmaps()) {
      boolean enabled = bitmap.enabled();
      Optional<DirtyBitmap> _ = drive.removeBitmap(bitmap.name());
      DirtyBitmap resized = bitmap.resized(drive.virtualSize());
      resized.setEnabled(enabled);
      drive.addBitmap(resized);
    }
  }

  /// The first half of a pivot, before the drive is re-pointed: the persistent bitmaps' names go
  /// into the image that is to be the top, in use. An image that refuses a name keeps none of that
  /// bitmap until [#store]: the guest is not stopped for that, and a crash then leaves the bitmap
  /// missing.
  void announceIn(BitmapStore next) {
    for (String name : removed) {
      try {
        if (next.holds(name)) {
          next.remove(name);
        }
      } catch (BlockException e) {
        // Safe because it stays in use there: nobody takes it for a clean one.
        LOG.log(Level.WARNING, "{0}: old bitmap {1}: {2}", drive.name(), name, e.getMessage());
      }
    }
    for (DirtyBitmap bitmap : trustedBitmaps()) {
      try {
        if (next.holds(bitmap.name())) {
          next.remove(bitmap.name());
        }
        next.add(bitmap);
      } catch (BlockException e) {
        LOG.log(
            Level.WARNING,
            "{0}: bitmap {1} is not kept in the new image before a clean stop: {2}",
            drive.name(),
            bitmap.name(),
            e.getMessage());
      }
    }
  }

  /// Undoes [#announceIn]: the image is not to be the top.
  void withdrawFrom(BitmapStore next) {
    for (DirtyBitmap bitmap : trustedBitmaps()) {
      try {
        if (next.holds(bitmap.name())) {
          next.remove(bitmap.name());
        }
      } catch (BlockException e) {
        // Safe because it stays in use there: nobody takes it for a clean one.
        LOG.log(
            Level.WARNING,
            "{0}: bitmap {1} stays in an image that is not used: {2}",
            drive.name(),
            bitmap.name(),
            e.getMessage());
      }
    }
  }

  /// Images beneath the top left the chain. A broken bitmap that nothing in the chain shows to be
  /// broken any more is whole again when an image that took in what they held knows of it; else it
  /// is given up, lest the next start trusts it.
  ///
  /// On disk it stays in use until [#store] leaves it out.
  ///
  /// @param known names of that image's bitmaps
  /// @param beneath what the images beneath the top keep now
  void mend(Set<String> known, List<BitmapStore> beneath) {
    for (DirtyBitmap bitmap : drive.bitmaps()) {
      String name = bitmap.name();
      if (!broken.contains(name) || !StoredBitmaps.mergeParts(bitmap, beneath)) {
        continue;
      }
      broken.remove(name);
      if (!known.contains(name)) {
        Optional<DirtyBitmap> _ = drive.removeBitmap(name);
        persistent.remove(name);
        inconsistent.put(
            name, new BitmapStore.Stored(name, bitmap.granularity(), true, bitmap.enabled()));
      }
    }
  }

  /// Between the halves: from now on the guest's writes go to another image, whose own bitmaps
  /// record from here on; a broken one stays behind. Only with the drive drained.
  void freeze(Optional<FollowedBitmaps> next) {
    frozen = persistentBitmaps().stream().map(bitmap -> bitmap.copy(bitmap.name())).toList();
    for (String name : List.copyOf(broken)) {
      drive.removeBitmap(name).ifPresent(leaving::add);
      persistent.remove(name);
    }
    broken.clear();
    next.ifPresent(this::takeFrom);
  }

  private void takeFrom(FollowedBitmaps next) {
    for (DirtyBitmap bitmap : next.bitmaps()) {
      String name = bitmap.name();
      boolean known = drive.bitmaps().stream().anyMatch(own -> own.name().equals(name));
      if (known || removed.contains(name) || drive.bitmaps().size() >= MAX_BITMAPS) {
        continue;
      }
      drive.addBitmap(bitmap);
      persistent.add(name);
      joining.add(bitmap);
      if (next.broken(name)) {
        broken.add(name);
      }
    }
  }

  /// Undoes [#freeze]: the drive stays on its image. Only with the drive drained.
  void unfreeze() {
    for (DirtyBitmap bitmap : joining) {
      Optional<DirtyBitmap> _ = drive.removeBitmap(bitmap.name());
      persistent.remove(bitmap.name());
    }
    broken.clear();
    for (DirtyBitmap bitmap : leaving) {
      drive.addBitmap(bitmap);
      persistent.add(bitmap.name());
      broken.add(bitmap.name());
    }
    forgetMove();
  }

  private void forgetMove() {
    frozen = List.of();
    joining.clear();
    leaving.clear();
  }

  /// The second half, after it: the new top keeps the persistent bitmaps, or they are dropped when
  /// it cannot keep any; the old one keeps what they held when the drive left it.
  void moveTo(Optional<BitmapStore> next) {
    Optional<BitmapStore> old = store;
    store = next;
    inconsistent.clear();
    next.map(BitmapStore::stored).orElse(List.of()).stream()
        .filter(BitmapStore.Stored::inconsistent)
        .forEach(stored -> inconsistent.put(stored.name(), stored));
    if (next.isEmpty()) {
      List.copyOf(persistent).forEach(this::leave);
    }
    old.ifPresent(this::keepIn);
    forgetMove();
  }

  private void keepIn(BitmapStore old) {
    try {
      old.store(frozen);
    } catch (BlockException e) {
      // Safe because they stay in use there: nobody takes them for clean ones.
      LOG.log(
          Level.WARNING,
          "{0}: bitmaps of the image that the drive left: {1}",
          drive.name(),
          e.getMessage());
    }
  }
}
