// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.Durability;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Shortest;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

class CrashOrderTest {
  private static final long SIZE = 600 * 1024;

  @TempDir Path runDir;

  private static CrashingFile base(long size) throws BlockException {
    var file = CrashingFile.ofSize(7, size);
    byte[] bytes = new byte[(int) size];
    new Random(size).nextBytes(bytes);
    file.write(0, ByteBuffer.wrap(bytes));
    return file;
  }

  private static Map<String, String> options(Random random) {
    if (random.nextInt(4) == 0) {
      return Map.of("cluster_size", random.nextBoolean() ? "16k" : "32k", "extended_l2", "on");
    }
    int bits = 9 + random.nextInt(6);
    boolean v2 = random.nextInt(6) == 0;
    return Map.of(
        "cluster_size", "" + (1 << bits),
        "compat", v2 ? "0.10" : "1.1",
        "refcount_bits", v2 ? "16" : "" + (1 << random.nextInt(7)),
        "compression_type", !v2 && bits % 2 == 0 ? "zstd" : "zlib");
  }

  private static Qcow2Image open(
      BlockNode file, boolean backed, Optional<LogPlace> log, Random random) throws BlockException {
    var durability = random.nextBoolean() ? Durability.ACKNOWLEDGED : Durability.FLUSHED;
    var image =
        Qcow2Image.open(
            file,
            OpenOptions.readWrite(),
            log.isPresent() ? Durability.ACKNOWLEDGED : durability,
            log);
    if (backed) {
      image.attachBacking(base(SIZE / 2));
    }
    return image;
  }

  private Optional<LogPlace> log(long seed, String boot) {
    var identity = new ChangeLog.Identity(boot, 1, seed, 3);
    return Optional.of(new LogPlace(identity.logIn(runDir), identity));
  }

  private static CrashingFile create(long seed, Random random, boolean backed)
      throws BlockException {
    var file = new CrashingFile(seed);
    Qcow2Image.create(
        file,
        new CreateOptions(
            SIZE,
            backed
                ? Optional.of(new BackingReference("base.raw", Optional.of("raw")))
                : Optional.empty(),
            options(random)));
    return file;
  }

  private static int compressedPercent(long seed) {
    return seed % 3 == 0 ? 50 : 0;
  }

  private static void abandon(Qcow2Image image) {
    ChangeLog log = image.log();
    if (log != null) {
      log.close();
    }
  }

  private static final String BOOT = "00112233445566778899aabbccddeeff";

  @ParameterizedTest
  @Seeds(550)
  void everyAcknowledgedFlushSurvivesAPowerCut(long seed) throws Exception {
    Shortest.run(1 + new Random(~seed).nextInt(300), cut -> flushSurvives(seed, cut));
  }

  private void flushSurvives(long seed, int cut) throws Exception {
    var random = new Random(seed);
    boolean backed = random.nextBoolean();
    boolean logged = random.nextInt(3) == 0;
    CrashingFile file = create(seed, random, backed);
    Optional<LogPlace> log = logged ? log(seed, BOOT) : Optional.empty();
    Qcow2Image image = open(file, backed, log, random);
    ModelDisk model = ModelDisk.of(image);
    file.cutPowerAt(cut);
    Workload.random(seed)
        .maxLength(60_000)
        .flushPercent(8)
        .compressedPercent(compressedPercent(seed))
        .runUntilCrash(image, model);

    for (int i = 0; i < 3; i++) {
      CrashingFile left = file.crash(seed * 3 + i);
      Optional<LogPlace> nextBoot =
          logged ? log(seed, "ffeeddccbbaa99887766554433221100") : Optional.empty();
      if (logged && i > 0) {
        nextBoot = Optional.empty(); // the first one removed the log
      }
      try (Qcow2Image after = open(left, backed, nextBoot, random)) {
        model.holdsAtLeastFlushed(after);
        CheckResult result = after.check();
        assertThat(result.sound()).as("%s", result.findings()).isTrue();
        // It can be written on, and stays sound.
        var further = ModelDisk.of(after);
        Workload.random(seed + 1)
            .maxLength(30_000)
            .compressedPercent(compressedPercent(seed))
            .run(after, further, 20);
        further.holdsExactly(after);
        result = after.check();
        assertThat(result.sound()).as("%s", result.findings()).isTrue();
      }
    }
  }

