// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.EOFException;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class RpcServerTest {
  private static final Wire.Domain DOMAIN = new Wire.Domain("vm", new java.util.UUID(1, 2), 3);

  @TempDir private Path dir;
  private final Semaphore gate = new Semaphore(0);
  private final AtomicInteger running = new AtomicInteger();
  private final AtomicInteger mostRunning = new AtomicInteger();
  private final ConcurrentLinkedQueue<RpcConnection> connections = new ConcurrentLinkedQueue<>();
  private final CountDownLatch gone = new CountDownLatch(1);
  private RpcServer<RpcConnection> server = server(RpcServer.Options.defaults());

  private RpcServer<RpcConnection> server(RpcServer.Options options) {
    CallTable<RpcConnection> table =
        new CallTable<RpcConnection>()
            .inOrder(Remote.AUTH_LIST, (_, _) -> new Replies.AuthTypes(List.of(0)))
            .inOrder(Remote.CONNECT_OPEN, (_, _) -> new Calls.Nothing())
            .inOrder(
                Remote.CONNECT_SUPPORTS_FEATURE,
                (client, _) -> {
                  client.keepAlive();
                  return new Replies.Int(1);
                })
            .on(Remote.CONNECT_CLOSE, (_, _) -> new Calls.Nothing())
            .on(Remote.CONNECT_GET_HOSTNAME, (_, _) -> new Replies.Text("here"))
            .on(Remote.DOMAIN_LOOKUP_BY_NAME, (_, call) -> lookup(call.name()))
            .on(Remote.DOMAIN_SUSPEND, (_, _) -> waitAtGate())
            .on(
                Remote.DOMAIN_CREATE,
                (client, call) -> {
                  client.send(EventKind.LIFECYCLE, 7, new Messages.Lifecycle(call.dom(), 2, 0));
                  return new Calls.Nothing();
                });
    return new RpcServer<>(table, new Service(), options);
  }

  private Replies.Domain lookup(String name) throws RpcException {
    if (name.equals("bug")) {
      throw new IllegalStateException("bug");
    }
    if (!name.equals("vm")) {
      throw new RpcException(
          42, 10, "Domain not found: no domain with matching name '" + name + "'");
    }
    return new Replies.Domain(DOMAIN);
  }

  private Calls.Nothing waitAtGate() throws InterruptedException {
    mostRunning.accumulateAndGet(running.incrementAndGet(), Math::max);
    gate.acquire();
    running.decrementAndGet();
    return new Calls.Nothing();
  }

  private final class Service implements RpcService<RpcConnection> {
    @Override
    public RpcConnection opened(RpcConnection connection) {
      connections.add(connection);
      return connection;
    }

    @Override
    public void admit(RpcConnection client, ProcedureRow procedure, Record arguments)
        throws RpcException {
      if (client.readOnly() && procedure.access() == ProcedureRow.Access.WRITE) {
        throw new RpcException(29, 20, "read only");
      }
    }

    @Override
    public RpcException unsupported(ProcedureRow procedure) {
      return new RpcException(3, 20, "not supported: " + procedure.libraryCall());
    }

    @Override
    public RpcException failure(ProcedureRow procedure, Throwable failure) {
      return failure instanceof RpcException known
          ? known
          : new RpcException(1, 0, "internal error: " + failure.getMessage());
    }

    @Override
    public void closed(RpcConnection session) {
      gone.countDown();
    }
  }

  @BeforeEach
  void listen() throws IOException {
    listen(server, "s", false);
    listen(server, "ro", true);
  }

  private void listen(RpcServer<?> on, String name, boolean readOnly) throws IOException {
    ServerSocketChannel socket = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    socket.bind(UnixDomainSocketAddress.of(dir.resolve(name)), 200);
    on.serve(socket, readOnly);
  }

  @AfterEach
  void stop() {
    gate.release(1_000);
    server.stop(Duration.ofSeconds(5));
  }

  private RpcClient client() throws Exception {
    return RpcClient.open(dir.resolve("s"), "test:///", _ -> {});
  }

  private SocketChannel raw() throws IOException {
    return raw("s");
  }

  private SocketChannel raw(String name) throws IOException {
    SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
    channel.connect(UnixDomainSocketAddress.of(dir.resolve(name)));
    return channel;
  }

  private static Packet call(int procedure, int serial, ByteBuffer body) {
    return new Packet(Program.REMOTE.number(), 1, procedure, Packet.CALL, serial, Packet.OK, body);
  }

  private static RpcException error(SocketChannel channel, Packet call) throws IOException {
    call.write(channel);
    Packet reply = Packet.read(channel, Limits.PACKET_BYTES).orElseThrow();
    assertThat(reply.type()).isEqualTo(Packet.REPLY);
    assertThat(reply.status()).isEqualTo(Packet.ERROR);
    assertThat(reply.serial()).isEqualTo(call.serial());
    return ErrorReply.decode(reply.payload());
  }

  private static final ByteBuffer NOTHING = ByteBuffer.allocate(0);

  private static void suspend(SocketChannel channel, int serial) throws IOException {
    call(34, serial, StructureTest.encode(Calls.Domain.class, new Calls.Domain(DOMAIN)))
        .write(channel);
  }

  @Test
  void clientCallsAndGetsResultsAndErrors() throws Exception {
    try (RpcClient client = client()) {
      assertThat(client.call(Remote.CONNECT_GET_HOSTNAME, new Calls.Nothing()).text())
          .isEqualTo("here");
      assertThat(client.call(Remote.DOMAIN_LOOKUP_BY_NAME, new Calls.Name("vm")).dom())
          .isEqualTo(DOMAIN);
      assertThatThrownBy(() -> client.call(Remote.DOMAIN_LOOKUP_BY_NAME, new Calls.Name("no")))
          .isInstanceOfSatisfying(
              RpcException.class,
              e -> {
                assertThat(e.code()).isEqualTo(42);
                assertThat(e.domain()).isEqualTo(10);
              })
          .hasMessageContaining("'no'");
      assertThatThrownBy(() -> client.call(Remote.DOMAIN_LOOKUP_BY_NAME, new Calls.Name("bug")))
          .hasMessage("internal error: bug");
    }
    assertThat(gone.await(10, TimeUnit.SECONDS)).isTrue();
  }

  @Test
  void eventOfACallComesBeforeItsReply() throws Exception {
    try (SocketChannel channel = raw()) {
      call(9, 4, StructureTest.encode(Calls.Domain.class, new Calls.Domain(DOMAIN))).write(channel);
      Packet event = Packet.read(channel, Limits.PACKET_BYTES).orElseThrow();
      assertThat(event.type()).isEqualTo(Packet.MESSAGE);
      assertThat(event.procedure()).isEqualTo(318);
      assertThat(event.serial()).isZero();
      assertThat(Packet.read(channel, Limits.PACKET_BYTES).orElseThrow().serial()).isEqualTo(4);
    }
  }

  @Test
  void unknownAndUnservedAndEventNumbersAreToldApart() throws Exception {
    try (SocketChannel channel = raw()) {
      RpcException unknown = error(channel, call(9_999, 1, NOTHING));
      assertThat(unknown.code()).isEqualTo(39);
      assertThat(unknown.domain()).isEqualTo(7);
      assertThat(unknown).hasMessageStartingWith("unknown procedure");
      assertThat(error(channel, call(318, 2, NOTHING))).hasMessageStartingWith("unknown procedure");
      RpcException unserved = error(channel, call(55, 3, NOTHING));
      assertThat(unserved.code()).isEqualTo(3);
      assertThat(unserved).hasMessageContaining("virDomainSave");
    }
  }

  @Test
  void unknownProgramsVersionsAndArgumentsLeaveTheConnectionWhole() throws Exception {
    try (SocketChannel channel = raw()) {
      assertThat(error(channel, new Packet(77, 1, 1, Packet.CALL, 1, 0, NOTHING)))
          .hasMessage("Cannot find program 77 version 1");
      assertThat(
              error(channel, new Packet(Program.REMOTE.number(), 2, 1, Packet.CALL, 2, 0, NOTHING)))
          .hasMessageStartingWith("Cannot find program");
      assertThat(
              error(
                  channel,
                  new Packet(Program.KEEPALIVE.number(), 1, 1, Packet.CALL, 3, 0, NOTHING)))
          .hasMessageStartingWith("Cannot find program");
      assertThat(error(channel, call(23, 4, NOTHING)))
          .hasMessageStartingWith("Unable to decode message payload");
      assertThat(
              error(
                  channel,
                  new Packet(Program.REMOTE.number(), 1, 59, Packet.CALL_WITH_FDS, 5, 0, NOTHING)))
          .hasMessageContaining("file descriptors");
      for (int type : new int[] {Packet.REPLY, Packet.MESSAGE, Packet.STREAM, 6, 7, -1}) {
        new Packet(Program.REMOTE.number(), 1, 59, type, 6, 0, NOTHING).write(channel);
      }
      call(59, 7, NOTHING).write(channel);
      assertThat(Packet.read(channel, Limits.PACKET_BYTES).orElseThrow().serial()).isEqualTo(7);
    }
  }

  @Test
  void bytesAfterTheArgumentsAreIgnored() throws Exception {
    try (SocketChannel channel = raw()) {
      call(59, 1, ByteBuffer.allocate(64)).write(channel);
      assertThat(Packet.read(channel, Limits.PACKET_BYTES).orElseThrow().status())
          .isEqualTo(Packet.OK);
    }
  }

  @Test
  void impossibleLengthsAndGarbageEndTheConnectionOnly() throws Exception {
    Random random = new Random(11);
    for (int round = 0; round < 20; round++) {
      byte[] garbage = new byte[4_096];
      random.nextBytes(garbage);
      if (round == 0) {
        ByteBuffer.wrap(garbage).putInt(27);
      } else if (round == 1) {
        ByteBuffer.wrap(garbage).putInt(33_554_437);
      } else {
        garbage[0] = (byte) (garbage[0] | 4); // beyond the largest packet
      }
      try (SocketChannel channel = raw()) {
        channel.write(ByteBuffer.wrap(garbage));
        assertThat(endOf(channel)).isTrue();
      }
    }
    try (RpcClient client = client()) {
      assertThat(client.call(Remote.CONNECT_GET_HOSTNAME, new Calls.Nothing()).text())
          .isEqualTo("here");
    }
  }

  private static boolean endOf(SocketChannel channel) {
    try {
      return channel.read(ByteBuffer.allocate(1)) < 0;
    } catch (IOException e) {
      return true; // reset
    }
  }

  @Test
  void pingIsAnsweredWhileACallRuns() throws Exception {
    try (SocketChannel channel = raw()) {
      suspend(channel, 1);
      Packet.keepAlive(1).write(channel);
      Packet pong = Packet.read(channel, Limits.PACKET_BYTES).orElseThrow();
      assertThat(pong.program()).isEqualTo(Program.KEEPALIVE.number());
      assertThat(pong.procedure()).isEqualTo(2);
      assertThat(pong.type()).isEqualTo(Packet.MESSAGE);
      gate.release();
      assertThat(Packet.read(channel, Limits.PACKET_BYTES).orElseThrow().serial()).isEqualTo(1);
    }
  }

  @Test
  void otherCallsOvertakeALongOne() throws Exception {
    try (SocketChannel channel = raw()) {
      suspend(channel, 1);
      call(59, 2, NOTHING).write(channel);
      assertThat(Packet.read(channel, Limits.PACKET_BYTES).orElseThrow().serial()).isEqualTo(2);
      gate.release();
      assertThat(Packet.read(channel, Limits.PACKET_BYTES).orElseThrow().serial()).isEqualTo(1);
    }
  }

  @Test
  void fiveCallsRunAtATimeAndTheRestWaitsUnread() throws Exception {
    try (SocketChannel channel = raw()) {
      for (int serial = 1; serial <= 30; serial++) {
        suspend(channel, serial);
      }
      List<Integer> serials = new ArrayList<>();
      for (int i = 0; i < 30; i++) {
        gate.release();
        serials.add(Packet.read(channel, Limits.PACKET_BYTES).orElseThrow().serial());
      }
      assertThat(mostRunning.get()).isBetween(1, 5);
      Collections.sort(serials);
      assertThat(serials).hasSize(30).doesNotHaveDuplicates().startsWith(1).endsWith(30);
    }
  }

  @Test
  void aHundredClientsCallAtOnce() throws Exception {
    List<RpcClient> clients = new ArrayList<>();
    for (int i = 0; i < 100; i++) {
      clients.add(client());
    }
    assertThat(server.clients()).isEqualTo(100);
    List<Thread> threads = new ArrayList<>();
    AtomicInteger right = new AtomicInteger();
    for (RpcClient client : clients) {
      threads.add(
          Thread.startVirtualThread(() -> {
            try {
              for (int i = 0; i < 20; i++) {
                if (client
                    .call(Remote.DOMAIN_LOOKUP_BY_NAME, new Calls.Name("vm"))
                    .dom()
                    .equals(DOMAIN)) {
                  right.incrementAndGet();
                }
              }
            } catch (IOException | RpcException e) {
              throw new AssertionError(e);
            }
          }));
    }
    for (Thread thread : threads) {
      thread.join();
    }
    assertThat(right.get()).isEqualTo(2_000);
    clients.forEach(RpcClient::close);
  }

  @Test
  void clientThatDoesNotReadItsEventsIsCutOffAndOthersAreNot() throws Exception {
    AtomicInteger seen = new AtomicInteger();
    CountDownLatch all = new CountDownLatch(30_000);
    try (SocketChannel slow = raw();
        RpcClient quick =
            RpcClient.open(
                dir.resolve("s"),
                "test:///",
                _ -> {
                  seen.incrementAndGet();
                  all.countDown();
                })) {
      quick.call(Remote.CONNECT_GET_HOSTNAME, new Calls.Nothing());
      call(59, 1, NOTHING).write(slow);
      assertThat(Packet.read(slow, Limits.PACKET_BYTES)).isPresent();
      var message = new Messages.BlockJob(DOMAIN, "/a/rather/long/path".repeat(20), 2, 3);
      for (int i = 0; i < 30_000; i++) {
        while (i - seen.get() > 4_000) {
          Thread.onSpinWait(); // the quick client reads on: it never falls behind by a whole queue
        }
        for (RpcConnection connection : connections) {
          connection.send(EventKind.BLOCK_JOB, 1, message);
        }
      }
      assertThat(all.await(30, TimeUnit.SECONDS)).as("every event reached the quick one").isTrue();
      assertThat(gone.await(10, TimeUnit.SECONDS)).as("the slow one was cut off").isTrue();
      assertThat(quick.call(Remote.CONNECT_GET_HOSTNAME, new Calls.Nothing()).text())
          .isEqualTo("here");
    }
  }

  @Test
  void silentClientThatAskedForKeepAliveIsPingedAndThenCutOff() throws Exception {
    RpcServer<RpcConnection> strict =
        server(new RpcServer.Options(10, 10, 4_096, 5, 100, 1_000_000, Duration.ofMillis(10), 1));
    listen(strict, "strict", false);
    try (SocketChannel channel = raw("strict")) {
      call(60, 1, StructureTest.encode(Calls.Feature.class, new Calls.Feature(10))).write(channel);
      assertThat(Packet.read(channel, Limits.PACKET_BYTES).orElseThrow().procedure()).isEqualTo(60);
      Packet ping = Packet.read(channel, Limits.PACKET_BYTES).orElseThrow();
      assertThat(ping.program()).isEqualTo(Program.KEEPALIVE.number());
      assertThat(ping.procedure()).isEqualTo(1);
      assertThat(endOf(channel)).isTrue();
    } finally {
      strict.stop(Duration.ZERO);
    }
  }

  @Test
  void oneClientTooManyIsTurnedAway() throws Exception {
    RpcServer<RpcConnection> small =
        server(new RpcServer.Options(1, 1, 4_096, 5, 100, 1_000_000, Duration.ofSeconds(5), 5));
    listen(small, "small", false);
    try (RpcClient first = RpcClient.open(dir.resolve("small"), "test:///", _ -> {})) {
      assertThatThrownBy(() -> RpcClient.open(dir.resolve("small"), "test:///", _ -> {}))
          .isInstanceOf(IOException.class);
      assertThat(first.call(Remote.CONNECT_GET_HOSTNAME, new Calls.Nothing()).text())
          .isEqualTo("here");
    } finally {
      small.stop(Duration.ZERO);
    }
  }

  @Test
  void readOnlySocketMakesReadOnlyConnections() throws Exception {
    try (RpcClient client = RpcClient.open(dir.resolve("ro"), "test:///", _ -> {})) {
      assertThatThrownBy(() -> client.call(Remote.DOMAIN_SUSPEND, new Calls.Domain(DOMAIN)))
          .isInstanceOfSatisfying(RpcException.class, e -> assertThat(e.code()).isEqualTo(29));
    }
  }

  @Test
  void readOnlyClientsSendOnlySmallPacketsAndLeaveRoomForOthers() throws Exception {
    RpcServer<RpcConnection> small =
        server(new RpcServer.Options(1, 1, 4_096, 5, 100, 1_000_000, Duration.ofSeconds(5), 5));
    listen(small, "small-ro", true);
    listen(small, "small", false);
    try (SocketChannel looking = raw("small-ro");
        RpcClient writing = RpcClient.open(dir.resolve("small"), "test:///", _ -> {})) {
      call(59, 1, ByteBuffer.allocate(4_096 - 24)).write(looking);
      assertThat(Packet.read(looking, Limits.PACKET_BYTES)).isPresent();
      assertThat(writing.call(Remote.CONNECT_GET_HOSTNAME, new Calls.Nothing()).text())
          .isEqualTo("here");
      call(59, 2, ByteBuffer.allocate(4_096 - 20)).write(looking);
      assertThat(endOf(looking)).isTrue();
    } finally {
      small.stop(Duration.ZERO);
    }
  }

  @Test
  void stopLetsACallInFlightEnd() throws Exception {
    try (SocketChannel channel = raw()) {
      suspend(channel, 1);
      while (running.get() == 0) {
        Thread.onSpinWait();
      }
      Thread stopper = Thread.startVirtualThread(() -> server.stop(Duration.ofSeconds(30)));
      gate.release();
      assertThat(Packet.read(channel, Limits.PACKET_BYTES).orElseThrow().serial()).isEqualTo(1);
      stopper.join();
      assertThat(Packet.read(channel, Limits.PACKET_BYTES)).isEqualTo(Optional.empty());
    }
  }

  @Test
  void callOnADeadConnectionFails() throws Exception {
    RpcClient client = client();
    server.stop(Duration.ZERO);
    assertThatThrownBy(() -> client.call(Remote.CONNECT_GET_HOSTNAME, new Calls.Nothing()))
        .isInstanceOfAny(EOFException.class, IOException.class);
  }
}
