// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/// Offers block nodes over NBD, on any number of sockets; exports come and go while it serves.
///
/// Every method may be called from any thread. Threads: one for each listening socket, one for each
/// connection (where there are many, none for those whose client is silent, as [PollingSocket]
/// says, but one that watches the sockets of all of these), one that drops clients whose handshake
/// takes too long. None is ever interrupted while it serves: they end because their socket does.
/// One thread that serves nobody is kept, and others for [#SPARE_TIME]: a thread that sleeps runs
/// at once when it is woken, a new one waits for its turn where the CPUs are busy.
public final class ExportServer implements AutoCloseable {
  private static final Logger LOG = System.getLogger(ExportServer.class.getName());

  /// Connections the kernel holds until they are accepted, per socket.
  static final int BACKLOG = 1024;

  /// How long the threads of closed sockets may take to notice, past the time that their requests
  /// have.
  private static final Duration LAST_CALL = Duration.ofSeconds(2);

  /// How long a thread that serves nobody waits for the next connection that wants one.
  static final Duration SPARE_TIME = Duration.ofSeconds(1);

  private static final String SPARE = "nbd-spare";

  private final ServerLimits limits;
  private final Optional<ServerTls> tls;
  private final BufferPool pool;
  private final RestingConnections resting = new RestingConnections(this::onThread);

  // As many threads as connections want: those are limited.
  private final ThreadPoolExecutor threads =
      new ThreadPoolExecutor(
          1,
          Integer.MAX_VALUE,
          SPARE_TIME.toMillis(),
          TimeUnit.MILLISECONDS,
          new SynchronousQueue<>(),
          task -> Thread.ofPlatform().name(SPARE).daemon().unstarted(task));
  private final Object lock = new Object();

  // All under `lock`.
  private final Map<String, Offer> offers = new LinkedHashMap<>();
  private final Set<ServerConnection> connections = new LinkedHashSet<>();
  private volatile int crowd; // how many connections; read without the lock
  private final Map<ServerConnection, Offer> clients = new LinkedHashMap<>();
  private final Set<ServerConnection> shakingHands = new LinkedHashSet<>();
  private final List<ServerListener> listeners = new ArrayList<>();
  private boolean timerRuns;
  private boolean clientLeft;
  private boolean closed;
  private long names;

  /// An export and who has it open.
  private record Offer(Export export, Set<ServerConnection> clients) {}

  public ExportServer() {
    this(ServerLimits.defaults());
  }

  public ExportServer(ServerLimits limits) {
    this(limits, Optional.empty());
  }

  /// @param tls offered to clients, or required of them
  public ExportServer(ServerLimits limits, Optional<ServerTls> tls) {
    this.limits = limits;
    this.tls = tls;
    this.pool = new BufferPool(limits.bufferBytes());
  }

  /// Listens on a unix socket, made with mode 0600. A socket that nobody serves any more is
  /// replaced; one that answers, or a file that is no socket, is an error.
  public void listen(Path socket) throws IOException {
    Path path = socket.toAbsolutePath();
    ServerSocketChannel channel = UnixSocket.listen(path, BACKLOG);
    start(new ServerListener(channel, Optional.of(path), path.toString()));
  }

  /// Listens on a TCP address; port 0 takes a free one. Any but a loopback address is refused
  /// unless TLS is required. Returns the address taken.
  public InetSocketAddress listen(InetSocketAddress address) throws IOException {
    if (address.isUnresolved()) {
      throw new IOException(address + ": unknown host");
    }
    boolean sealed = tls.isPresent() && tls.get().required();
    if (!sealed && !address.getAddress().isLoopbackAddress()) {
      throw new IOException(
          address + ": not a loopback address, and others are served with TLS only");
    }
    ServerSocketChannel channel = ServerSocketChannel.open();
    try {
      channel.setOption(StandardSocketOptions.SO_REUSEADDR, true);
      channel.bind(address, BACKLOG);
    } catch (IOException e) {
      channel.close();
      throw new IOException(address + ": cannot listen: " + e.getMessage(), e);
    }
    InetSocketAddress taken = (InetSocketAddress) channel.getLocalAddress();
    start(new ServerListener(channel, Optional.empty(), taken.toString()));
    return taken;
  }

