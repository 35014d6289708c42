// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static io.tidemark.engine.Rig.base;
import static io.tidemark.engine.Rig.node;
import static io.tidemark.engine.Rig.refuses;
import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.tidemark.block.FormatNode;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.Storage;
import io.tidemark.nbd.Export;
import io.tidemark.nbd.ExportServer;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class NodeGraphTest {
  @TempDir private Path dir;
  private Rig rig;
  private NodeGraph graph;
  private Path marks;
  private NodeSpec base;
  private NodeSpec mid;

  @BeforeEach
  void makeChain() throws IOException {
    rig = new Rig(dir);
    marks = Files.createDirectory(dir.resolve("writing"));
    graph = new NodeGraph(dir, marks);
    base = base("base", rig.create("base.raw", "raw"), "raw");
    mid =
        new NodeSpec(
            "mid",
            rig.create("mid.qcow2", "qcow2", "base.raw", "raw"),
            "qcow2",
            true,
            Optional.of(base));
  }

  @AfterEach
  void closeAll() {
    assertThat(graph.closeAll()).isEmpty();
  }

  @Test
  void closesWhatNothingElseUses() throws IOException {
    graph.add(node("top", rig.create("top.qcow2", "qcow2"), "qcow2", mid));

    graph.remove("top");

    assertThat(graph.has("mid")).isFalse();
    assertThat(graph.has("base")).isFalse();
  }

  @Test
  void keepsWhatAnotherNodeStandsOn() throws IOException {
    NodeGraph.Node one = graph.add(node("one", rig.create("1.qcow2", "qcow2"), "qcow2", mid));
    NodeGraph.Node two = graph.add(node("two", rig.create("2.qcow2", "qcow2"), "qcow2", mid));
    assertThat(one.backing()).isEqualTo(two.backing());

    refuses(() -> graph.remove("mid"), Kind.GENERIC, "node mid is in use");
    graph.remove("one");
    assertThat(graph.has("mid")).isTrue();
    graph.remove("two");
    assertThat(graph.has("mid")).isFalse();
    assertThat(graph.has("base")).isFalse();
  }

  @ParameterizedTest
  @EnumSource
  void keepsALogOnlyForWhatAGuestWrites(NodeSpec.Worth worth) throws IOException {
    var storage = new Storage.LocalFile(rig.create("t.qcow2", "qcow2"));
    NodeGraph.Node node =
        graph.add(new NodeSpec("t", storage, "qcow2", false, Optional.empty(), worth));
    node.format().write(0, ByteBuffer.allocate(1));
    try (Stream<Path> files = Files.list(dir)) {
      assertThat(files.filter(file -> file.toString().endsWith(".log")))
          .hasSize(worth == NodeSpec.Worth.DISK ? 1 : 0);
    }
  }

  @Test
  void keepsWhatADriveUses() throws IOException {
    NodeGraph.Node top = graph.add(node("top", rig.create("t.qcow2", "qcow2"), "qcow2", mid));
    top.use();
    refuses(() -> graph.remove("top"), Kind.GENERIC, "node top is in use");
    top.release();
    graph.remove("top");
    assertThat(graph.has("base")).isFalse();
  }

  @Test
  void leavesNothingOpenWhenALayerCannotBeOpened() throws IOException {
    refuses(
        () -> graph.add(node("top", rig.file("none.qcow2"), "qcow2", mid)),
        Kind.MISSING_FILE,
        rig.file("none.qcow2") + ": no such file");

    assertThat(graph.has("mid")).isFalse();
    assertThat(graph.has("base")).isFalse();
    graph.add(mid);
  }

  @Test
  void refusesANameTwiceAndARawImageWithABackingNode() throws IOException {
    graph.add(base);
    refuses(() -> graph.add(base), Kind.GENERIC, "node base is there already");
    refuses(
        () -> graph.add(node("raw", rig.create("r.raw", "raw"), "raw", base)),
        Kind.GENERIC,
        "is raw and has no backing file");
    refuses(() -> graph.get("none"), Kind.NOT_FOUND, "node none is not there");
  }

  @Test
  void reachesFilesPastThePageCacheWhereASpecSaysSo() throws IOException {
    Path image = rig.create("direct.raw", "raw");
    NodeSpec spec = node("direct", image, "raw");
    assertThat(graph.add(spec).format().file().queues()).isFalse();
    graph.remove("direct");

    FormatNode node = graph.add(spec.by(NodeSpec.Way.DIRECT_QUEUED)).format();
    assumeTrue(node.file().queues(), "the file system has no O_DIRECT");
    node.write(65536, ByteBuffer.wrap(Rig.bytes(1000, 1)));
    graph.remove("direct");
    assertThat(rig.content(image, "raw").read(65536, 1000)).isEqualTo(Rig.bytes(1000, 1));

    assertThat(graph.add(spec.by(NodeSpec.Way.DIRECT)).format().file().queues()).isFalse();
  }

  private List<Path> marked() throws IOException {
    try (Stream<Path> files = Files.list(marks)) {
      return files.toList();
    }
  }

  @Test
  void marksWhatIsOpenForWritingUntilItIsClosed() throws IOException {
    graph.add(node("top", rig.create("t.qcow2", "qcow2"), "qcow2", mid));
    assertThat(marked()).as("of the top alone").hasSize(1);
    graph.remove("top");
    assertThat(marked()).isEmpty();
    refuses(
        () -> graph.add(node("bad", rig.file("base.raw"), "qcow2")),
        Kind.CORRUPT_IMAGE,
        "base.raw");
    assertThat(marked()).as("an image that could not be opened").isEmpty();
  }

  /// A process killed before the mark is made wrote nothing; one killed after it leaves the mark
  /// whatever else it did; one killed while it settles leaves the mark, until all is durable.
  @Test
  void settlesWhatAKilledProcessLeftBeneathAndNothingElse() throws IOException {
    Path image = rig.file("base.raw");
    WriteMark.make(marks, image).leave(); // killed
    assertThat(WriteMark.isLeft(marks, image)).isTrue();
    graph.add(mid);
    assertThat(WriteMark.isLeft(marks, image)).isFalse();
    assertThat(marked()).isEmpty();
  }

  @Test
  void aMarkThatAKilledProcessLeftOfATopGoesWithItsCleanEnd() throws IOException {
    Path image = rig.create("t.qcow2", "qcow2");
    WriteMark.make(marks, image).leave();
    assertThat(WriteMark.make(marks, image)).satisfies(WriteMark::undo);
    assertThat(WriteMark.isLeft(marks, image)).as("after an opening that failed").isTrue();
    graph.add(node("top", image, "qcow2", mid));
    assertThat(WriteMark.isLeft(marks, image)).as("it is held").isFalse();
    WriteMark.settled(marks, image);
    assertThat(marked()).as("nobody takes a mark that is held").hasSize(1);
    graph.remove("top");
    assertThat(marked()).isEmpty();
  }

  @Test
  void requestsOfANetworkImageWaitForItsServerAsLongAsTheSpecSays() throws Exception {
    Path socket = dir.resolve("server.sock");
    try (FormatNode served = rig.open(rig.create("served.raw", "raw"), "raw")) {
      ExportServer server = serve(served, socket);
      var storage = new Storage.Nbd(Optional.of(socket), "", 0, "e", 30);
      FormatNode node =
          graph.add(new NodeSpec("net", storage, "raw", true, Optional.empty())).format();
      server.close(Duration.ofSeconds(1));
      var answered = new CompletableFuture<Boolean>();
      Thread.ofPlatform()
          .start(() -> {
            try {
              node.read(0, ByteBuffer.allocate(4096));
              answered.complete(true);
            } catch (IOException e) {
              answered.completeExceptionally(e);
            }
          });
      Files.deleteIfExists(socket);
      ExportServer again = serve(served, socket);
      assertThat(answered.get(30, TimeUnit.SECONDS)).isTrue();
      again.close(Duration.ofSeconds(1));
    }
  }

  private static ExportServer serve(FormatNode node, Path socket) throws IOException {
    var server = new ExportServer();
    server.addExport(new Export("e", node, "", true, List.of()));
    server.listen(socket);
    return server;
  }
}
