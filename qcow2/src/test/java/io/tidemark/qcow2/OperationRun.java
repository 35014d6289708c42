// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.ImageBusyException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.ResizeOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.ModelDisk;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.jspecify.annotations.Nullable;

/// Does [ImageOperation]s to an image and knows what the image must hold at any moment: the disk,
/// the disks of its snapshots, what its bitmaps must have marked.
///
/// An operation that reorganises the image is whole or not at all: while it runs there are two
/// states that the image may be in, [#before] it and [#after] it.
final class OperationRun {
  private static final int SECTOR = 512;
  private static final int MAX_SNAPSHOTS = 3;
  private static final int MAX_BITMAPS = 4;

  /// How an image is opened again after it was closed.
  interface Opening {
    Qcow2Image run() throws BlockException;
  }

  /// Bitmaps that an operation marks as in use, one by one.
  private enum InUse {
    AS_KNOWN,
    THOSE_THAT_RECORD,
    ALL
  }

  /// What must be true of one bitmap.
  ///
  /// @param marked sectors that it must have marked while it is consistent
  /// @param consistent on disk; not so while it is in use
  private record Marks(
      long granularity, boolean enabled, boolean consistent, boolean usable, BitSet marked) {
    Marks with(boolean nowEnabled, boolean nowConsistent, boolean nowUsable) {
      return new Marks(granularity, nowEnabled, nowConsistent, nowUsable, (BitSet) marked.clone());
    }
  }

  /// What an image may hold.
  private record State(ModelDisk disk, Map<String, byte[]> snapshots, Map<String, Marks> bitmaps) {
    State copy() {
      return new State(disk, new LinkedHashMap<>(snapshots), new LinkedHashMap<>(bitmaps));
    }

    State withDisk(ModelDisk other) {
      return new State(other, new LinkedHashMap<>(snapshots), new LinkedHashMap<>(bitmaps));
    }
  }

  private Qcow2Image image;
  private final Opening opening;
  private State before;
  private State after;
  private Map<String, DirtyBitmap> live = Map.of(); // bitmaps in memory, while claimed
  private boolean claimed;
  private InUse mayBeInUse = InUse.AS_KNOWN; // bitmaps in the middle of an operation

  // The range of a guest's change that is under way.
  private long changing;
  private int changingLength;
  private int names;

  /// Takes the image as it is for right.
  OperationRun(Qcow2Image image, Opening opening) throws BlockException {
    this.image = image;
    this.opening = opening;
    var snapshots = new LinkedHashMap<String, byte[]>();
    SnapshotStore store = image.snapshots().orElseThrow();
    for (var snapshot : store.list()) {
      snapshots.put(snapshot.name(), content(store, snapshot.name()));
    }
    var bitmaps = new LinkedHashMap<String, Marks>();
    if (image.bitmapStore().isPresent()) {
      for (BitmapStore.Stored stored : image.bitmapStore().get().stored()) {
        var marked = new BitSet();
        if (!stored.inconsistent()) {
          DirtyBitmap bitmap = image.bitmapStore().get().load(stored.name());
          for (long at = 0; at < bitmap.size(); at += SECTOR) {
            marked.set((int) (at / SECTOR), bitmap.isDirty(at));
          }
        }
        boolean sound = !stored.inconsistent();
        bitmaps.put(
            stored.name(), new Marks(stored.granularity(), stored.enabled(), sound, sound, marked));
      }
    }
    before = new State(ModelDisk.of(image), snapshots, bitmaps);
    after = before;
  }

  private String freeName(String prefix) {
    String name;
    do {
      name = prefix + names++;
    } while (before.snapshots().containsKey(name) || before.bitmaps().containsKey(name));
    return name;
  }

  private static byte[] content(SnapshotStore store, String name) throws BlockException {
    try (var view = store.view(name)) {
      byte[] bytes = new byte[(int) view.virtualSize()];
      view.read(0, ByteBuffer.wrap(bytes));
      return bytes;
    }
  }

