// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.Extent;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.TransportException;
import io.tidemark.testkit.Seeds;
import java.io.PrintWriter;
import java.io.Writer;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;

class ConversionTest {
  private static final int UNIT = TestDisk.UNIT;

  private static void convert(List<TestDisk> sources, TestDisk target, Conversion.Plan plan)
      throws BlockException {
    convert(new SourceDisk(sources), target, plan);
  }

  private static void convert(SourceDisk source, TestDisk target, Conversion.Plan plan)
      throws BlockException {
    Progress progress = new Progress(new PrintWriter(Writer.nullWriter()), false, 1);
    new Conversion(source, target, plan, progress).run();
  }

  /// Some units stored (a third of those as zeroes), some zero, some left to the backing disk.
  private static TestDisk randomDisk(Random random, int units, TestDisk backing) {
    TestDisk disk = new TestDisk(units, backing);
    for (int unit = 0; unit < units; ) {
      int end = Math.min(units, unit + 1 + random.nextInt(40));
      switch (random.nextInt(3)) {
        case 0 -> disk.fill(unit, end, random.nextInt(3));
        case 1 -> java.util.Arrays.fill(disk.states, unit, end, Extent.State.ZERO);
        default -> {}
      }
      unit = end;
    }
    return disk;
  }

  private static byte[] concatenated(TestDisk one, TestDisk other) {
    byte[] all = java.util.Arrays.copyOf(one.content(), one.bytes.length + other.bytes.length);
    System.arraycopy(other.content(), 0, all, one.bytes.length, other.bytes.length);
    return all;
  }

  @ParameterizedTest
  @Seeds(40)
  void newTargetReadsLikeTheSourcesAndHoldsNoZeroes(long seed) throws BlockException {
    Random random = new Random(seed);
    TestDisk base =
        randomDisk(random, 100 + random.nextInt(300), new TestDisk(50, null).fill(0, 50, 9));
    TestDisk one = randomDisk(random, 1 + random.nextInt(400), base);
    TestDisk other = randomDisk(random, 1 + random.nextInt(6000), new TestDisk(0, null));
    TestDisk target = new TestDisk(one.states.length + other.states.length, null);
    convert(List.of(one, other), target, new Conversion.Plan(Conversion.Target.ZERO, UNIT, 0));
    byte[] read = target.content();
    assertThat(read).isEqualTo(concatenated(one, other));
    for (int unit = 0; unit < target.states.length; unit++) {
      boolean stored = target.states[unit] == Extent.State.DATA;
      assertThat(stored).as("unit %s", unit).isEqualTo(read[unit * UNIT] != 0);
    }
  }

  @ParameterizedTest
  @Seeds(40)
  void dirtyTargetReadsLikeTheSource(long seed) throws BlockException {
    Random random = new Random(seed);
    TestDisk source = randomDisk(random, 3000, new TestDisk(1000, null).fill(0, 1000, 9));
    TestDisk target = new TestDisk(3000, null).fill(0, 3000, 7);
    int sparse = UNIT * List.of(0, 1, 8, 128).get(random.nextInt(4));
    convert(List.of(source), target, new Conversion.Plan(Conversion.Target.UNKNOWN, sparse, 0));
    assertThat(target.content()).isEqualTo(source.content());
  }

  @ParameterizedTest
  @Seeds(40)
  void overABackingDiskOnlyTheTopLayerIsCopied(long seed) throws BlockException {
    Random random = new Random(seed);
    TestDisk base = randomDisk(random, 100 + random.nextInt(2000), new TestDisk(0, null));
    TestDisk source = randomDisk(random, 100 + random.nextInt(3000), base);
    TestDisk target = new TestDisk(source.states.length, base);
    convert(
        new SourceDisk(source, base),
        target,
        new Conversion.Plan(Conversion.Target.BACKING, 8 * UNIT, base.virtualSize()));
    assertThat(target.content()).isEqualTo(source.content());
    for (int unit = 0; unit < target.states.length; unit++) {
      if (source.states[unit] == Extent.State.UNALLOCATED) {
        assertThat(target.states[unit]).as("unit %s", unit).isEqualTo(Extent.State.UNALLOCATED);
      }
    }
  }