  @ParameterizedTest
  @Seeds(300)
  void everyAcknowledgedWriteSurvivesTheDeathOfTheProcess(long seed) throws Exception {
    var random = new Random(seed);
    boolean backed = random.nextBoolean();
    boolean logged = random.nextInt(4) != 0;
    CrashingFile file = create(seed, random, backed);
    Optional<LogPlace> log = logged ? log(seed, BOOT) : Optional.empty();
    random.nextInt();
    Qcow2Image image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
    if (backed) {
      image.attachBacking(base(SIZE / 2));
    }
    ModelDisk model = ModelDisk.of(image);
    CrashingFile alive = file;
    for (int round = 0; round < 3; round++) {
      alive.cutPowerAt(1 + random.nextInt(200));
      Workload.random(seed * 5 + round)
          .maxLength(60_000)
          .compressedPercent(compressedPercent(seed))
          .runUntilCrash(image, model);
      abandon(image); // the kernel lets go of the dead process's file
      // All that was written is there, flushed or not: only the process died.
      CrashingFile left = alive.copy();
      image = Qcow2Image.open(left, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
      if (backed) {
        image.attachBacking(base(SIZE / 2));
      }
      model.holdsAcknowledged(image);
      CheckResult result = image.check();
      assertThat(result.sound()).as("%s", result.findings()).isTrue();
      model = ModelDisk.of(image);
      alive = left;
    }
    image.close();
    alive.reopen();
    try (var clean = Qcow2Image.open(alive, OpenOptions.reading())) {
      assertThat(clean.check().sound()).isTrue();
    }
  }

  @Test
  void aSmallWorkloadSurvivesAPowerCutAtEveryStep() throws Exception {
    for (long cut = 1; ; cut++) {
      var file = new CrashingFile(cut);
      Qcow2Image.create(
          file,
          new CreateOptions(
              300 * 1024, Optional.empty(), Map.of("cluster_size", "512", "refcount_bits", "64")));
      var image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.FLUSHED);
      var model = new ModelDisk(300 * 1024);
      file.cutPowerAt(cut);
      boolean cutOff = false;
      try {
        for (int i = 0; i < 6; i++) {
          byte[] bytes = new byte[30_000];
          java.util.Arrays.fill(bytes, (byte) (i + 1));
          model.attempt(i * 40_000L + 100, bytes);
          image.write(i * 40_000L + 100, ByteBuffer.wrap(bytes));
          model.acknowledge(i * 40_000L + 100, bytes.length);
          model.attempt(i * 1000L, new byte[70_000]);
          image.discard(i * 1000L, 70_000);
          model.acknowledge(i * 1000L, 70_000);
          image.flush();
          model.flushed();
        }
        image.resize(3 << 20);
      } catch (BlockException e) {
        cutOff = true;
      }
      for (int i = 0; i < 6; i++) {
        try (var after = Qcow2Image.open(file.crash(cut * 31 + i), OpenOptions.readWrite())) {
          if (after.virtualSize() == model.size()) {
            model.holdsAtLeastFlushed(after);
          }
          CheckResult result = after.check();
          assertThat(result.sound()).as("cut at %d: %s", cut, result.findings()).isTrue();
        }
      }
      if (!cutOff) {
        return;
      }
    }
  }

  @ParameterizedTest
  @Seeds(150)
  void bitmapsNeverClaimCleanWhatIsDirty(long seed) throws Exception {
    var random = new Random(seed);
    CrashingFile file = new CrashingFile(seed);
    boolean backed = random.nextBoolean();
    int bits = 9 + random.nextInt(5);
    Qcow2Image.create(
        file,
        new CreateOptions(
            SIZE,
            backed
                ? Optional.of(new BackingReference("base.raw", Optional.of("raw")))
                : Optional.empty(),
            Map.of("cluster_size", "" + (1 << bits))));
    byte[] since = new byte[(int) SIZE]; // the disk when the bitmap began
    var dirty = new DirtyBitmap("b0", SIZE, 4096);
    file.cutPowerAt(1 + random.nextInt(140));
    try {
      for (int round = 0; round < 5; round++) {
        var image = Qcow2Image.open(file.reopen(), OpenOptions.readWrite());
        var store = image.bitmapStore().orElseThrow();
        if (round > 0) {
          dirty = store.load("b0");
        }
        store.claim();
        for (int i = 0; i < 3; i++) {
          long offset = random.nextInt((int) SIZE - 5000);
          byte[] bytes = new byte[1 + random.nextInt(5000)];
          random.nextBytes(bytes);
          dirty.set(offset, bytes.length);
          image.write(offset, ByteBuffer.wrap(bytes));
        }
        store.store(
            random.nextBoolean()
                ? List.of(dirty)
                : List.of(dirty, new DirtyBitmap("second-" + round, SIZE, 65536)));
        image.close();
      }
    } catch (BlockException e) {
      assertThat(e.getMessage()).contains("power is cut");
    }
    for (int i = 0; i < 4; i++) {
      try (var after = Qcow2Image.open(file.crash(seed * 7 + i), OpenOptions.readWrite())) {
        CheckResult result = after.check();
        assertThat(result.sound()).as("%s", result.findings()).isTrue();
        var store = after.bitmapStore().orElseThrow();
        for (var stored : store.stored()) {
          if (stored.name().equals("b0") && !stored.inconsistent()) {
            DirtyBitmap bitmap = store.load("b0");
            byte[] now = new byte[(int) SIZE];
            after.read(0, ByteBuffer.wrap(now));
            for (int at = 0; at < now.length; at++) {
              if (now[at] != since[at] && !bitmap.isDirty(at)) {
                throw new AssertionError("byte " + at + " changed and its bit is clear");
              }
            }
          }
        }
      }
    }
  }