  Qcow2Image image() {
    return image;
  }

  /// Does them all, or as many as come before a failure, which goes to the caller.
  void run(List<ImageOperation> operations) throws BlockException {
    for (ImageOperation operation : operations) {
      step(operation);
    }
  }

  private void step(ImageOperation op) throws BlockException {
    switch (op.kind()) {
      case WRITE, COMPRESSED, ZERO, DISCARD -> guestChange(op);
      case FLUSH -> {
        image.flush();
        before.disk().flushed();
      }
      case SNAPSHOT, DELETE, APPLY -> snapshotChange(op);
      case ADD, REMOVE, CLEAR, ENABLE, DISABLE, MERGE -> bitmapChange(op);
      case CLAIM -> claim();
      case STORE -> store();
      case RESIZE -> resize(op);
      case REOPEN -> reopen(op);
    }
  }

  // ---- what a guest does

  private void guestChange(ImageOperation op) throws BlockException {
    ModelDisk disk = before.disk();
    if (disk.size() == 0) {
      return;
    }
    int length = 1 + (int) (Math.min(disk.size() - 1, 50_000) * Math.pow(op.what(), 3));
    long offset = (long) (op.where() * (disk.size() - length + 1));
    if (op.content() % 3 == 0) {
      offset = offset / 4096 * 4096;
    }
    if (op.kind() == ImageOperation.Kind.COMPRESSED) {
      if (!image.canWriteCompressed()) {
        return;
      }
      offset = offset / image.clusterSize() * image.clusterSize();
      length = (int) Math.min(image.clusterSize(), disk.size() - offset);
    }
    after = before.copy();
    record(offset, length);
    changing = offset;
    changingLength = length;
    mayBeInUse = InUse.THOSE_THAT_RECORD;
    byte[] bytes = new byte[length];
    switch (op.kind()) {
      case WRITE -> new Random(op.content()).nextBytes(bytes);
      case COMPRESSED -> {
        byte[] some = new byte[(int) (length * op.what())]; // the rest packs well
        new Random(op.content()).nextBytes(some);
        System.arraycopy(some, 0, bytes, 0, some.length);
      }
      default -> {}
    }
    disk.attempt(offset, bytes);
    switch (op.kind()) {
      case WRITE -> image.write(offset, ByteBuffer.wrap(bytes));
      case COMPRESSED -> image.writeCompressed(offset, ByteBuffer.wrap(bytes));
      case ZERO ->
          image.writeZeroes(
              offset, length, op.content() % 2 == 0 ? ZeroMode.MAY_UNMAP : ZeroMode.NO_UNMAP);
      default -> image.discard(offset, length);
    }
    if (op.kind() == ImageOperation.Kind.DISCARD) {
      disk.settle(image, offset, length);
    } else {
      disk.acknowledge(offset, length);
    }
    before = after;
    mayBeInUse = InUse.AS_KNOWN;
    changingLength = 0;
  }

  /// A change by a guest: the bitmaps in memory have it; nobody's bitmaps are given up.
  private void record(long offset, int length) {
    after
        .bitmaps()
        .replaceAll((name, marks) -> {
          if (!marks.enabled() || !marks.usable()) {
            return marks;
          }
          if (!claimed) {
            return marks.with(true, false, false);
          }
          Marks more = marks.with(true, false, true);
          more.marked().set((int) (offset / SECTOR), (int) ((offset + length - 1) / SECTOR) + 1);
          return more;
        });
    for (DirtyBitmap bitmap : live.values()) {
      if (bitmap.enabled()) {
        bitmap.set(offset, length);
      }
    }
  }

  // ---- operations that are whole or not at all

  private interface Change {
    void run() throws BlockException;
  }

