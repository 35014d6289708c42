// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.Durability;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.CrashingFile;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class WriteBackTest {
  private static final int CLUSTER = 64 << 10;
  private static final int CLUSTERS = 60_000;

  /// Records after which a write-back begins beside the writer.
  private static final int FILLING = ChangeLog.MOST_PIECES * ChangeLog.PIECE_RECORDS / 4 * 3;

  @TempDir Path runDir;

  private final List<Thread> flushing = new CopyOnWriteArrayList<>();
  private final CountDownLatch begun = new CountDownLatch(1);
  private final CountDownLatch goOn = new CountDownLatch(1);

  /// The file, whose flushes by other threads than the writer wait.
  private BlockNode holdingFlushes(CrashingFile file, Thread writer) {
    return (BlockNode)
        Proxy.newProxyInstance(
            getClass().getClassLoader(),
            new Class<?>[] {BlockNode.class},
            (_, method, arguments) -> {
              if (method.getName().equals("flush")) {
                flushing.add(Thread.currentThread());
                if (!Thread.currentThread().equals(writer)) {
                  begun.countDown();
                  goOn.await();
                }
              }
              try {
                return method.invoke(file, arguments);
              } catch (InvocationTargetException e) {
                throw e.getCause();
              }
            });
  }

  private Qcow2Image open(CrashingFile file) throws BlockException {
    BlockNode node = holdingFlushes(file, Thread.currentThread());
    Qcow2Image.create(
        node,
        new CreateOptions(
            (long) CLUSTERS * CLUSTER,
            Optional.empty(),
            Map.of("refcount_bits", "1"))); // one block counts all: a further one is synced
    flushing.clear();
    var identity = new ChangeLog.Identity("00112233445566778899aabbccddeeff", 1, 2, 3);
    return Qcow2Image.open(
        node,
        OpenOptions.readWrite(),
        Durability.ACKNOWLEDGED,
        Optional.of(new LogPlace(identity.logIn(runDir), identity)));
  }

  private static void write(Qcow2Image image, int first, int end) throws BlockException {
    ByteBuffer bytes = ByteBuffer.allocate(512);
    for (int i = first; i < end; i++) {
      image.write((long) i * CLUSTER, bytes.clear().putInt(0, i + 1));
    }
  }

  @Test
  void aLogThatFillsIsWrittenBackBesideItsWriter() throws Exception {
    var file = new CrashingFile(1);
    Qcow2Image image = open(file);
    write(image, 0, FILLING + 1);
    assertThat(begun.await(30, TimeUnit.SECONDS)).isTrue();
    write(image, FILLING + 1, CLUSTERS); // while the file syncs, into the other half
    assertThat(flushing).hasSize(1).doesNotContain(Thread.currentThread());
    goOn.countDown();
    image.close(); // waits for it
    try (var again =
        Qcow2Image.open(
            file.copy(), OpenOptions.reading(), Durability.ACKNOWLEDGED, Optional.empty())) {
      ByteBuffer bytes = ByteBuffer.allocate(512);
      for (int i = 0; i < CLUSTERS; i++) {
        again.read((long) i * CLUSTER, bytes.clear());
        assertThat(bytes.getInt(0)).isEqualTo(i + 1);
      }
      assertThat(again.check().sound()).isTrue();
    }
  }

  @Test
  void whatWasWrittenBesideAWriteBackSurvivesTheProcess() throws Exception {
    var file = new CrashingFile(1);
    Qcow2Image image = open(file);
    write(image, 0, FILLING + 1);
    assertThat(begun.await(30, TimeUnit.SECONDS)).isTrue();
    write(image, FILLING + 1, CLUSTERS);
    var identity = new ChangeLog.Identity("00112233445566778899aabbccddeeff", 1, 2, 3);
    Path copy = runDir.resolve("copy.log"); // as a death would leave it
    Files.copy(identity.logIn(runDir), copy);
    CrashingFile left = file.copy();
    goOn.countDown();
    image.close();
    try (var again =
        Qcow2Image.open(
            left,
            OpenOptions.readWrite(),
            Durability.ACKNOWLEDGED,
            Optional.of(new LogPlace(copy, identity)))) {
      ByteBuffer bytes = ByteBuffer.allocate(512);
      for (int i = 0; i < CLUSTERS; i++) {
        again.read((long) i * CLUSTER, bytes.clear());
        assertThat(bytes.getInt(0)).isEqualTo(i + 1);
      }
      assertThat(again.check().sound()).isTrue();
    }
  }
}
