// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BitmapStore;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Drive;
import io.tidemark.block.Durability;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import io.tidemark.job.CommitJob;
import io.tidemark.job.CommitOptions;
import io.tidemark.job.Job;
import io.tidemark.job.JobClock;
import io.tidemark.job.JobStateException;
import io.tidemark.job.JobStatus;
import io.tidemark.job.MirrorJob;
import io.tidemark.job.MirrorOptions;
import io.tidemark.qcow2.CheckResult;
import io.tidemark.qcow2.Qcow2Image;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;

/// Power is cut at every step of a pivot, of an active commit and of a snapshot of two disks, on
/// files that lose it together with the record that is the commit point. Whatever the record then
/// says, the image that it names is sound and holds at least what the guest had flushed.
///
/// `-Dcut.stride=1` cuts at each single step; by default some are left out.
class PowerCutTest {
  private static final int STRIDE = Integer.getInteger("cut.stride", 9);
  private static final long SEED = Long.getLong("seed", 20261122L);
  private static final int SIZE = 192 << 10;
  private static final int GUEST_OPERATIONS = 120;
  private static final Duration PATIENCE = Duration.ofSeconds(60);

  /// What all files of a host hang on.
  private static final class Power {
    private final long cutAt;
    private long steps;

    Power(long cutAt) {
      this.cutAt = cutAt;
    }

    synchronized void step() throws BlockException {
      if (++steps >= cutAt) {
        throw new TransportException("power is cut");
      }
    }

    synchronized boolean isCut() {
      return steps >= cutAt;
    }

    synchronized long steps() {
      return steps;
    }
  }

  /// A file of that host.
  private record Powered(CrashingFile file, Power power) implements BlockNode {
    @Override
    public String name() {
      return file.name();
    }

    @Override
    public long virtualSize() {
      return file.virtualSize();
    }

    @Override
    public boolean readOnly() {
      return false;
    }

    @Override
    public void read(long offset, ByteBuffer into) throws BlockException {
      file.read(offset, into);
    }

    @Override
    public void write(long offset, ByteBuffer from) throws BlockException {
      power.step();
      file.write(offset, from);
    }

    @Override
    public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
      power.step();
      file.writeZeroes(offset, length, mode);
    }

    @Override
    public void discard(long offset, long length) throws BlockException {
      power.step();
      file.discard(offset, length);
    }

    @Override
    public void resize(long newSize) throws BlockException {
      power.step();
      file.resize(newSize);
    }

    @Override
    public void flush() throws BlockException {
      power.step();
      file.flush();
    }

