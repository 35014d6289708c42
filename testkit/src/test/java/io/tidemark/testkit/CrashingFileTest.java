// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;

class CrashingFileTest {
  private static final int SIZE = 1 << 20;

  @ParameterizedTest
  @Seeds(100)
  void readsAsTheModelWhileAllIsWell(long seed) throws BlockException {
    var file = CrashingFile.ofSize(seed, SIZE);
    var model = new ModelDisk(SIZE);
    Workload.random(seed).maxLength(32 * 1024).run(file, model, 200);
    model.holdsExactly(file);
    model.holdsExactly(file.copy());
  }

  @ParameterizedTest
  @Seeds(200)
  void aPowerCutKeepsWhatWasFlushedAndInventsNothing(long seed) throws BlockException {
    var file = CrashingFile.ofSize(seed, SIZE);
    var model = new ModelDisk(SIZE);
    file.cutPowerAt(1 + new Random(seed).nextInt(300));
    assertThat(Workload.random(seed).maxLength(32 * 1024).runUntilCrash(file, model))
        .hasMessageContaining("power is cut");
    assertThat(file.powerIsCut()).isTrue();
    for (int i = 0; i < 8; i++) {
      model.holdsAtLeastFlushed(file.crash(seed * 8 + i));
    }
  }

  @Test
  void aPowerCutLosesKeepsAndTearsWhatWasNotFlushed() throws BlockException {
    var file = CrashingFile.ofSize(1, 8 * 512);
    file.write(0, ByteBuffer.wrap(filled(8 * 512, 1)));
    file.flush();
    file.write(0, ByteBuffer.wrap(filled(8 * 512, 2)));
    Set<String> outcomes = new HashSet<>();
    for (int seed = 0; seed < 200; seed++) {
      var left = new StringBuilder();
      byte[] bytes = contents(file.crash(seed));
      for (int at = 0; at < bytes.length; at += 512) {
        byte first = bytes[at];
        for (byte b : Arrays.copyOfRange(bytes, at, at + 512)) {
          assertThat(b).as("a sector is never torn").isEqualTo(first);
        }
        left.append(first);
      }
      outcomes.add(left.toString());
    }
    assertThat(outcomes).contains("11111111", "22222222");
    assertThat(outcomes.size()).as("torn in many ways").isGreaterThan(20);
  }

  @Test
  void aPowerCutReordersWritesAcrossSectors() throws BlockException {
    var file = CrashingFile.ofSize(1, 1024);
    file.write(0, ByteBuffer.wrap(filled(512, 1)));
    file.write(512, ByteBuffer.wrap(filled(512, 2)));
    boolean secondWithoutFirst = false;
    for (int seed = 0; seed < 100; seed++) {
      byte[] bytes = contents(file.crash(seed));
      secondWithoutFirst |= bytes[0] == 0 && bytes[512] == 2;
    }
    assertThat(secondWithoutFirst).isTrue();
  }

  @Test
  void aPowerCutMayLoseAResizeAndWhatLiesPastIt() throws BlockException {
    var file = CrashingFile.ofSize(1, 512);
    file.resize(2048);
    file.write(1024, ByteBuffer.wrap(filled(1024, 3)));
    Set<Long> sizes = new HashSet<>();
    for (int seed = 0; seed < 100; seed++) {
      sizes.add(file.crash(seed).virtualSize());
    }
    assertThat(sizes).containsExactlyInAnyOrder(512L, 2048L);
    file.flush();
    for (int seed = 0; seed < 100; seed++) {
      assertThat(contents(file.crash(seed))).isEqualTo(contents(file));
    }
  }

  @Test
  void whatAShrinkCutOffReadsAsZeroesWhenTheFileGrowsAgain() throws BlockException {
    var file = CrashingFile.ofSize(1, 2048);
    file.write(0, ByteBuffer.wrap(filled(2048, 5)));
    file.resize(700);
    file.resize(2048);
    byte[] bytes = contents(file);
    assertThat(Arrays.copyOf(bytes, 700)).containsOnly(5);
    assertThat(Arrays.copyOfRange(bytes, 700, 2048)).containsOnly(0);
  }

