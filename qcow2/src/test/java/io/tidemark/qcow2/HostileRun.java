// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Durability;
import io.tidemark.block.InternalSnapshot;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ResizeOptions;
import io.tidemark.block.SnapshotStore;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.CrashingFile;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.zip.GZIPInputStream;

/// Does everything that can be done with mutated images, in a small heap: a program of its own, so
/// that one image that hangs or fills the heap ends it and not the tests.
///
/// `HostileRun FIRST_SEED SECONDS` goes through seeds; exit status 0 when each gave a value or a
/// [BlockException] within [#LIMIT_SECONDS].
final class HostileRun {
  static final String[] IMAGES = {
    "everything", "v2", "subclusters", "zstd", "datafile", "narrow", "wide"
  };

  /// What one image may take, on a machine that does much else.
  static final int LIMIT_SECONDS = 20;

  /// How much more space a file may take by what is written here.
  private static final long GROWTH = 80 << 20; // two L1 tables of 32 MiB, and more

  private HostileRun() {}

  public static void main(String[] arguments) throws IOException {
    long first = Long.parseLong(arguments[0]);
    long end = System.nanoTime() + Long.parseLong(arguments[1]) * 1_000_000_000L;
    long seed = first;
    var watch = new Watch();
    watch.start();
    List<byte[]> images = images();
    do {
      watch.begin(seed);
      try {
        one(images, seed);
      } catch (Throwable e) {
        System.out.println("seed " + seed + " of " + IMAGES[which(seed)]);
        e.printStackTrace(System.out);
        System.out.flush();
        Runtime.getRuntime().halt(1);
      }
      seed++;
    } while (System.nanoTime() < end);
    watch.finish();
    System.out.println((seed - first) + " images");
  }

  /// Ends the program when one image takes too long.
  private static final class Watch extends Thread {
    private final Thread worker = Thread.currentThread();
    private volatile long since;
    private volatile long seed;
    private volatile boolean done;

    Watch() {
      setDaemon(true);
    }

    void begin(long which) {
      seed = which;
      since = System.nanoTime();
    }

    void finish() {
      done = true;
    }

    @Override
    public void run() {
      while (!done) {
        java.util.concurrent.locks.LockSupport.parkNanos(100_000_000);
        if (since != 0 && System.nanoTime() - since > LIMIT_SECONDS * 1_000_000_000L) {
          System.out.println("seed " + seed + " of " + IMAGES[which(seed)] + " hangs:");
          for (StackTraceElement frame : worker.getStackTrace()) {
            System.out.println("  " + frame);
          }
          System.out.flush();
          Runtime.getRuntime().halt(2);
        }
      }
    }
  }

  static List<byte[]> images() throws IOException {
    var images = new ArrayList<byte[]>();
    for (String name : IMAGES) {
      String resource = "/golden/qemu-img-7.2/" + name + ".qcow2.gz";
      try (InputStream packed = HostileRun.class.getResourceAsStream(resource);
          InputStream plain = new GZIPInputStream(packed)) {
        images.add(plain.readAllBytes());
      }
    }
    return images;
  }

  private static int which(long seed) {
    return (int) Math.floorMod(seed, (long) IMAGES.length);
  }

  static void one(List<byte[]> images, long seed) throws BlockException {
    byte[] bytes = new ImageMutator(images.get(which(seed)), seed).mutate();
    use(bytes, seed, true);
    use(bytes, seed, false);
  }

  private static CrashingFile file(byte[] bytes) throws BlockException {
    var file = CrashingFile.ofSize(1, bytes.length);
    file.write(0, ByteBuffer.wrap(bytes));
    return file;
  }

  private interface Action {
    void run() throws BlockException;
  }

  private static void attempt(Action action) {
    try {
      action.run();
    } catch (BlockException e) {
      if (e.getMessage() == null || e.getMessage().isBlank()) {
        throw new AssertionError("an error without words", e);
      }
    }
  }

  /// The only exceptions that may come are [BlockException]s; a read-only image stays as it is.
  static void use(byte[] bytes, long seed, boolean readOnly) throws BlockException {
    CrashingFile file = file(bytes);
    CrashingFile data = CrashingFile.ofSize(2, 256 << 10);
    OpenOptions options = readOnly ? OpenOptions.reading() : OpenOptions.readWrite();
    long steps = file.steps() + data.steps();
    try (var image =
        (Qcow2Image) new Qcow2Format().open(file, options.with(Durability.FLUSHED), _ -> data)) {
      look(image);
      if (!readOnly) {
        change(image, new Random(seed));
        if (file.allocatedBytes() > bytes.length + GROWTH) {
          throw new AssertionError("file takes " + file.allocatedBytes());
        }
      }
    } catch (BlockException _) {
      // opening or closing may fail as well
    }
    if (readOnly && file.steps() + data.steps() != steps) {
      throw new AssertionError("a read-only image was changed");
    }
  }

