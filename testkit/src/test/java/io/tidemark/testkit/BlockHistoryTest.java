// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.testkit.BlockHistory.Kind;
import io.tidemark.testkit.BlockHistory.Request;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/// The checker finds what it is there for, and nothing else.
class BlockHistoryTest {
  private static final int SIZE = 1024;
  private BlockHistory history;

  @BeforeEach
  void begin() throws BlockException {
    history = new BlockHistory(CrashingFile.ofSize(1, SIZE));
  }

  private Request write() {
    return history.begin(Kind.WRITE, 0, SIZE);
  }

  private Request written() {
    Request request = write();
    request.answered();
    return request;
  }

  private void read(byte[] bytes) {
    history.begin(Kind.READ, 0, bytes.length).answered(bytes);
  }

  /// What the second request will write, told by another history.
  private static byte[] secondWrite() throws BlockException {
    var other = new BlockHistory(CrashingFile.ofSize(1, SIZE));
    other.begin(Kind.READ, 0, SIZE);
    return other.begin(Kind.WRITE, 0, SIZE).payload();
  }

  private static byte[] zeroes() {
    return new byte[SIZE];
  }

  private void holds() {
    assertThatCode(history::check).doesNotThrowAnyException();
  }

  private void fails(String text) {
    assertThatThrownBy(history::check)
        .isInstanceOf(AssertionError.class)
        .hasMessageContaining(text);
  }

  @Test
  void aWriteThatWasAnsweredIsSeen() {
    read(zeroes());
    read(written().payload());
    holds();
  }

  @Test
  void aStaleReadFails() {
    written();
    read(zeroes());
    fails("saw zero; it may have held write 1");
  }

  @Test
  void aReadBesideAWriteMaySeeHalfAWordOfItAndALaterOneMayNot() {
    Request write = write();
    byte[] torn = write.payload();
    java.util.Arrays.fill(torn, 8, 12, (byte) 0);
    read(torn);
    holds();
    write.answered();
    read(torn);
    fails("saw write 0; it may have held write 1");
  }

  @Test
  void whatWasOverwrittenDoesNotComeBack() {
    Request first = written();
    Request second = written();
    read(second.payload());
    read(first.payload());
    fails("saw write 1; it may have held write 2");
  }

  @Test
  void aReadBesideAWriteSeesEither() {
    Request write = write();
    read(zeroes());
    read(write.payload());
    write.answered();
    holds();
  }

  @Test
  void aWriteThatWasSeenDoesNotVanish() {
    Request write = write();
    read(write.payload());
    read(zeroes());
    write.answered();
    fails("saw zero; it may have held write 1");
  }

  @Test
  void writesUnderWayTogetherMayEndInAnyOrderButInOne() {
    Request first = write();
    Request second = write();
    second.answered();
    first.answered();
    read(first.payload());
    holds();
    read(second.payload());
    fails("saw write 2; it may have held write 1");
  }

  @Test
  void readersOfRacingWritesAgreeOnTheirOrder() {
    Request first = write();
    Request second = write();
    read(first.payload());
    read(second.payload());
    read(first.payload());
    first.answered();
    second.answered();
    fails("saw write 1; it may have held write 2");
  }

  @Test
  void wordsOfOneRequestMayTakeEffectApart() {
    Request write = write();
    byte[] half = zeroes();
    System.arraycopy(write.payload(), 256, half, 256, 256);
    read(half);
    read(write.payload());
    write.answered();
    holds();
  }

  @Test
  void aTornReadAfterTheAnswerFails() {
    Request write = written();
    byte[] torn = write.payload();
    java.util.Arrays.fill(torn, 640, 648, (byte) 0);
    read(torn);
    fails("the word at 0x280");
  }

  @Test
  void bytesOfAnotherPlaceFail() {
    Request write = written();
    byte[] moved = new byte[SIZE];
    System.arraycopy(write.payload(), 512, moved, 0, 512);
    System.arraycopy(write.payload(), 0, moved, 512, 512);
    read(moved);
    fails("the word at 0x0");
  }

  @Test
  void aTrimLeavesZeroesOrWhatThereWasAndStaysWithIt() {
    Request write = written();
    history.begin(Kind.TRIM, 0, SIZE).answered();
    read(write.payload());
    holds();
    read(zeroes());
    fails("saw zero");
  }

  @Test
  void zeroesAreNotWhatThereWas() {
    Request write = written();
    history.begin(Kind.ZERO, 0, SIZE).answered();
    read(write.payload());
    fails("saw write 1; it may have held zero");
  }

  @Test
  void aRequestWithoutAnAnswerMayTakeEffectLateButOnce() {
    Request lost = write();
    read(zeroes());
    Request other = written();
    read(other.payload());
    read(lost.payload());
    holds();
    read(other.payload());
    fails("saw write 3; it may have held write 1");
  }

  @Test
  void whatALaterRequestWroteIsNotSeenBefore() throws BlockException {
    Request read = history.begin(Kind.READ, 0, SIZE);
    byte[] future = secondWrite();
    read.answered(future);
    Request write = written();
    assertThat(write.payload()).isEqualTo(future);
    fails("saw write 2");
  }
}