  /// Runs `change`, which leads from [#before] to `to`, or is refused and leads nowhere.
  private void reorganise(State to, Change change) throws BlockException {
    after = to;
    try {
      change.run();
    } catch (UnsupportedImageException | OutOfSpaceException | ImageBusyException _) {
      after = before; // refused: nothing happened
    }
    before = after;
  }

  private void snapshotChange(ImageOperation op) throws BlockException {
    SnapshotStore store = image.snapshots().orElseThrow();
    State to = before.copy();
    if (op.kind() == ImageOperation.Kind.SNAPSHOT) {
      if (to.snapshots().size() >= MAX_SNAPSHOTS) {
        return;
      }
      String name = freeName("s");
      to.snapshots().put(name, before.disk().read(0, (int) before.disk().size()));
      reorganise(to, () -> store.create(name, Instant.EPOCH));
      flushedIf(to);
      return;
    }
    Optional<String> name = pick(before.snapshots().keySet(), op.where());
    if (name.isEmpty() || (op.kind() == ImageOperation.Kind.APPLY && claimed)) {
      return; // whoever keeps bitmaps in memory does not go back
    }
    if (op.kind() == ImageOperation.Kind.DELETE) {
      to.snapshots().remove(name.get());
      reorganise(to, () -> store.delete(name.get()));
      flushedIf(to);
      return;
    }
    to = before.withDisk(modelOf(before.snapshots().get(name.get())));
    to.bitmaps()
        .replaceAll((_, marks) ->
            marks.enabled() && marks.usable() ? marks.with(true, false, false) : marks);
    mayBeInUse = InUse.ALL;
    reorganise(to, () -> store.apply(name.get()));
    readBitmapStates(); // those of another size than the disk has now are of no use
    mayBeInUse = InUse.AS_KNOWN;
  }

  /// What made another state of the image has flushed it.
  @SuppressWarnings("ReferenceEquality") // one state is meant, not one like it
  private void flushedIf(State made) {
    if (before == made) {
      made.disk().flushed();
    }
  }

  private static ModelDisk modelOf(byte @Nullable [] bytes) {
    if (bytes == null) {
      throw new AssertionError("no content is known");
    }
    var model = new ModelDisk(bytes.length);
    model.write(0, bytes);
    model.flushed();
    return model;
  }

  private static Optional<String> pick(Iterable<String> names, double which) {
    var all = new ArrayList<String>();
    names.forEach(all::add);
    return all.isEmpty() ? Optional.empty() : Optional.of(all.get((int) (which * all.size())));
  }

  private void bitmapChange(ImageOperation op) throws BlockException {
    Optional<BitmapStore> found = image.bitmapStore();
    if (found.isEmpty() || claimed) {
      return;
    }
    BitmapStore store = found.get();
    State to = before.copy();
    if (op.kind() == ImageOperation.Kind.ADD) {
      if (to.bitmaps().size() < MAX_BITMAPS) {
        String name = freeName("b");
        long granularity = 512L << (int) (op.what() * 8);
        to.bitmaps().put(name, new Marks(granularity, true, true, true, new BitSet()));
        reorganise(to, () -> store.add(name, granularity));
      }
      return;
    }
    Optional<String> picked = pick(before.bitmaps().keySet(), op.where());
    if (picked.isEmpty()) {
      return;
    }
    String name = picked.get();
    Marks marks = to.bitmaps().get(name);
    if (op.kind() == ImageOperation.Kind.REMOVE) {
      to.bitmaps().remove(name);
      reorganise(to, () -> store.remove(name));
      return;
    }
    if (marks == null || !marks.usable()) {
      return;
    }
    switch (op.kind()) {
      case CLEAR -> {
        Marks clean = marks.with(marks.enabled(), true, true);
        clean.marked().clear();
        to.bitmaps().put(name, clean);
        reorganise(to, () -> store.clear(name));
      }
      case ENABLE -> {
        to.bitmaps().put(name, marks.with(true, true, true));
        reorganise(to, () -> store.enable(name));
      }
      case DISABLE -> {
        to.bitmaps().put(name, marks.with(false, true, true));
        reorganise(to, () -> store.disable(name));
      }
      default -> {
        Optional<String> source = pick(before.bitmaps().keySet(), op.what());
        Marks from = before.bitmaps().get(source.orElseThrow());
        if (from != null && from.usable()) {
          Marks both = marks.with(marks.enabled(), true, true);
          both.marked().or(from.marked());
          to.bitmaps().put(name, both);
          reorganise(to, () -> store.merge(name, store.load(source.get())));
        }
      }
    }
  }