  @Test
  void theNthWriteFailsAndTouchesNothingElse() throws BlockException {
    var file = CrashingFile.ofSize(1, 4096);
    file.failWrite(2, CrashingFile.Fault.OUT_OF_SPACE);
    file.write(0, ByteBuffer.wrap(filled(512, 1)));
    assertThatThrownBy(() -> file.write(512, ByteBuffer.wrap(filled(1024, 2))))
        .isInstanceOf(OutOfSpaceException.class);
    file.write(2048, ByteBuffer.wrap(filled(512, 3)));
    byte[] bytes = contents(file);
    assertThat(Arrays.copyOf(bytes, 512)).containsOnly(1);
    assertThat(Arrays.copyOfRange(bytes, 512, 1536)).containsAnyOf(0, 2).doesNotContain(1, 3);
    assertThat(Arrays.copyOfRange(bytes, 1536, 2048)).containsOnly(0);
  }

  @Test
  void aFailedFlushPromisesNothingAndFailsFromThenOn() throws BlockException {
    var file = CrashingFile.ofSize(1, 512);
    file.write(0, ByteBuffer.wrap(filled(512, 1)));
    file.failFlush(1, CrashingFile.Fault.TRANSPORT);
    assertThatThrownBy(file::flush).isInstanceOf(TransportException.class);
    assertThatThrownBy(file::flush).isInstanceOf(TransportException.class);
    Set<Byte> outcomes = new HashSet<>();
    for (int seed = 0; seed < 100; seed++) {
      outcomes.add(contents(file.crash(seed))[0]);
    }
    assertThat(outcomes).containsExactlyInAnyOrder((byte) 0, (byte) 1);
  }

  @Test
  void afterThePowerIsCutEveryCallThrows() throws BlockException {
    var file = CrashingFile.ofSize(1, 512);
    file.cutPowerAt(1);
    assertThatThrownBy(file::flush).hasMessageContaining("power is cut");
    assertThatThrownBy(() -> file.read(0, ByteBuffer.allocate(1)))
        .hasMessageContaining("power is cut");
    assertThatThrownBy(() -> file.write(0, ByteBuffer.allocate(1)))
        .hasMessageContaining("power is cut");
    assertThatThrownBy(() -> file.resize(0)).hasMessageContaining("power is cut");
    assertThatCode(file::close).doesNotThrowAnyException();
  }

  @Test
  void extentsSayWhereDataIs() throws BlockException {
    var file = CrashingFile.ofSize(1, 8192);
    file.write(1000, ByteBuffer.wrap(filled(600, 1)));
    file.write(4096, ByteBuffer.wrap(filled(512, 1)));
    file.writeZeroes(4096, 512, ZeroMode.MAY_UNMAP);
    List<Extent> extents = new ArrayList<>();
    file.extents(100, 8000, extents::add);
    assertThat(extents)
        .containsExactly(
            new Extent(100, 412, Extent.State.ZERO, 100, false),
            new Extent(512, 1536, Extent.State.DATA, 512, false),
            new Extent(2048, 6052, Extent.State.ZERO, 2048, false));
  }

  @Test
  void writesItselfIntoARealFile(@TempDir Path dir) throws IOException {
    var file = CrashingFile.ofSize(1, 3000);
    file.write(600, ByteBuffer.wrap(filled(2000, 4)));
    file.writeTo(dir.resolve("f"));
    assertThat(Files.readAllBytes(dir.resolve("f"))).isEqualTo(contents(file));
  }

  private static byte[] contents(BlockNode node) throws BlockException {
    byte[] bytes = new byte[(int) node.virtualSize()];
    node.read(0, ByteBuffer.wrap(bytes));
    return bytes;
  }

  private static byte[] filled(int length, int value) {
    byte[] bytes = new byte[length];
    Arrays.fill(bytes, (byte) value);
    return bytes;
  }
}