  private void start(ServerListener listener) throws IOException {
    synchronized (lock) {
      if (!closed) {
        listeners.add(listener);
        Thread.ofPlatform()
            .name("nbd-accept " + listener.name())
            .daemon()
            .start(() -> listener.run(this::admit, this::accepted));
        return;
      }
    }
    listener.close();
    throw new IOException(listener.name() + ": the server is closed");
  }

  /// Offers an export from now on.
  ///
  /// @throws IllegalArgumentException when the name is taken
  public void addExport(Export export) {
    synchronized (lock) {
      if (offers.containsKey(export.name())) {
        throw new IllegalArgumentException("an export named " + export.name() + " is offered");
      }
      offers.put(export.name(), new Offer(export, new LinkedHashSet<>()));
    }
  }

  /// Stops offering an export: its clients are disconnected after the requests already received.
  /// Returns whether, within [ServerLimits#closeTime], all of them ended: then nothing uses the
  /// node any more. A request that waits in a drained drive does not end, so resume first. True
  /// also when there is no such export.
  public boolean removeExport(String name) {
    Offer offer;
    List<ServerConnection> users;
    synchronized (lock) {
      offer = offers.remove(name);
      if (offer == null) {
        return true;
      }
      users = List.copyOf(offer.clients());
    }
    return end(users, () -> offer.clients().isEmpty(), limits.closeTime());
  }

  /// What is offered now, in order of adding.
  public List<Export> exports() {
    synchronized (lock) {
      return offers.values().stream().map(Offer::export).toList();
    }
  }

  /// Connections now, those in their handshake included.
  public int connections() {
    synchronized (lock) {
      return connections.size();
    }
  }

  /// Waits until a client that had opened an export has left and none is connected, or the server
  /// is closed.
  public void awaitLastClient() throws InterruptedException {
    synchronized (lock) {
      while (!closed && !(clientLeft && connections.isEmpty())) {
        lock.wait();
      }
    }
  }

  /// Stops accepting, lets requests already received end within [ServerLimits#closeTime], closes
  /// the sockets and removes the socket files. Exported nodes stay open. Closing twice is harmless.
  @Override
  public void close() {
    close(limits.closeTime());
  }

  /// As [#close], with another patience: short where the requests that are received are known to be
  /// held, as in a drained drive.
  public void close(Duration patience) {
    end(refuse(), patience);
  }

  /// As [#close], without waiting: when it returns nobody connects any more and the sockets' files
  /// are gone; requests that are under way have `patience` to end.
  public void closeAside(Duration patience) {
    List<ServerConnection> users = refuse();
    if (!users.isEmpty()) {
      Thread.ofPlatform().daemon().name("nbd-close").start(() -> end(users, patience));
    }
  }

  private List<ServerConnection> refuse() {
    List<ServerListener> open;
    List<ServerConnection> users;
    synchronized (lock) {
      closed = true;
      lock.notifyAll();
      open = List.copyOf(listeners);
      listeners.clear();
      users = List.copyOf(connections);
      offers.clear();
    }
    open.forEach(ServerListener::close);
    threads.setCorePoolSize(0); // the last one goes when it is spare
    return users;
  }

  private void end(List<ServerConnection> users, Duration patience) {
    if (!end(users, connections::isEmpty, patience)) {
      LOG.log(
          Level.WARNING,
          "closed while {0} requests have not ended after {1}",
          connections(),
          patience);
    }
  }

  /// Stops connections, waits for `done`, then closes what is left and waits a last moment. Returns
  /// whether it came true.
  private boolean end(Collection<ServerConnection> users, BooleanSupplier done, Duration patience) {
    users.forEach(ServerConnection::stop);
    if (await(done, patience)) {
      return true;
    }
    users.forEach(ServerConnection::closeChannel);
    return await(done, LAST_CALL);
  }

