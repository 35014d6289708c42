// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class WriteBehindTest {
  private static final class Counting implements ReadOnlyNode {
    final AtomicInteger started = new AtomicInteger();

    @Override
    public String name() {
      return "counting";
    }

    @Override
    public String whyReadOnly() {
      return "test";
    }

    @Override
    public long virtualSize() {
      return 0;
    }

    @Override
    public void read(long offset, ByteBuffer into) {}

    @Override
    public void extents(long offset, long length, ExtentVisitor visitor) {}

    @Override
    public void startWriteBack() {
      started.incrementAndGet();
    }

    @Override
    public void close() {}
  }

  @Test
  void startsOnceForEachStepHoweverItIsCutUp() throws Exception {
    var node = new Counting();
    var behind = new WriteBehind(node);
    behind.wrote(0);
    behind.wrote(WriteBehind.STEP_BYTES - 1);
    assertThat(node.started).hasValue(0);
    behind.wrote(1);
    assertThat(node.started).hasValue(1);
    behind.wrote(3 * WriteBehind.STEP_BYTES);
    assertThat(node.started).hasValue(2);
  }

  @Test
  void threadsTogetherStartOnceForEachStep() throws Exception {
    var node = new Counting();
    var behind = new WriteBehind(node);
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < 4; i++) {
      threads.add(
          Thread.ofPlatform()
              .start(() -> {
                for (int n = 0; n < 1024; n++) {
                  try {
                    behind.wrote(WriteBehind.STEP_BYTES / 256);
                  } catch (BlockException e) {
                    throw new AssertionError(e);
                  }
                }
              }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(node.started).hasValue(16);
  }

  @Test
  void filesTakeItInEveryWayOfOpening(@TempDir Path dir) throws Exception {
    Path path = dir.resolve("file");
    Files.write(path, new byte[] {1, 2, 3});
    for (Durability durability : Durability.values()) {
      try (var node = FileNode.open(path, OpenOptions.readWrite().with(durability))) {
        node.write(0, ByteBuffer.wrap(new byte[] {4}));
        node.startWriteBack();
        node.flush();
      }
    }
    try (var node = FileNode.open(path, OpenOptions.reading())) {
      node.startWriteBack();
    }
    assertThat(Files.readAllBytes(path)).containsExactly(4, 2, 3);
  }
}