  @Test
  void everythingIsWrittenWhenNothingIsSparse() throws BlockException {
    TestDisk source = new TestDisk(5000, null).fill(10, 20, 1);
    TestDisk target = new TestDisk(5000, null);
    convert(List.of(source), target, new Conversion.Plan(Conversion.Target.ZERO, 0, 0));
    assertThat(target.states).containsOnly(Extent.State.DATA);
    assertThat(target.content()).isEqualTo(source.content());
  }

  @Test
  void zeroesShorterThanTheSparseSizeAreWrittenAsData() throws BlockException {
    TestDisk source = new TestDisk(16, null).fill(0, 16, 0).fill(0, 1, 1).fill(7, 8, 1);
    TestDisk target = new TestDisk(16, null);
    convert(List.of(source), target, new Conversion.Plan(Conversion.Target.ZERO, 8 * UNIT, 0));
    assertThat(target.written).isEqualTo(8 * UNIT);
  }

  @ParameterizedTest
  @Seeds(20)
  void workersThatWriteAsTheyComeMissNothing(long seed) throws BlockException {
    Random random = new Random(seed);
    TestDisk source = randomDisk(random, 9000, new TestDisk(4000, null).fill(0, 4000, 9));
    TestDisk target = new TestDisk(9000, null).fill(0, 9000, 7);
    convert(
        List.of(source),
        target,
        new Conversion.Plan(Conversion.Target.UNKNOWN, UNIT, 0, false, 6, true, false));
    assertThat(target.content()).isEqualTo(source.content());
  }

  @Test
  void salvagesWhatCanBeRead() throws BlockException {
    TestDisk source = new TestDisk(60_000, null).fill(0, 60_000, 1);
    source.failAt = 20_000_000;
    TestDisk target = new TestDisk(60_000, null);
    List<String> warnings = new java.util.concurrent.CopyOnWriteArrayList<>();
    Progress progress = new Progress(new PrintWriter(Writer.nullWriter()), false, 1);
    new Conversion(
            new SourceDisk(List.of(source)),
            target,
            new Conversion.Plan(Conversion.Target.ZERO, 4096, 0, false, 3, false, true),
            progress,
            Pace.UNBOUND,
            warnings::add)
        .run();
    byte[] read = target.content();
    int lost = 20_000_000 / 512 * 512;
    for (int at = 0; at < read.length; at++) {
      if (read[at] != (at < lost ? 1 : 0)) {
        throw new AssertionError("byte " + at + " is " + read[at]);
      }
    }
    assertThat(warnings).anyMatch(w -> w.contains("offset " + lost));
  }

  @Test
  void failureToReadEndsTheConversion() {
    TestDisk source = new TestDisk(60_000, null).fill(0, 60_000, 1);
    source.failAt = 20_000_000;
    assertThatThrownBy(() ->
            convert(
                List.of(source),
                new TestDisk(60_000, null),
                new Conversion.Plan(Conversion.Target.ZERO, 4096, 0)))
        .isInstanceOf(TransportException.class);
  }

  @Test
  void failureToWriteEndsTheConversionAndItsWorkers() {
    TestDisk source = new TestDisk(60_000, null).fill(0, 60_000, 1);
    TestDisk target = new TestDisk(60_000, null);
    target.failAt = 5_000_000;
    assertThatThrownBy(() ->
            convert(List.of(source), target, new Conversion.Plan(Conversion.Target.ZERO, 4096, 0)))
        .isInstanceOf(OutOfSpaceException.class);
    assertThat(Thread.getAllStackTraces().keySet())
        .noneMatch(t -> t.getName().startsWith("convert-"));
  }
}