  /// Takes the bitmaps into memory, as a domain does at its start.
  private void claim() throws BlockException {
    if (image.bitmapStore().isEmpty() || claimed) {
      return;
    }
    BitmapStore store = image.bitmapStore().get();
    var loaded = new LinkedHashMap<String, DirtyBitmap>();
    State to = before.copy();
    for (var entry : before.bitmaps().entrySet()) {
      if (entry.getValue().usable()) {
        loaded.put(entry.getKey(), store.load(entry.getKey()));
        to.bitmaps()
            .put(entry.getKey(), entry.getValue().with(entry.getValue().enabled(), false, true));
      }
    }
    mayBeInUse = InUse.ALL;
    reorganise(to, store::claim);
    mayBeInUse = InUse.AS_KNOWN;
    live = loaded;
    claimed = true;
  }

  /// Puts the bitmaps back.
  private void store() throws BlockException {
    if (!claimed) {
      return;
    }
    State to = before.copy();
    to.bitmaps()
        .replaceAll((_, marks) -> marks.usable() ? marks.with(marks.enabled(), true, true) : marks);
    reorganise(to, () -> image.bitmapStore().orElseThrow().store(live.values()));
    live = Map.of();
    claimed = false;
  }

  private void resize(ImageOperation op) throws BlockException {
    long size = ((long) (op.what() * 700)) * 1024 + (op.content() % 2 == 0 ? 512 : 0);
    long old = before.disk().size();
    byte[] bytes = new byte[(int) size];
    int kept = (int) Math.min(old, size);
    System.arraycopy(before.disk().read(0, kept), 0, bytes, 0, kept);
    State to = before.withDisk(modelOf(bytes));
    to.bitmaps()
        .replaceAll((_, marks) -> {
          Marks resized = marks.with(marks.enabled(), marks.consistent(), marks.usable());
          if (size < old) {
            resized.marked().clear((int) ((size + SECTOR - 1) / SECTOR), Integer.MAX_VALUE);
          } else {
            resized.marked().set((int) (old / SECTOR), (int) (size / SECTOR));
          }
          return resized;
        });
    mayBeInUse = InUse.ALL;
    reorganise(to, () -> image.resize(size, ResizeOptions.ANY));
    mayBeInUse = InUse.AS_KNOWN;
    if (image.virtualSize() == size) {
      var resized = new LinkedHashMap<String, DirtyBitmap>();
      live.forEach((name, bitmap) -> resized.put(name, bitmap.resized(size)));
      live = resized;
    }
  }

  /// Another size than that of the disk makes bitmaps unusable.
  private void readBitmapStates() {
    if (image.bitmapStore().isPresent()) {
      for (BitmapStore.Stored stored : image.bitmapStore().get().stored()) {
        before
            .bitmaps()
            .computeIfPresent(
                stored.name(),
                (_, marks) ->
                    stored.inconsistent() ? marks.with(marks.enabled(), false, false) : marks);
      }
    }
  }

  private void reopen(ImageOperation op) throws BlockException {
    if (claimed) {
      store();
    }
    if (op.content() % 2 == 0) {
      image.reopen(true);
      image.reopen(false);
    } else {
      image.close();
      image = opening.run();
    }
    before.disk().flushed();
  }

