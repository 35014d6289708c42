// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.OpenOptions;
import io.tidemark.block.ResizeOptions;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.block.spi.NamedFiles;
import io.tidemark.testkit.CrashingFile;
import io.tidemark.testkit.ModelDisk;
import io.tidemark.testkit.Seeds;
import io.tidemark.testkit.Workload;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

class DataFileTest {
  @TempDir Path runDir;

  private static NamedFiles files(CrashingFile data) {
    return new NamedFiles() {
      @Override
      public BlockNode open(String name) {
        assertThat(name).isEqualTo("data.raw");
        return data;
      }

      @Override
      public BlockNode create(String name) {
        return open(name);
      }
    };
  }

  private static CrashingFile create(
      long seed, CrashingFile data, long size, Map<String, String> more) throws BlockException {
    var file = new CrashingFile(seed);
    var options = new HashMap<>(more);
    options.put("data_file", "data.raw");
    Qcow2Image.create(file, new CreateOptions(size, Optional.empty(), options), files(data));
    data.reopen();
    return file;
  }

  private static Qcow2Image open(CrashingFile file, CrashingFile data) throws BlockException {
    return Qcow2Image.open(file, OpenOptions.readWrite().with(Durability.FLUSHED), files(data));
  }

  private static Map<String, String> options(Random random) {
    boolean extended = random.nextInt(3) == 0;
    return Map.of(
        "cluster_size", "" + (1 << (extended ? 14 : 9 + random.nextInt(7))),
        "extended_l2", extended ? "on" : "off",
        "data_file_raw", random.nextBoolean() ? "on" : "off");
  }

  private static boolean raw(Map<String, String> options) {
    return "on".equals(options.get("data_file_raw"));
  }

  @ParameterizedTest
  @Seeds(60)
  void theImageIsAPlainDiskAndARawDataFileIsTheSame(long seed) throws BlockException {
    var random = new Random(seed);
    Map<String, String> options = options(random);
    long size = 64 * 1024 + random.nextInt(900) * 512L;
    var data = new CrashingFile(seed + 1);
    CrashingFile file = create(seed, data, size, options);
    var image = open(file, data);
    var model = ModelDisk.of(image);
    for (int round = 0; round < 3; round++) {
      Workload.random(seed * 7 + round).maxLength(100_000).run(image, model, 50);
      model.holdsExactly(image);
      CheckResult result = image.check();
      assertThat(result.corruptions() + result.leaks()).as("%s", result.findings()).isZero();
      image.close();
      file.reopen();
      data.reopen();
      if (raw(options)) {
        assertThat(data.virtualSize()).isEqualTo(size);
        model.holdsExactly(data);
      }
      image = open(file, data);
      model.holdsExactly(image);
    }
    byte[] before = new byte[(int) size];
    image.read(0, ByteBuffer.wrap(before));
    image.resize(30 * 1024, ResizeOptions.ANY);
    image.resize(400 * 1024);
    byte[] after = new byte[400 * 1024];
    image.read(0, ByteBuffer.wrap(after));
    assertThat(after)
        .isEqualTo(java.util.Arrays.copyOf(java.util.Arrays.copyOf(before, 30 * 1024), 400 * 1024));
    image.close();
    data.reopen();
    assertThat(data.virtualSize()).isEqualTo(400 * 1024);
  }

  @ParameterizedTest
  @Seeds(120)
  void flushedDataSurvivesAPowerCutOfBothFiles(long seed) throws BlockException {
    var random = new Random(seed);
    Map<String, String> options = options(random);
    var data = new CrashingFile(seed + 1);
    CrashingFile file = create(seed, data, 300 * 1024, options);
    var image = open(file, data);
    var model = ModelDisk.of(image);
    (random.nextBoolean() ? file : data).cutPowerAt(1 + random.nextInt(150));
    Workload.random(seed).maxLength(60_000).flushPercent(10).runUntilCrash(image, model);
    for (int i = 0; i < 3; i++) {
      CrashingFile dataLeft = data.crash(seed * 5 + i);
      CrashingFile left = file.crash(seed * 3 + i);
      try (var after = open(left, dataLeft)) {
        model.holdsAtLeastFlushed(after);
        CheckResult result = after.check();
        assertThat(result.sound()).as("%s", result.findings()).isTrue();
      }
    }
  }

