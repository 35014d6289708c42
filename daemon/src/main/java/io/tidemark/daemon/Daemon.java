// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.Domains;
import io.tidemark.domain.Environment;
import io.tidemark.domain.LibvirtException;
import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.engine.EmbeddedDriver;
import io.tidemark.engine.EngineImageService;
import io.tidemark.rpc.CallTable;
import io.tidemark.rpc.RpcServer;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;

/// A running daemon: owns its two folders, runs domains, serves clients on two sockets.
///
/// Start: take the folders, read the state and take up what ran, then listen. Stop is the reverse:
/// take no more calls and let those in flight end, let go of the domains, remove the sockets, give
/// the folders back. A guest of a domain that was let go reconnects when the next daemon starts.
public final class Daemon implements AutoCloseable {
  private static final System.Logger LOG = System.getLogger(Daemon.class.getName());

  /// The sockets, as libvirt's clients name them.
  public static final String SOCKET = "libvirt-sock";

  public static final String READ_ONLY_SOCKET = "libvirt-sock-ro";

  private interface Undo {
    void run() throws IOException;
  }

  private final Path runDir;

  /// What [#close] does, last first.
  private final Deque<Undo> undo = new ArrayDeque<>();

  private boolean closed;

  private Daemon(Path runDir) {
    this.runDir = runDir;
  }

  /// Starts a daemon with the embedded engine. It serves when this returns.
  ///
  /// @throws IOException the folders or sockets are in use or cannot be made
  /// @throws LibvirtException the state cannot be read, or is newer than this program
  public static Daemon start(DaemonOptions options) throws IOException, LibvirtException {
    var driver = new EmbeddedDriver(options.engine());
    Daemon daemon = start(options, List.of(driver), new EngineImageService(), Environment.system());
    driver.tidy();
    return daemon;
  }

  static Daemon start(
      DaemonOptions options,
      List<DomainDriver> drivers,
      ImageService images,
      Environment environment)
      throws IOException, LibvirtException {
    Daemon daemon = new Daemon(options.runDir());
    try {
      daemon.begin(options, drivers, images, environment);
      return daemon;
    } catch (IOException | LibvirtException | RuntimeException | Error e) {
      daemon.close();
      throw e;
    }
  }

  private void begin(
      DaemonOptions options,
      List<DomainDriver> drivers,
      ImageService images,
      Environment environment)
      throws IOException, LibvirtException {
    OwnedFolder state = OwnedFolder.take(options.stateDir(), "rwx------");
    undo.push(state::close);
    // Others must reach the socket for looking.
    OwnedFolder run = OwnedFolder.take(runDir, "rwxr-xr-x");
    undo.push(run::close);

    FileStateStore store = new FileStateStore(options.stateDir(), runDir, Disk.SYSTEM);
    Domains domains = new Domains(store, images, drivers, environment);
    Clients clients = new Clients(domains);
    domains.addListener(clients);
    undo.push(domains::shutdown);
    domains.restore();
    autostart(domains);

    CallTable<Client> table = new CallTable<>();
    new ConnectCalls(domains, HostInfo.system(), options.versionNumber()).addTo(table);
    new HostCalls(domains, HostInfo.system()).addTo(table);
    new DomainCalls(domains).addTo(table);
    new JobCalls(domains).addTo(table);
    new SnapshotCalls(domains).addTo(table);
    new DeviceCalls(domains).addTo(table);
    RpcServer<Client> server = new RpcServer<>(table, clients, options.rpc());
    undo.push(() -> server.stop(options.grace()));
    listen(server, SOCKET, "rw-------", false);
    listen(server, READ_ONLY_SOCKET, "rw-rw-rw-", true);
    LOG.log(Level.INFO, "serving {0}", uri());
  }

  private void listen(RpcServer<Client> server, String name, String permissions, boolean readOnly)
      throws IOException {
    Path path = runDir.resolve(name);
    ServerSocketChannel socket = LocalSocket.bind(path, permissions);
    server.serve(socket, readOnly);
    // Before the server stops: a client that comes then finds no daemon, instead of waiting for
    // one.
    undo.push(() -> Files.deleteIfExists(path));
  }

  /// Starts the domains marked for it, once in a boot: what was stopped since stays stopped when
  /// the daemon restarts.
  private void autostart(Domains domains) throws IOException {
    Path mark = runDir.resolve("autostarted");
    if (Files.exists(mark)) {
      return;
    }
    domains.autostart();
    Files.createFile(mark);
  }

  /// What clients connect to.
  public String uri() {
    return "qemu+unix:///system?socket=" + runDir.resolve(SOCKET);
  }

  /// The socket for reading and writing.
  public Path socket() {
    return runDir.resolve(SOCKET);
  }

  /// Stops the daemon; running domains are let go, to be taken up by the next. Does nothing the
  /// second time.
  @Override
  public synchronized void close() {
    if (closed) {
      return;
    }
    closed = true;
    for (Undo step = undo.poll(); step != null; step = undo.poll()) {
      try {
        step.run();
      } catch (IOException | RuntimeException e) {
        LOG.log(Level.ERROR, "stopping: a step failed, going on with the next", e);
      }
    }
    LOG.log(Level.INFO, "stopped");
  }
}