  private static int most(Qcow2Image image) {
    return (int) Math.min(image.virtualSize(), 600 << 10);
  }

  private static void look(Qcow2Image image) {
    int most = most(image);
    attempt(() -> image.read(0, ByteBuffer.allocate(most)));
    attempt(() -> image.read(image.virtualSize() - most, ByteBuffer.allocate(most)));
    attempt(() -> image.extents(0, most, _ -> true));
    var budget = new int[] {100_000};
    attempt(() -> image.extents(0, image.virtualSize(), _ -> --budget[0] > 0));
    image.information();
    attempt(image::check);
    attempt(image::allocatedBytes);
    attempt(image::dataMayLieInHoles);
    image
        .bitmapStore()
        .ifPresent(store -> {
          for (BitmapStore.Stored stored : store.stored()) {
            attempt(() -> store.load(stored.name()));
          }
        });
    image
        .snapshots()
        .ifPresent(store -> {
          for (InternalSnapshot snapshot : store.list()) {
            attempt(() -> {
              try (var view = store.view(snapshot.id())) {
                int part = (int) Math.min(view.virtualSize(), 100_000);
                view.read(0, ByteBuffer.allocate(part));
                view.extents(0, part, _ -> true);
              }
            });
          }
        });
  }

  private static void change(Qcow2Image image, Random random) {
    for (int i = 0; i < 6; i++) {
      int most = most(image);
      int offset = most == 0 ? 0 : random.nextInt(most);
      int length = random.nextInt(Math.min(most - offset, 20_000) + 1);
      switch (random.nextInt(13)) {
        case 0, 1 -> attempt(() -> image.write(offset, ByteBuffer.allocate(length)));
        case 2 -> attempt(() -> image.discard(offset, length));
        case 3 -> attempt(() -> image.writeZeroes(offset, length, ZeroMode.MAY_UNMAP));
        case 4 -> attempt(() -> compressed(image, offset));
        case 5 -> attempt(image::flush);
        case 6 -> image.bitmapStore().ifPresent(store -> bitmaps(store, image, random));
        case 7 -> image.snapshots().ifPresent(store -> snapshots(store, random));
        case 8 -> attempt(() -> image.repair(random.nextBoolean() ? Repair.ALL : Repair.LEAKS));
        case 9 -> attempt(() -> image.resize(random.nextInt(4 << 20) & -512L, ResizeOptions.ANY));
        case 10 -> attempt(() -> image.changeBacking(Optional.empty()));
        case 11 -> {
          String compat = random.nextBoolean() ? "0.10" : "1.1";
          String bits = "" + (1 << random.nextInt(7));
          attempt(() -> image.amend(Map.of("compat", compat)));
          attempt(() -> image.amend(Map.of("refcount_bits", bits)));
        }
        default -> {
          attempt(() -> image.reopen(true));
          attempt(() -> image.reopen(false));
        }
      }
    }
    attempt(image::flush);
    attempt(image::check);
  }

  private static void compressed(Qcow2Image image, int offset) throws BlockException {
    long start = offset / image.clusterSize() * image.clusterSize();
    int length = (int) Math.min(image.clusterSize(), image.virtualSize() - start);
    if (image.canWriteCompressed() && length > 0) {
      image.writeCompressed(start, ByteBuffer.allocate(length));
    }
  }

  private static void bitmaps(BitmapStore store, Qcow2Image image, Random random) {
    String name = random.nextBoolean() ? "b0" : "new";
    switch (random.nextInt(5)) {
      case 0 -> attempt(() -> store.add("new", 65536));
      case 1 -> attempt(() -> store.remove(name));
      case 2 -> attempt(() -> store.clear(name));
      case 3 -> attempt(store::claim);
      default -> {
        if (image.virtualSize() > 0 && image.virtualSize() < 1 << 30) {
          var bitmap = new DirtyBitmap("b0", image.virtualSize(), 4096);
          attempt(() -> store.store(List.of(bitmap)));
        }
      }
    }
  }

  private static void snapshots(SnapshotStore store, Random random) {
    String name = random.nextBoolean() ? "one" : "1";
    switch (random.nextInt(3)) {
      case 0 -> attempt(() -> store.create("new", Instant.EPOCH));
      case 1 -> attempt(() -> store.delete(name));
      default -> attempt(() -> store.apply(name));
    }
  }
}