  /// All went well: the image holds what it must, byte for byte. Bitmaps in memory are put back.
  void holdsExactly() throws BlockException {
    store();
    before.disk().holdsExactly(image);
    judgeRest(image, before);
  }

  // ---- what a crash left

  /// @param powerCut whether what was not flushed may be lost; else only the process died
  @SuppressWarnings("ReferenceEquality") // one state is meant, not one like it
  void judge(Qcow2Image left, boolean powerCut) throws BlockException {
    AssertionError older = wrong(left, before, powerCut);
    if (older == null) {
      return;
    }
    if (before == after) {
      throw older;
    }
    AssertionError newer = wrong(left, after, powerCut);
    if (newer != null) {
      newer.addSuppressed(older);
      throw newer;
    }
  }

  private @Nullable AssertionError wrong(Qcow2Image left, State state, boolean powerCut)
      throws BlockException {
    try {
      if (powerCut) {
        state.disk().holdsAtLeastFlushed(left);
      } else {
        state.disk().holdsAcknowledged(left);
      }
      judgeRest(left, state);
      return null;
    } catch (AssertionError e) {
      return e;
    }
  }

  private void judgeRest(Qcow2Image left, State state) throws BlockException {
    SnapshotStore store = left.snapshots().orElseThrow();
    assertThat(store.list().stream().map(s -> s.name()).toList())
        .as("snapshots")
        .containsExactlyElementsOf(state.snapshots().keySet());
    for (var snapshot : state.snapshots().entrySet()) {
      assertThat(content(store, snapshot.getKey()))
          .as("disk of snapshot %s", snapshot.getKey())
          .isEqualTo(snapshot.getValue());
    }
    if (left.bitmapStore().isEmpty()) {
      return;
    }
    judgeBitmaps(left, left.bitmapStore().get(), state);
  }

  private void judgeBitmaps(Qcow2Image left, BitmapStore store, State state) throws BlockException {
    assertThat(store.stored().stream().map(BitmapStore.Stored::name).toList())
        .as("bitmaps")
        .containsExactlyInAnyOrderElementsOf(state.bitmaps().keySet());
    for (BitmapStore.Stored stored : store.stored()) {
      Marks marks = state.bitmaps().get(stored.name());
      if (marks == null) {
        throw new AssertionError(stored.name());
      }
      if (stored.inconsistent()) {
        boolean lawful =
            switch (mayBeInUse) {
              case AS_KNOWN -> false;
              case THOSE_THAT_RECORD -> marks.enabled();
              case ALL -> true;
            };
        assertThat(marks.consistent() && !lawful)
            .as("bitmap %s was kept and is inconsistent", stored.name())
            .isFalse();
      } else {
        assertThat(marks.usable()).as("bitmap %s is not consistent", stored.name()).isTrue();
        DirtyBitmap bitmap = store.load(stored.name());
        assertThat(bitmap.size()).isEqualTo(left.virtualSize());
        judgeMarks(left, state, bitmap, marks);
      }
    }
  }

  private void judgeMarks(Qcow2Image left, State state, DirtyBitmap bitmap, Marks marks)
      throws BlockException {
    for (int s = marks.marked().nextSetBit(0); s >= 0; s = marks.marked().nextSetBit(s + 1)) {
      long at = (long) s * SECTOR;
      if (at < bitmap.size() && !bitmap.isDirty(at)) {
        throw new AssertionError(
            "bitmap " + bitmap.name() + " claims clean what is dirty: sector " + s);
      }
    }
    boolean records = marks.enabled() && changingLength > 0;
    long end = records ? changing + changingLength : 0;
    for (long at = changing / SECTOR * SECTOR; at < end; at += SECTOR) {
      if (!bitmap.isDirty(at) && !state.disk().holdsEarlier(left, at)) {
        throw new AssertionError(
            "bitmap " + bitmap.name() + " claims clean what is being written at " + at);
      }
    }
  }
}