  @ParameterizedTest
  @Seeds(60)
  void acknowledgedWritesSurviveTheDeathOfTheProcess(long seed) throws BlockException {
    var random = new Random(seed);
    var data = new CrashingFile(seed + 1);
    CrashingFile file = create(seed, data, 300 * 1024, options(random));
    var identity = new ChangeLog.Identity("00112233445566778899aabbccddeeff", 1, seed, 3);
    var log = Optional.of(new LogPlace(identity.logIn(runDir), identity));
    for (int round = 0; round < 3; round++) {
      var image = logged(file, data, log);
      var model = ModelDisk.of(image);
      (random.nextBoolean() ? file : data).cutPowerAt(1 + random.nextInt(150));
      Workload.random(seed + round).maxLength(60_000).runUntilCrash(image, model);
      Optional.ofNullable(image.log()).ifPresent(ChangeLog::close);
      file = file.copy();
      data = data.copy();
      try (var after = logged(file, data, log)) {
        model.holdsAcknowledged(after);
        CheckResult result = after.check();
        assertThat(result.sound()).as("%s", result.findings()).isTrue();
      }
      file.reopen();
      data.reopen();
    }
  }

  private static Qcow2Image logged(CrashingFile file, CrashingFile data, Optional<LogPlace> log)
      throws BlockException {
    return Qcow2Image.open(
        file, Optional.of(data), OpenOptions.readWrite(), Durability.ACKNOWLEDGED, log);
  }

  @Test
  void isNeverGuessedAndNeverLeftOut() throws BlockException {
    var data = new CrashingFile(1);
    CrashingFile file = create(2, data, 1 << 20, Map.of());
    assertThatThrownBy(() -> Qcow2Image.open(file, OpenOptions.reading()))
        .isInstanceOf(UnsupportedImageException.class)
        .hasMessageContaining("external data file");
    CrashingFile unnamed = file.copy();
    unnamed.write(112, ByteBuffer.allocate(8)); // the end marker over the name's extension
    assertThatThrownBy(() -> Qcow2Image.open(unnamed, OpenOptions.reading(), files(data)))
        .isInstanceOf(CorruptImageException.class)
        .hasMessageContaining("names no external data file");
  }

  @Test
  void aRawOneTakesNoBackingFile() throws BlockException {
    var data = new CrashingFile(1);
    CrashingFile file = create(2, data, 1 << 20, Map.of("data_file_raw", "on"));
    try (var image = open(file, data)) {
      var backing = Optional.of(new BackingReference("b", Optional.of("raw")));
      assertThatThrownBy(() -> image.changeBacking(backing))
          .isInstanceOf(UnsupportedImageException.class)
          .hasMessageContaining("raw");
      assertThatThrownBy(() -> image.writeCompressed(0, ByteBuffer.allocate(65536)))
          .isInstanceOf(UnsupportedImageException.class);
    }
  }

  @Test
  void refusesToWriteWhereDataLiesElsewhere() throws BlockException {
    var data = new CrashingFile(1);
    CrashingFile file = create(2, data, 1 << 20, Map.of("preallocation", "metadata"));
    ByteBuffer entry = ByteBuffer.allocate(8);
    file.read(4L * 65536 + 8, entry); // the second entry of the L2 table
    assertThat(entry.getLong(0)).isEqualTo(L2Entry.COPIED | 65536);
    file.write(4L * 65536 + 8, ByteBuffer.allocate(8).putLong(0, L2Entry.COPIED | 2 * 65536));
    try (var image = open(file, data)) {
      assertThatThrownBy(() -> image.write(0, ByteBuffer.wrap(new byte[512])))
          .isInstanceOf(UnsupportedImageException.class)
          .hasMessageContaining("data file");
    }
  }
}
