// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ZeroMode;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Power cuts and deaths of the process at every step of a workload that meets each way a
/// subcluster can change: clusters of 16 KiB, subclusters of 512 bytes.
class SubclusterCrashTest {
  private static final int CLUSTER = 16384;
  private static final int SUB = 512;
  private static final int SIZE = 12 * CLUSTER;

  @TempDir Path runDir;

  private static CrashingFile create(boolean backed) throws BlockException {
    var file = new CrashingFile(3);
    Optional<BackingReference> backing =
        backed
            ? Optional.of(new BackingReference("base.raw", Optional.of("raw")))
            : Optional.empty();
    Map<String, String> options = Map.of("extended_l2", "on", "cluster_size", "16k");
    Qcow2Image.create(file, new CreateOptions(SIZE, backing, options));
    return file;
  }

  private static void attach(Qcow2Image image, boolean backed) throws BlockException {
    if (backed) {
      var base = CrashingFile.ofSize(7, 7 * CLUSTER + 300);
      byte[] bytes = new byte[7 * CLUSTER + 300];
      new Random(7).nextBytes(bytes);
      base.write(0, ByteBuffer.wrap(bytes));
      image.attachBacking(base);
    }
  }

  private static final class Run {
    final Qcow2Image image;
    final ModelDisk model;
    byte next = 1;

    Run(Qcow2Image image, ModelDisk model) {
      this.image = image;
      this.model = model;
    }

    void write(int offset, int length) throws BlockException {
      byte[] bytes = new byte[length];
      java.util.Arrays.fill(bytes, next++);
      model.attempt(offset, bytes);
      image.write(offset, ByteBuffer.wrap(bytes));
      model.acknowledge(offset, length);
    }

    void zero(int offset, int length, ZeroMode mode) throws BlockException {
      model.attempt(offset, new byte[length]);
      image.writeZeroes(offset, length, mode);
      model.acknowledge(offset, length);
    }

    void flush() throws BlockException {
      image.flush();
      model.flushed();
    }

    void all() throws BlockException {
      write(100, 300); //                                      a new place, one subcluster
      write(6 * CLUSTER + 5 * SUB + 10, 4 * SUB); //           over the base's end
      flush();
      write(3 * SUB + 7, 2 * SUB); //                          in its place, from beneath
      zero(SUB, 3 * SUB, ZeroMode.NO_UNMAP); //                some are zero, not flushed
      write(2 * SUB + 100, 100); //                            over one that disk calls data
      flush();
      zero(0, 2 * SUB, ZeroMode.MAY_UNMAP);
      write(SUB / 2, CLUSTER); //                              on into the next cluster
      zero(6 * CLUSTER, CLUSTER, ZeroMode.MAY_UNMAP); //       the place is free
      write(8 * CLUSTER + 17, 3 * CLUSTER);
      flush();
      zero(8 * CLUSTER, CLUSTER, ZeroMode.NO_UNMAP); //        keeps its place
      write(8 * CLUSTER + 40 * 16, 2000); //                   fills it
      zero(9 * CLUSTER + SUB, 30 * SUB, ZeroMode.MAY_UNMAP);
      write(6 * CLUSTER + 9 * SUB, 10);
      flush();
      zero(9 * CLUSTER, CLUSTER, ZeroMode.MAY_UNMAP);
      write(9 * CLUSTER + 7 * SUB, SUB);
    }
  }

  private static Optional<LogPlace> log(Path dir, long seed, String boot) {
    var identity = new ChangeLog.Identity(boot.repeat(16), 1, seed, 3);
    return Optional.of(new LogPlace(identity.logIn(dir), identity));
  }

  private static void sound(Qcow2Image image, long cut) throws BlockException {
    CheckResult result = image.check();
    assertThat(result.sound()).as("cut at %d: %s", cut, result.findings()).isTrue();
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void everyFlushSurvivesAPowerCutAtEveryStep(boolean backed) throws Exception {
    boolean cutOff = true;
    for (long cut = 1; cutOff; cut++) {
      CrashingFile file = create(backed);
      var image =
          Qcow2Image.open(
              file,
              OpenOptions.readWrite(),
              cut % 2 == 0 ? Durability.FLUSHED : Durability.ACKNOWLEDGED);
      attach(image, backed);
      var run = new Run(image, ModelDisk.of(image));
      file.cutPowerAt((cut + 1) / 2);
      cutOff = !survived(run);
      for (int i = 0; i < 5; i++) {
        var after = Qcow2Image.open(file.crash(cut * 31 + i), OpenOptions.readWrite());
        attach(after, backed);
        run.model.holdsAtLeastFlushed(after);
        sound(after, cut);
        after.close();
      }
      if (!cutOff) {
        assertThat(cut).isGreaterThan(60);
      }
    }
  }

  private static boolean survived(Run run) {
    try {
      run.all();
      return true;
    } catch (BlockException _) {
      return false;
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void everyAcknowledgedWriteSurvivesADeathAtEveryStep(boolean backed) throws Exception {
    boolean cutOff = true;
    for (long cut = 1; cutOff; cut++) {
      CrashingFile file = create(backed);
      var log = log(runDir, cut * 2 + (backed ? 1 : 0), "1a");
      var image = Qcow2Image.open(file, OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
      attach(image, backed);
      var run = new Run(image, ModelDisk.of(image));
      file.cutPowerAt(cut);
      cutOff = !survived(run);
      ChangeLog left = image.log();
      if (left != null) {
        left.close();
      }
      var after =
          Qcow2Image.open(file.copy(), OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
      attach(after, backed);
      run.model.holdsAcknowledged(after);
      sound(after, cut);
      after.close();
    }
  }
}