    @Override
    public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
      file.extents(offset, length, visitor);
    }

    @Override
    public void close() {}
  }

  private static CrashingFile image(long seed, Optional<String> backing) throws BlockException {
    var file = new CrashingFile(seed);
    Qcow2Image.create(
        file,
        new CreateOptions(
            SIZE,
            backing.map(name -> new BackingReference(name, Optional.of("qcow2"))),
            Map.of("cluster_size", "4096")));
    file.flush();
    return file;
  }

  private static Qcow2Image open(BlockNode file) throws BlockException {
    return Qcow2Image.open(file, OpenOptions.readWrite(), Durability.FLUSHED);
  }

  private static Qcow2Image open(BlockNode file, BlockNode backing) throws BlockException {
    Qcow2Image image = open(file);
    image.attachBacking(backing);
    return image;
  }

  /// The commit point: one sector that says which side is the truth.
  private static final class CommitPoint {
    private final CrashingFile file = CrashingFile.ofSize(1, CrashingFile.SECTOR);
    private final Power power;

    CommitPoint(Power power) {
      this.power = power;
    }

    void write() throws BlockException {
      var disk = new Powered(file, power);
      disk.write(0, ByteBuffer.wrap(new byte[] {1}));
      disk.flush();
    }

    boolean saysNewAfter(long crashSeed) throws BlockException {
      ByteBuffer sector = ByteBuffer.allocate(1);
      file.crash(crashSeed).read(0, sector);
      return sector.get(0) == 1;
    }
  }

  /// Writes a drive, flushes now and then, until its power goes.
  private static final class Guest {
    final ModelDisk model;
    private final Drive drive;
    private final Random random;

    Guest(Drive drive, long seed) throws BlockException {
      this.drive = drive;
      this.model = ModelDisk.of(drive);
      this.random = new Random(seed);
    }

    void run(int operations) {
      try {
        for (int n = 0; n < operations; n++) {
          step();
        }
      } catch (BlockException _) {
        // its power is cut
      }
    }

    private void step() throws BlockException {
      int kind = random.nextInt(8);
      if (kind == 0) {
        drive.flush();
        model.flushed();
        return;
      }
      int length = 1 + random.nextInt(9000);
      int offset = random.nextInt(SIZE - length);
      byte[] bytes = new byte[length];
      if (kind > 1) {
        random.nextBytes(bytes);
      }
      model.attempt(offset, bytes);
      if (kind > 1) {
        drive.write(offset, ByteBuffer.wrap(bytes));
      } else {
        drive.writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
      }
      model.acknowledge(offset, length);
    }
  }

  /// One run that is cut at a step.
  ///
  /// @return steps of the run when it was not cut
  @FunctionalInterface
  private interface Scenario {
    Optional<Long> run(long cut) throws Exception;
  }

  private static void atEveryStep(Scenario scenario) throws Exception {
    Optional<Long> all = scenario.run(Long.MAX_VALUE);
    long steps = all.orElseThrow();
    int cuts = 0;
    // The number of steps is not the same each time: a job's threads race.
    for (long cut = 1L + Math.floorMod(SEED, STRIDE); cut < steps + 20; cut += STRIDE) {
      scenario.run(cut);
      cuts++;
    }
    assertThat(cuts).isGreaterThan(10);
  }

  private static void requireSound(Qcow2Image image) throws BlockException {
    CheckResult result = image.check();
    assertThat(result.sound()).as("%s", result.findings()).isTrue();
  }

  private static Optional<Long> stepsIfDone(Power power) {
    return power.isCut() ? Optional.empty() : Optional.of(power.steps());
  }

  @Test
  void pivotLeavesTheSourceOrTheCopyWithAllThatWasFlushed() throws Exception {
    atEveryStep(cut -> {
      var power = new Power(cut);
      CrashingFile source = image(cut, Optional.empty());
      CrashingFile copy = image(cut + 1, Optional.empty());
      var record = new CommitPoint(power);
      var drive = new Drive("vda", open(new Powered(source, power)));
      var guest = new Guest(drive, SEED + cut);
      guest.run(20);
      Qcow2Image target = open(new Powered(copy, power));
      mirror(
          MirrorOptions.of("copy", drive, target).withTargetIsZero(true).withGranularity(4096),
          guest,
          record);
      for (long seed = cut; seed < cut + 3; seed++) {
        boolean pivoted = record.saysNewAfter(seed);
        try (Qcow2Image left = open((pivoted ? copy : source).crash(seed))) {
          requireSound(left);
          guest.model.holdsAtLeastFlushed(left);
        }
      }
      return stepsIfDone(power);
    });
  }

  @Test
  void activeCommitLeavesTheOldOrTheNewChainWithAllThatWasFlushed() throws Exception {
    atEveryStep(cut -> {
      var power = new Power(cut);
      CrashingFile below = image(cut, Optional.empty());
      CrashingFile above = image(cut + 1, Optional.of("below"));
      var record = new CommitPoint(power);
      Qcow2Image base = open(new Powered(below, power));
      var drive = new Drive("vda", open(new Powered(above, power), base));
      var guest = new Guest(drive, SEED + cut);
      guest.run(20);
      mirror(
          MirrorOptions.of("commit", drive, base).withBase(Optional.of(base)).withGranularity(4096),
          guest,
          record);
      for (long seed = cut; seed < cut + 3; seed++) {
        boolean pivoted = record.saysNewAfter(seed);
        try (Qcow2Image bottom = open(below.crash(seed));
            Qcow2Image top = open(above.crash(seed), bottom)) {
          requireSound(bottom);
          requireSound(top);
          guest.model.holdsAtLeastFlushed(pivoted ? bottom : top);
        }
      }
      return stepsIfDone(power);
    });
  }

  /// The base's bitmap was made before the overlay. Whatever the power does, it is in use, or knows
  /// of every byte of the base that is not what it was then.
  @Test
  void commitNeverLeavesABitmapOfTheBaseThatCallsCleanWhatIsNot() throws Exception {
    for (boolean active : new boolean[] {true, false}) {
      atEveryStep(cut -> {
        var power = new Power(cut);
        CrashingFile below = image(cut, Optional.empty());
        CrashingFile between = image(cut + 1, Optional.of("below"));
        CrashingFile above = image(cut + 2, Optional.of("between"));
        keepBitmap(below);
        Qcow2Image base = open(new Powered(below, power));
        Qcow2Image top = open(new Powered(between, power), base);
        var drive = new Drive("vda", top);
        var guest = new Guest(drive, SEED + cut);
        guest.run(20);
        FollowedBitmaps followed;
        try {
          followed = FollowedBitmaps.begin(base, List.of(), SIZE).orElseThrow();
        } catch (BlockException _) {
          requireHonest(below, cut);
          return stepsIfDone(power);
        }
        if (active) {
          mirror(
              MirrorOptions.of("commit", drive, base)
                  .withBase(Optional.of(base))
                  .withGranularity(4096)
                  .withTargetBitmaps(followed.bitmaps()),
              guest,
              new CommitPoint(power));
        } else {
          Qcow2Image overlay = open(new Powered(above, power), top);
          commit(new Drive("vda", overlay), overlay, top, base, followed.bitmaps());
        }
        if (!active || drive.root() == top) {
          tryToStore(() -> followed.putBack(base));
        }
        requireHonest(below, cut);
        return stepsIfDone(power);
      });
    }
  }

  private static void keepBitmap(CrashingFile file) throws BlockException {
    open(file).bitmapStore().orElseThrow().add("c1", 4096); // which syncs
  }

  private static void commit(
      Drive drive, Qcow2Image overlay, Qcow2Image top, Qcow2Image base, List<DirtyBitmap> bitmaps) {
    var job =
        new CommitJob(
            new CommitOptions(
                "commit",
                drive,
                overlay,
                top,
                base,
                new BackingReference("below", Optional.of("qcow2")),
                0,
                PATIENCE,
                JobClock.SYSTEM,
                bitmaps));
    tryTo(job::start);
    if (reached(job, JobStatus.PENDING)) {
      tryTo(job::finalizeJob);
    }
    assertThat(job.await(JobStatus::over, PATIENCE)).isTrue();
  }

  private interface Storing {
    void run() throws BlockException;
  }

  private static void tryToStore(Storing storing) {
    try {
      storing.run();
    } catch (BlockException _) {
      // the power is cut: they stay in use
    }
  }

  /// The base was empty when its bitmap was made.
  private static void requireHonest(CrashingFile below, long cut) throws BlockException {
    for (long seed = cut; seed < cut + 3; seed++) {
      try (Qcow2Image left = open(below.crash(seed))) {
        requireSound(left);
        BitmapStore store = left.bitmapStore().orElseThrow();
        if (store.stored().stream().allMatch(BitmapStore.Stored::inconsistent)) {
          continue;
        }
        var bitmap = store.load("c1");
        byte[] now = ModelDisk.of(left).read(0, SIZE);
        for (int at = 0; at < SIZE; at++) {
          assertThat(now[at] == 0 || bitmap.isDirty(at)).as("byte %d", at).isTrue();
        }
      }
    }
  }

  /// A guest writes both disks, each after the other; the steps are those of `docs/engine.md`.
  @Test
  void snapshotOfTwoDisksIsOfBothOrNoneAndHoldsAllThatWasFlushed() throws Exception {
    atEveryStep(cut -> {
      var power = new Power(cut);
      var record = new CommitPoint(power);
      List<CrashingFile> old = new ArrayList<>();
      List<CrashingFile> over = new ArrayList<>();
      List<Drive> drives = new ArrayList<>();
      List<Guest> guests = new ArrayList<>();
      List<Qcow2Image> overlays = new ArrayList<>();
      for (int disk = 0; disk < 2; disk++) {
        old.add(image(cut + disk, Optional.empty()));
        over.add(image(cut + disk + 2, Optional.of("old")));
        Qcow2Image top = open(new Powered(old.get(disk), power));
        drives.add(new Drive("vd" + disk, top));
        guests.add(new Guest(drives.get(disk), SEED + cut + disk));
        overlays.add(open(new Powered(over.get(disk), power), top));
      }
      guests.forEach(guest -> guest.run(30));
      boolean recorded = snapshot(drives, overlays, record, guests);
      if (recorded) {
        guests.forEach(guest -> guest.run(30));
      }
      for (long seed = cut; seed < cut + 3; seed++) {
        boolean taken = record.saysNewAfter(seed);
        for (int disk = 0; disk < 2; disk++) {
          try (Qcow2Image bottom = open(old.get(disk).crash(seed));
              Qcow2Image top = open(over.get(disk).crash(seed), bottom)) {
            requireSound(bottom);
            requireSound(top);
            guests.get(disk).model.holdsAtLeastFlushed(taken ? top : bottom);
          }
        }
      }
      return stepsIfDone(power);
    });
  }

  /// @return whether both drives stand on their overlays
  private static boolean snapshot(
      List<Drive> drives, List<Qcow2Image> overlays, CommitPoint record, List<Guest> guests) {
    try {
      record.write();
      guests.forEach(guest -> guest.run(5)); // still to the old tops
      try (var _ = drives.get(0).drain();
          var _ = drives.get(1).drain()) {
        for (Drive drive : drives) {
          drive.root().flush();
        }
        for (int disk = 0; disk < 2; disk++) {
          drives.get(disk).repoint(overlays.get(disk));
        }
      }
      return true;
    } catch (BlockException _) {
      return false; // the power is cut
    }
  }

  /// Copies and pivots under a guest that never pauses; whatever the power does the drive is let go
  /// and the guest ends.
  private static void mirror(MirrorOptions options, Guest guest, CommitPoint record)
      throws Exception {
    var job = new MirrorJob(options);
    Thread writer = Thread.ofPlatform().start(() -> guest.run(GUEST_OPERATIONS));
    job.start();
    if (reached(job, JobStatus.READY)) {
      tryTo(job::complete);
      if (reached(job, JobStatus.PENDING)) {
        boolean recorded = false;
        try {
          record.write();
          recorded = true;
        } catch (BlockException _) {
          // the power is cut, nobody will read this record but after the cut
        }
        tryTo(recorded ? job::finalizeJob : job::cancel);
      }
    }
    assertThat(job.await(JobStatus::over, PATIENCE)).isTrue();
    assertThat(writer.join(PATIENCE)).isTrue();
    guest.run(20);
  }

  private static boolean reached(Job job, JobStatus wanted) {
    assertThat(job.await(s -> s == wanted || s.over(), PATIENCE)).as("%s", job.status()).isTrue();
    return job.status() == wanted;
  }

  private interface Verb {
    void run() throws JobStateException;
  }

  private static void tryTo(Verb verb) {
    try {
      verb.run();
    } catch (JobStateException _) {
      // the power is cut: the job has failed
    }
  }
}
