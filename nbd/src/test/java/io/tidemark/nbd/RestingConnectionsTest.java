// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.testkit.Await;
import io.tidemark.testkit.Footprint;
import io.tidemark.testkit.ScratchFolder;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class RestingConnectionsTest {
  private static final String WATCHER = "nbd-resting";

  private final ScratchFolder folder = new ScratchFolder();
  private final RestingConnections resting =
      new RestingConnections((name, task) -> Thread.ofPlatform().name(name).daemon().start(task));
  private ServerSocketChannel listening;

  @BeforeEach
  void listen() throws IOException {
    Path path = folder.resolve("s");
    listening = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    listening.bind(UnixDomainSocketAddress.of(path), 1024);
  }

  @AfterEach
  void close() throws IOException {
    listening.close();
    folder.close();
    Await.until(() -> Footprint.threads(WATCHER) == 0);
  }

  /// A pair of sockets, one of which can rest.
  private final class Pair implements RestingConnections.Resting, AutoCloseable {
    final SocketChannel client;
    final SocketChannel server;
    final Semaphore woken = new Semaphore(0);

    Pair() throws IOException {
      client = SocketChannel.open(listening.getLocalAddress());
      server = listening.accept();
      server.configureBlocking(false);
    }

    @Override
    public SocketChannel channel() {
      return server;
    }

    @Override
    public void goOn() {
      woken.release();
    }

    @Override
    public void wake() {
      woken.release();
    }

    void awaitWake() throws InterruptedException {
      assertThat(woken.tryAcquire(30, TimeUnit.SECONDS)).isTrue();
      assertThat(woken.availablePermits()).isZero();
    }

    void send() throws IOException {
      client.write(ByteBuffer.allocate(1));
    }

    /// As the connection's thread does: some of it non-blocking, some blocking.
    void receive() throws IOException {
      server.configureBlocking(true);
      assertThat(server.read(ByteBuffer.allocate(2))).isEqualTo(1);
      server.configureBlocking(false);
    }

    @Override
    public void close() throws IOException {
      client.close();
      server.close();
    }
  }

  @Test
  void wakesWhoeverIsSpokenToAndNobodyElse() throws Exception {
    List<Pair> pairs = new ArrayList<>();
    for (int i = 0; i < 100; i++) {
      pairs.add(new Pair());
    }
    pairs.forEach(pair -> assertThat(resting.add(pair)).isTrue());
    for (int i = 99; i >= 0; i--) {
      pairs.get(i).send();
      pairs.get(i).awaitWake();
    }
    Await.until(() -> Footprint.threads(WATCHER) == 0);
    for (Pair pair : pairs) {
      assertThat(pair.woken.availablePermits()).isZero();
      pair.close();
    }
  }

  @Test
  void leavesNothingBehindAfterTenThousandRests() throws Exception {
    try (Pair still = new Pair();
        Pair pair = new Pair()) {
      assertThat(resting.add(still)).isTrue();
      Await.until(() -> still.server.isRegistered());
      int descriptors = Footprint.descriptors();
      for (int i = 0; i < 10_000; i++) {
        if (i % 2 > 0) {
          pair.send(); // there before the watcher looks
        }
        assertThat(resting.add(pair)).isTrue();
        if (i % 2 == 0) {
          pair.send();
        }
        pair.awaitWake();
        pair.receive();
      }
      assertThat(Footprint.threads(WATCHER)).isEqualTo(1);
      assertThat(Footprint.descriptors()).isEqualTo(descriptors);
      Await.until(() -> !pair.server.isRegistered());
      still.send();
      still.awaitWake();
    }
  }

  @Test
  void startsAndEndsWithThoseThatRest() throws Exception {
    try (Pair pair = new Pair()) {
      int descriptors = Footprint.descriptors();
      for (int i = 0; i < 500; i++) {
        assertThat(resting.add(pair)).isTrue();
        pair.send();
        pair.awaitWake();
        pair.receive();
      }
      Await.until(() -> Footprint.threads(WATCHER) == 0);
      assertThat(Footprint.descriptors()).isEqualTo(descriptors);
    }
  }

  @Test
  void wakesWhoWasClosedBeforeAndWhoseInputEnds() throws Exception {
    try (Pair closed = new Pair();
        Pair stopped = new Pair();
        Pair left = new Pair()) {
      closed.server.close();
      assertThat(resting.add(closed)).isTrue();
      closed.awaitWake();

      assertThat(resting.add(stopped)).isTrue();
      Await.until(stopped.server::isRegistered);
      stopped.server.shutdownInput();
      stopped.awaitWake();

      assertThat(resting.add(left)).isTrue();
      left.client.close();
      left.awaitWake();
    }
  }
}