  @ParameterizedTest
  @Seeds(20)
  void aKilledProcessBetweenTwoRequestsLeaksNothing(long seed) throws Exception {
    var random = new Random(seed);
    CrashingFile file = create(seed, random, false);
    var log = log(seed, BOOT);
    for (int round = 0; round < 3; round++) {
      var image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
      ModelDisk model = ModelDisk.of(image);
      Workload.random(seed * 3 + round)
          .maxLength(40_000)
          .compressedPercent(compressedPercent(seed))
          .run(image, model, 40);
      abandon(image);
      file = file.copy();
      image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
      model.holdsExactly(image);
      CheckResult result = image.check();
      assertThat(result.leaks() + result.corruptions()).as("%s", result.findings()).isZero();
      image.close();
      file.reopen();
    }
  }

  /// The guest lives on when the process that acknowledged its writes is killed, and its next flush
  /// reaches another process, which wrote nothing.
  @ParameterizedTest
  @Seeds(20)
  void theFirstFlushAfterAKillCoversWhatTheKilledProcessAcknowledged(long seed) throws Exception {
    CrashingFile file = create(seed, new Random(seed), false);
    Optional<LogPlace> log = seed % 2 == 0 ? log(seed, BOOT) : Optional.empty();
    var image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
    image.write(0, ByteBuffer.wrap(new byte[] {1, 1, 1}));
    image.flush();
    image.write(0, ByteBuffer.wrap(new byte[] {2, 2, 2})); // in place: no mapping changes
    abandon(image);

    var next = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
    next.flush();
    try (var after = Qcow2Image.open(file.crash(seed), OpenOptions.reading())) {
      byte[] bytes = new byte[3];
      after.read(0, ByteBuffer.wrap(bytes));
      assertThat(bytes).containsExactly(2, 2, 2);
    }
    abandon(next);
  }

  @Test
  void goesOnWithoutALogWhenTheRunDirTakesNone() throws Exception {
    CrashingFile file = create(1, new Random(1), false);
    var identity = new ChangeLog.Identity(BOOT, 1, 2, 3);
    var nowhere = Optional.of(new LogPlace(runDir.resolve("missing/x.log"), identity));
    var image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, nowhere);
    image.write(100, ByteBuffer.wrap(new byte[] {1, 2, 3}));
    try (var after = Qcow2Image.open(file.copy(), OpenOptions.reading())) {
      byte[] bytes = new byte[3];
      after.read(100, ByteBuffer.wrap(bytes));
      assertThat(bytes).containsExactly(1, 2, 3);
    }
    image.close();
  }

  @Test
  void refusesALogThatTheImageDoesNotFit() throws Exception {
    CrashingFile file = create(1, new Random(1), false);
    var log = log(1, BOOT);
    var image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
    image.write(100, ByteBuffer.wrap(new byte[] {1, 2, 3}));
    abandon(image);
    CrashingFile other = file.copy();
    try (var foreign = Qcow2Image.open(other, OpenOptions.readWrite())) {
      foreign.write(100, ByteBuffer.wrap(new byte[] {9}));
    }
    other.reopen();
    org.assertj.core.api.Assertions.assertThatThrownBy(
            () -> Qcow2Image.open(other, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log))
        .isInstanceOf(io.tidemark.block.CorruptImageException.class)
        .hasMessageContaining("remove the log");
    assertThat(Files.exists(log.orElseThrow().path())).isTrue();
  }

  @Test
  void readsWhatTheLogHoldsEvenWhenOpenedReadOnly() throws Exception {
    CrashingFile file = create(1, new Random(1), false);
    var log = log(1, BOOT);
    var image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
    image.write(100, ByteBuffer.wrap(new byte[] {1, 2, 3}));
    abandon(image);
    CrashingFile left = file.copy();
    long steps = left.steps();
    try (var reading = Qcow2Image.open(left, OpenOptions.reading(), Durability.ACKNOWLEDGED, log)) {
      byte[] bytes = new byte[3];
      reading.read(100, ByteBuffer.wrap(bytes));
      assertThat(bytes).containsExactly(1, 2, 3);
    }
    assertThat(left.steps()).isEqualTo(steps);
  }
}
