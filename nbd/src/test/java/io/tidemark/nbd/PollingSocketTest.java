// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.testkit.ScratchFolder;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.LongSupplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class PollingSocketTest {
  private final ScratchFolder folder = new ScratchFolder();
  private SocketChannel client;
  private SocketChannel server;

  @BeforeEach
  void connect() throws IOException {
    Path path = folder.resolve("s");
    try (ServerSocketChannel listening = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      listening.bind(UnixDomainSocketAddress.of(path));
      client = SocketChannel.open(UnixDomainSocketAddress.of(path));
      server = listening.accept();
    }
  }

  @AfterEach
  void close() throws IOException {
    client.close();
    server.close();
    folder.close();
  }

  /// A clock that stands still but for a step at each look, and calls `looked` then.
  private static LongSupplier clock(long step, Runnable looked) {
    var now = new AtomicLong();
    return () -> {
      looked.run();
      return now.getAndAdd(step);
    };
  }

  private void send(int bytes) {
    try {
      client.write(ByteBuffer.allocate(bytes));
    } catch (IOException e) {
      throw new AssertionError(e);
    }
  }

  /// A thread that waits in a read, as /proc tells; so what it waits for is sent when it sleeps.
  private void sendWhenAsleep(Thread reader, Runnable before) {
    while (!asleep(reader)) {
      Thread.onSpinWait();
    }
    before.run();
    send(1);
  }

  private static boolean asleep(Thread reader) {
    for (StackTraceElement frame : reader.getStackTrace()) {
      if (frame.getMethodName().equals("asleep")) {
        return true;
      }
    }
    return false;
  }

  @Test
  void takesWhatComesWhilePolling() throws IOException {
    var looks = new AtomicInteger();
    Runnable looked =
        () -> {
          if (looks.incrementAndGet() == 5) {
            send(28);
          }
        };
    try (var socket = new PollingSocket(server, new PollingSocket.Awake(2), clock(1000, looked))) {
      assertThat(socket.read(ByteBuffer.allocate(4096))).isEqualTo(28);
      assertThat(looks.get())
          .isGreaterThanOrEqualTo(5); // it was found between two looks, not by sleeping
      send(2);
      assertThat(socket.read(ByteBuffer.allocate(4096))).isEqualTo(2);
    }
  }

  @Test
  void sleepsAfterTheTimeOfPollingAndDoesNotPollForWhoPauses() throws Exception {
    var looks = new AtomicInteger();
    long step = 1000;
    try (var socket =
        new PollingSocket(
            server, new PollingSocket.Awake(2), clock(step, looks::incrementAndGet))) {
      int polls = Math.toIntExact(PollingSocket.POLL_NANOS / step);
      readAsleep(socket);
      // its begin, each round of polling, its end
      assertThat(looks.getAndSet(0)).isEqualTo(polls + 2);
      readAsleep(socket);
      assertThat(looks.getAndSet(0)).isEqualTo(2);
      // That one took a step, which is short.
      readAsleep(socket);
      assertThat(looks.get()).isEqualTo(polls + 2);
    }
  }

  @Test
  void doesNotPollForAClientWithManyRequestsUnderWay() throws Exception {
    var looks = new AtomicInteger();
    try (var socket =
        new PollingSocket(server, new PollingSocket.Awake(2), clock(1, looks::incrementAndGet))) {
      socket.countRequest();
      socket.countRequest();
      for (int i = 0; i < PollingSocket.SINGLE_AGAIN; i++) {
        readAsleep(socket);
        assertThat(looks.getAndSet(0)).as("read %d", i).isEqualTo(2);
        socket.countRequest();
      }
      readAsleep(socket);
      assertThat(looks.get()).isGreaterThan(2);
    }
  }

  @Test
  void doesNotPollWhenEveryCpuHasAThreadThatServes() throws Exception {
    var awake = new PollingSocket.Awake(2);
    var looks = new AtomicInteger();
    try (var socket = new PollingSocket(server, awake, clock(1, looks::incrementAndGet))) {
      try (var _ = new PollingSocket(client, awake, System::nanoTime)) {
        readAsleep(socket);
        assertThat(looks.getAndSet(0)).isEqualTo(2);
      }
      readAsleep(socket);
      assertThat(looks.get()).isGreaterThan(2);
    }
  }

  private void readAsleep(PollingSocket socket) throws Exception {
    readAsleep(socket, () -> {});
  }

  private void readAsleep(PollingSocket socket, Runnable meanwhile) throws Exception {
    Thread reader = Thread.currentThread();
    var sender = CompletableFuture.runAsync(() -> sendWhenAsleep(reader, meanwhile));
    assertThat(socket.read(ByteBuffer.allocate(4096))).isEqualTo(1);
    sender.get();
  }

  /// Rests once, and is spoken to after `pause`.
  private void rest(PollingSocket socket, AtomicLong now, long pause) throws IOException {
    socket.mayRest();
    assertThat(socket.read(ByteBuffer.allocate(1))).isEqualTo(-1);
    assertThat(socket.rests()).isTrue();
    now.addAndGet(pause);
    send(1);
    socket.resume();
    assertThat(socket.rests()).isFalse();
    assertThat(socket.read(ByteBuffer.allocate(2))).isEqualTo(1);
  }

  @Test
  void restsSomeTimesAfterALongPauseOnly() throws Exception {
    var now = new AtomicLong();
    // Never polls.
    try (var socket = new PollingSocket(server, new PollingSocket.Awake(0), now::get)) {
      for (int round = 0; round < 3; round++) {
        for (int i = 0; i < PollingSocket.SHORT_RESTS; i++) {
          rest(socket, now, PollingSocket.LONG_NANOS - 1);
        }
        socket.mayRest();
        readAsleep(socket, () -> {});
        now.addAndGet(PollingSocket.LONG_NANOS); // for its work, which is no pause
        socket.mayRest();
        readAsleep(socket, () -> now.addAndGet(PollingSocket.LONG_NANOS));
      }
      rest(socket, now, PollingSocket.LONG_NANOS);
      readAsleep(socket, () -> {}); // it was not asked to rest
    }
  }

  @Test
  void pollsBeforeEveryRestButTheFirst() throws Exception {
    var now = new AtomicLong();
    var looks = new AtomicInteger();
    LongSupplier clock =
        () -> {
          looks.incrementAndGet();
          return now.getAndAdd(1000);
        };
    try (var socket = new PollingSocket(server, new PollingSocket.Awake(2), clock)) {
      rest(socket, now, PollingSocket.LONG_NANOS);
      assertThat(looks.getAndSet(0)).isEqualTo(2);
      rest(socket, now, PollingSocket.LONG_NANOS);
      assertThat(looks.get()).isGreaterThan(2);
    }
  }

  @Test
  void countsARestAsSleep() throws Exception {
    var awake = new PollingSocket.Awake(0); // never polls
    var restful = new PollingSocket(server, awake, System::nanoTime);
    restful.mayRest();
    assertThat(restful.read(ByteBuffer.allocate(1))).isEqualTo(-1);
    restful.close(); // its thread ends, and closes what it used
    assertThat(awake.count()).isZero();
    restful.resume();
    assertThat(awake.count()).isEqualTo(1);
    restful.close();
    assertThat(awake.count()).isZero();
  }

  @Test
  void sendsMoreThanTheSocketTakesAtOnce() throws Exception {
    server.setOption(StandardSocketOptions.SO_SNDBUF, 4096);
    byte[] content = new byte[1 << 20];
    new Random(1).nextBytes(content);
    var received =
        CompletableFuture.supplyAsync(() -> {
          ByteBuffer all = ByteBuffer.allocate(content.length);
          try {
            while (all.hasRemaining() && client.read(all) >= 0) {}
          } catch (IOException e) {
            throw new AssertionError(e);
          }
          return all.array();
        });
    try (var socket = new PollingSocket(server, new PollingSocket.Awake(2), System::nanoTime)) {
      ByteBuffer from = ByteBuffer.wrap(content);
      while (from.hasRemaining()) {
        assertThat(socket.write(from)).isPositive();
      }
    }
    assertThat(received.get()).isEqualTo(content);
  }

  @Test
  void endsWithTheStreamAndWhenItIsClosed() throws Exception {
    try (var socket = new PollingSocket(server, new PollingSocket.Awake(2), System::nanoTime)) {
      Thread reader = Thread.currentThread();
      var stopper =
          CompletableFuture.runAsync(() -> {
            while (!asleep(reader)) {
              Thread.onSpinWait();
            }
            try {
              server.shutdownInput();
            } catch (IOException e) {
              throw new AssertionError(e);
            }
          });
      assertThat(socket.read(ByteBuffer.allocate(1))).isEqualTo(-1);
      stopper.get();
      server.close();
      assertThatThrownBy(() -> socket.read(ByteBuffer.allocate(1)))
          .isInstanceOf(ClosedChannelException.class);
      assertThatThrownBy(() -> socket.write(ByteBuffer.allocate(1)))
          .isInstanceOf(ClosedChannelException.class);
    }
  }
}
