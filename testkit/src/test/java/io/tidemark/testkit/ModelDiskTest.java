// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

class ModelDiskTest {
  private final CrashingFile disk = CrashingFile.ofSize(1, 4096);
  private final ModelDisk model = new ModelDisk(4096);

  private void disk(int offset, int length, int value) throws BlockException {
    disk.write(offset, ByteBuffer.wrap(filled(length, value)));
  }

  @Test
  void flushedContentMustBeThere() throws BlockException {
    model.write(0, filled(512, 1));
    assertThatCode(() -> model.holdsAtLeastFlushed(disk)).doesNotThrowAnyException();
    model.flushed();
    assertThatThrownBy(() -> model.holdsAtLeastFlushed(disk))
        .isInstanceOf(AssertionError.class)
        .hasMessageContaining("sector 0");
    disk(0, 512, 1);
    model.holdsAtLeastFlushed(disk);
  }

  @Test
  void anyLaterContentMayBeThereAndNoOther() throws BlockException {
    model.write(512, filled(512, 1));
    model.flushed();
    model.write(512, filled(512, 2));
    model.write(512, filled(512, 3));
    for (int value = 1; value <= 3; value++) {
      disk(512, 512, value);
      model.holdsAtLeastFlushed(disk);
    }
    disk(512, 512, 4);
    assertThatThrownBy(() -> model.holdsAtLeastFlushed(disk)).isInstanceOf(AssertionError.class);
  }

  @Test
  void acknowledgedContentOrALaterAttemptMustBeThereAfterTheProcessDied() throws BlockException {
    model.write(0, filled(512, 1));
    model.write(0, filled(512, 2));
    model.attempt(0, filled(512, 3));
    disk(0, 512, 1);
    assertThatThrownBy(() -> model.holdsAcknowledged(disk)).isInstanceOf(AssertionError.class);
    disk(0, 512, 2);
    model.holdsAcknowledged(disk);
    disk(0, 512, 3);
    model.holdsAcknowledged(disk);
  }

  @Test
  void settlesWhatADiscardLeftAndRefusesOtherBytes() throws BlockException {
    model.write(0, filled(1024, 1));
    disk(0, 1024, 1);
    model.attempt(0, new byte[1024]);
    disk.writeZeroes(0, 300, io.tidemark.block.ZeroMode.MAY_UNMAP);
    model.settle(disk, 0, 1024);
    model.holdsExactly(disk);
    model.attempt(0, new byte[1024]);
    disk(700, 1, 9);
    assertThatThrownBy(() -> model.settle(disk, 0, 1024))
        .isInstanceOf(AssertionError.class)
        .hasMessageContaining("byte 0x2bc");
  }

  @Test
  void aFlushAfterAFailedWriteDoesNotPromiseIt() throws BlockException {
    model.write(0, filled(512, 1));
    model.attempt(0, filled(512, 2));
    model.flushed();
    disk(0, 512, 1);
    model.holdsAtLeastFlushed(disk);
    disk(0, 512, 2);
    model.holdsAtLeastFlushed(disk);
  }

  @Test
  void aDifferentByteIsFound() throws BlockException {
    model.write(0, filled(4096, 7));
    disk(0, 4096, 7);
    model.holdsExactly(disk);
    disk(4095, 1, 8);
    assertThatThrownBy(() -> model.holdsExactly(disk)).hasMessageContaining("0xfff");
  }

  private static byte[] filled(int length, int value) {
    byte[] bytes = new byte[length];
    Arrays.fill(bytes, (byte) value);
    return bytes;
  }
}