  private boolean await(BooleanSupplier done, Duration time) {
    long deadline = System.nanoTime() + time.toNanos();
    boolean interrupted = false;
    try {
      synchronized (lock) {
        while (!done.getAsBoolean()) {
          long millis = (deadline - System.nanoTime()) / 1_000_000 + 1;
          if (deadline - System.nanoTime() <= 0) {
            return false;
          }
          try {
            lock.wait(millis);
          } catch (InterruptedException _) {
            interrupted = true;
          }
        }
        return true;
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  // ---- connections

  /// Waits until there is place for another connection; false when the server is closed.
  private boolean admit() {
    synchronized (lock) {
      while (!closed && connections.size() >= limits.connections()) {
        try {
          lock.wait();
        } catch (InterruptedException e) {
          throw new IllegalStateException("an accepting thread was interrupted", e);
        }
      }
      return !closed;
    }
  }

  private void accepted(ServerListener.Accepted accepted) {
    ServerConnection connection;
    String name;
    synchronized (lock) {
      name = "nbd-client " + ++names + " at " + accepted.listener();
    }
    long deadline = System.nanoTime() + limits.handshakeTime().toNanos();
    try {
      connection = new ServerConnection(owner, tls, accepted.channel(), pool, name, deadline);
    } catch (OutOfMemoryError e) { // no more direct memory
      LOG.log(Level.WARNING, "{0}: no buffers for it: {1}", name, e.getMessage());
      accepted.close();
      return;
    }
    synchronized (lock) {
      if (closed) {
        connection.closeChannel();
        return;
      }
      connections.add(connection);
      crowd = connections.size();
      shakingHands.add(connection);
    }
    if (connection.start()) {
      try {
        startTimer();
      } catch (OutOfMemoryError e) { // no more threads
        connection.drop("no thread for its handshake's time: " + e.getMessage());
      }
    }
  }

  /// A platform thread: the first virtual one takes the JVM longer than all else until a client is
  /// greeted.
  private void startTimer() {
    synchronized (lock) {
      if (timerRuns || shakingHands.isEmpty()) {
        return;
      }
      timerRuns = true;
    }
    boolean started = false;
    try {
      Thread.ofPlatform().name("nbd-handshake-timer").daemon().start(this::dropSlowHandshakes);
      started = true;
    } finally {
      if (!started) {
        synchronized (lock) {
          timerRuns = false;
        }
      }
    }
  }

  /// Runs while there are handshakes. They are in order of their deadlines.
  private void dropSlowHandshakes() {
    synchronized (lock) {
      while (!shakingHands.isEmpty()) {
        ServerConnection first = shakingHands.iterator().next();
        long left = first.deadline() - System.nanoTime();
        if (left <= 0) {
          shakingHands.remove(first);
          first.drop("no export opened within " + limits.handshakeTime());
          continue;
        }
        try {
          lock.wait(left / 1_000_000 + 1);
        } catch (InterruptedException e) {
          throw new IllegalStateException("the timer was interrupted", e);
        }
      }
      timerRuns = false;
    }
  }

  private void onThread(String name, Runnable task) {
    threads.execute(() -> {
      Thread.currentThread().setName(name);
      try {
        task.run();
      } finally {
        Thread.currentThread().setName(SPARE);
      }
    });
  }

  private final ServerConnection.Owner owner =
      new ServerConnection.Owner() {
        @Override
        public ServerHandshake.Exports exportsFor(ServerConnection connection) {
          return new Seen(connection);
        }

        @Override
        public void start(String name, Runnable task) {
          onThread(name, task);
        }

        @Override
        public boolean crowded() {
          return crowd > limits.threadsKept();
        }

        @Override
        public boolean rest(ServerConnection connection) {
          return resting.add(connection);
        }

        @Override
        public void left(ServerConnection connection) {
          synchronized (lock) {
            connections.remove(connection);
            crowd = connections.size();
            shakingHands.remove(connection);
            Offer offer = clients.remove(connection);
            if (offer != null) {
              offer.clients().remove(connection);
              clientLeft = true;
            }
            lock.notifyAll();
          }
        }
      };

  /// The exports as one connection sees them.
  private final class Seen implements ServerHandshake.Exports {
    private final ServerConnection connection;

    Seen(ServerConnection connection) {
      this.connection = connection;
    }

    @Override
    public boolean shared() {
      return limits.connections() > 1;
    }

    @Override
    public List<Export> offered() {
      return exports();
    }

    @Override
    public Optional<Export> find(String name) {
      synchronized (lock) {
        return Optional.ofNullable(offers.get(name)).map(Offer::export);
      }
    }

    @Override
    public Optional<Export> open(String name) {
      synchronized (lock) {
        Offer offer = offers.get(name);
        if (offer == null) {
          return Optional.empty();
        }
        offer.clients().add(connection);
        clients.put(connection, offer);
        shakingHands.remove(connection);
        return Optional.of(offer.export());
      }
    }
  }
}
