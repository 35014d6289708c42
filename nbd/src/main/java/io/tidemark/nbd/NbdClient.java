// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import org.jspecify.annotations.Nullable;

/// An export of an NBD server as a block node. Any thread may call any method; requests of several
/// threads are in flight together on one connection.
///
/// A lost connection is made anew by the next request, and requests that had no reply are sent
/// again: they are idempotent. While the server is away requests wait up to
/// [ClientOptions#reconnectDelay] since the loss, then fail with [TransportException]; later ones
/// try once and fail. The export must come back with its size and the abilities it had. Writes that
/// were acknowledged before the loss are as durable as the server keeps them: a server that lost
/// power in between may have lost what was not flushed, as with QEMU's client.
///
/// `discard` is sent as WRITE_ZEROES that may unmap, because TRIM leaves undefined what is read
/// afterwards, and a block node must read as zeroes or as before; where the server cannot zero, it
/// does nothing. `flush` does nothing where the server has no FLUSH. Requests that the server's
/// minimum block would not allow are widened: reads by more bytes, writes by reading the edges
/// first, alone.
public final class NbdClient implements BlockNode {
  /// Bytes of one zeroing or block status request; their lengths are 32 bits wide.
  private static final long MAX_RANGE = 1L << 30;

  /// Connections that one request may see lost: it could be what the server dies of.
  static final int MAX_ATTEMPTS = 10;

  private static final int ZEROES_BYTES = 256 << 10;
  private static final long FIRST_PAUSE_MILLIS = 20;
  private static final long LONGEST_PAUSE_MILLIS = 500;

  private final NbdUri uri;
  private final ClientOptions options;
  private final ExportInfo info;

  /// Where the minimum block is larger than a byte: shared by aligned changes, exclusive for
  /// read-modify-write.
  private final ReentrantReadWriteLock edges = new ReentrantReadWriteLock();

  private final Object lock = new Object();
  private ClientConnection connection; // under `lock`
  private boolean connecting; // under `lock`: a caller is at it
  private long lostSince; // under `lock`: nanoTime, while the connection is lost
  private boolean lossSeen; // under `lock`: lostSince counts
  private boolean closed; // under `lock`
  private long failedReconnects; // under `lock`
  private String lastFailure = ""; // under `lock`: of the last of them

  /// Connects with [ClientOptions#defaults].
  public static NbdClient connect(NbdUri uri) throws BlockException {
    return connect(uri, ClientOptions.defaults());
  }

  /// Connects, and opens the export that the URI names.
  ///
  /// @throws io.tidemark.block.TransportException when there is no server, no such export, or what
  ///   it says is not NBD
  /// @throws io.tidemark.block.UnsupportedImageException when the server speaks an old protocol or
  ///   wants TLS
  public static NbdClient connect(NbdUri uri, ClientOptions options) throws BlockException {
    return new NbdClient(uri, options, ClientConnection.open(uri, options));
  }

  /// What a server offers: every export of its list, described, without opening one. The URI's
  /// export name is not looked at.
  public static List<ExportInfo> list(NbdUri uri, ClientOptions options) throws BlockException {
    return ClientSocket.open(
        uri,
        options.connectTime(),
        channel -> {
          try (channel;
              var stream = new PeerStream(channel, new BufferPool(0))) {
            var handshake = new ClientHandshake(stream, uri.toString());
            handshake.greet();
            handshake.structuredReplies();
            var described = new ArrayList<ExportInfo>();
            for (ClientHandshake.Listed listed : handshake.list()) {
              Optional<ExportInfo> info = handshake.describe(listed.name());
              if (info.isEmpty()) {
                throw new TransportException(uri + ": the server cannot describe its exports");
              }
              described.add(info.get());
            }
            handshake.abort();
            return List.copyOf(described);
          }
        });
  }

  private NbdClient(NbdUri uri, ClientOptions options, ClientConnection connection) {
    this.uri = uri;
    this.options = options;
    this.connection = connection;
    this.info = connection.terms().info();
  }

  /// What the server said of the export.
  public ExportInfo info() {
    return info;
  }

  @Override
  public String name() {
    return uri.toString();
  }

  @Override
  public long virtualSize() {
    return info.size();
  }

  @Override
  public boolean readOnly() {
    return info.readOnly();
  }

  // ---- requests

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    checkRange(offset, into.remaining());
    int mask = info.minBlock() - 1;
    if (((offset | into.remaining()) & mask) == 0) {
      readAligned(offset, into);
      return;
    }
    long start = offset & ~(long) mask;
    long end = roundUp(offset + into.remaining());
    while (start < end && into.hasRemaining()) {
      int count = (int) Math.min(end - start, ZEROES_BYTES);
      ByteBuffer block = ByteBuffer.allocateDirect(count);
      readAligned(start, block);
      block.flip().position((int) (offset - start));
      block.limit(Math.min(block.limit(), block.position() + into.remaining()));
      offset += block.remaining();
      into.put(block);
      start += count;
    }
  }

  private void readAligned(long offset, ByteBuffer into) throws BlockException {
    long at = offset;
    while (into.hasRemaining()) {
      int count = Math.min(into.remaining(), info.maxPayload());
      long from = at;
      perform(() ->
          new ClientRequest(Wire.Command.READ, 0, from, count, into.slice(into.position(), count)));
      into.position(into.position() + count);
      at += count;
    }
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    checkChange(offset, from.remaining());
    if (info.minBlock() == 1) {
      writeAligned(offset, from);
    } else {
      inBlocks(
          offset,
          from.remaining(),
          (at, count) -> {
            ByteBuffer part = from.slice(from.position(), (int) count);
            from.position(from.position() + (int) count);
            writeAligned(at, part);
          },
          (at, block) -> {
            ByteBuffer part = from.slice(from.position(), block.remaining());
            from.position(from.position() + block.remaining());
            block.put(part);
          });
    }
  }

  private void writeAligned(long offset, ByteBuffer from) throws BlockException {
    long at = offset;
    while (from.hasRemaining()) {
      int count = Math.min(from.remaining(), info.maxPayload());
      long to = at;
      perform(() ->
          new ClientRequest(Wire.Command.WRITE, 0, to, count, from.slice(from.position(), count)));
      from.position(from.position() + count);
      at += count;
    }
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    checkChange(offset, length);
    if (info.minBlock() == 1) {
      zeroAligned(offset, length, mode);
    } else {
      inBlocks(
          offset,
          length,
          (at, count) -> zeroAligned(at, count, mode),
          (at, block) -> block.put(new byte[block.remaining()]));
    }
  }

  private void zeroAligned(long offset, long length, ZeroMode mode) throws BlockException {
    long at = offset;
    long end = offset + length;
    if (!info.canZero()) {
      int size = (int) Math.min(length, ZEROES_BYTES);
      ByteBuffer zeroes = ByteBuffer.allocateDirect(size);
      while (at < end) {
        int count = (int) Math.min(end - at, size);
        writeAligned(at, zeroes.slice(0, count));
        at += count;
      }
      return;
    }
    int flags =
        switch (mode) {
          case MAY_UNMAP -> 0;
          case NO_UNMAP -> Wire.CommandFlag.NO_HOLE;
        };
    while (at < end) {
      long count = Math.min(end - at, MAX_RANGE);
      long from = at;
      perform(() ->
          new ClientRequest(Wire.Command.WRITE_ZEROES, flags, from, count, ByteBuffer.allocate(0)));
      at += count;
    }
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    checkChange(offset, length);
    if (info.canZero()) {
      writeZeroes(offset, length, ZeroMode.MAY_UNMAP);
    }
  }

  @Override
  public void flush() throws BlockException {
    if (info.canFlush()) {
      perform(() -> new ClientRequest(Wire.Command.FLUSH, 0, 0, 0, ByteBuffer.allocate(0)));
    }
  }

  /// From `base:allocation`; without it, and where the server says neither "zero" nor what a hole
  /// reads as, everything is data.
  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    checkRange(offset, length);
    long at = offset;
    long end = offset + length;
    while (at < end) {
      long aligned = at & ~(info.minBlock() - 1L);
      long count = Math.min(roundUp(end) - aligned, MAX_RANGE);
      ClientRequest answer =
          perform(
              () ->
                  new ClientRequest(
                      Wire.Command.BLOCK_STATUS, 0, aligned, count, ByteBuffer.allocate(0)),
              connected -> connected.terms().allocation().isPresent());
      if (answer == null) {
        visitor.visit(new Extent(at, end - at, Extent.State.DATA, -1, false));
        return;
      }
      long start = aligned;
      for (int i = 0; i < answer.extentCount() && at < end && start < aligned + count; i++) {
        // The last extent may pass the range that was asked for. Spec: REPLY_TYPE_BLOCK_STATUS
        long stop = Math.min(start + answer.extentLength(i), aligned + count);
        long to = Math.min(stop, end);
        if (to > at) {
          boolean zero = (answer.extentFlags(i) & Wire.State.ZERO) != 0;
          Extent.State state = zero ? Extent.State.ZERO : Extent.State.DATA;
          if (!visitor.visit(new Extent(at, to - at, state, -1, false))) {
            return;
          }
          at = to;
        }
        start = stop;
      }
    }
  }

  // ---- ranges

  private void checkRange(long offset, long length) {
    if (offset < 0 || length < 0 || offset > info.size() - length) {
      throw new IllegalArgumentException(
          uri + ": " + length + " bytes at " + offset + " of " + info.size());
    }
  }

  private void checkChange(long offset, long length) throws BlockException {
    checkRange(offset, length);
    if (info.readOnly()) {
      throw new ReadOnlyNodeException(uri + ": the export is read-only");
    }
  }

  private long roundUp(long end) {
    long mask = info.minBlock() - 1L;
    return (end + mask) & ~mask;
  }

  private interface Middle {
    void change(long offset, long length) throws BlockException;
  }

  private interface Edge {
    /// Puts as many bytes as remain, for a change at `offset`.
    void change(long offset, ByteBuffer block);
  }

  /// Cuts a change at the server's blocks: a whole part is handed on, an edge is read, changed and
  /// written back while no other change runs.
  private void inBlocks(long offset, long length, Middle middle, Edge edge) throws BlockException {
    int size = info.minBlock();
    long at = offset;
    long end = offset + length;
    while (at < end) {
      long blockStart = at & ~(size - 1L);
      long wholeEnd = end & ~(size - 1L);
      if (at == blockStart && wholeEnd > at) {
        edges.readLock().lock();
        try {
          middle.change(at, wholeEnd - at);
        } finally {
          edges.readLock().unlock();
        }
        at = wholeEnd;
        continue;
      }
      long to = Math.min(end, blockStart + size);
      edges.writeLock().lock();
      try {
        ByteBuffer block = ByteBuffer.allocateDirect(size);
        readAligned(blockStart, block);
        block.limit((int) (to - blockStart)).position((int) (at - blockStart));
        edge.change(at, block);
        writeAligned(blockStart, block.clear());
      } finally {
        edges.writeLock().unlock();
      }
      at = to;
    }
  }

  // ---- the connection

  private interface Making {
    /// A fresh request, for each time it is sent.
    ClientRequest make();
  }

  private interface Condition {
    boolean holds(ClientConnection connected);
  }

  private void perform(Making request) throws BlockException {
    perform(request, _ -> true);
  }

  /// Sends a request until it is answered; null when the connection cannot carry it.
  private @Nullable ClientRequest perform(Making making, Condition condition)
      throws BlockException {
    for (int attempt = 1; ; attempt++) {
      ClientConnection connected = connection();
      if (!condition.holds(connected)) {
        return null;
      }
      ClientRequest request = making.make();
      try {
        connected.call(request);
        return request;
      } catch (ConnectionLostException e) {
        if (!mayRetry(e) || attempt == MAX_ATTEMPTS) {
          throw new TransportException(e.text(), e);
        }
      }
    }
  }

  /// Notes a loss; false when requests are not to be sent again.
  private boolean mayRetry(ConnectionLostException loss) throws BlockException {
    synchronized (lock) {
      if (closed) {
        throw new TransportException(uri + ": closed", loss);
      }
      noteLoss();
      return !options.reconnectDelay().isZero()
          && !loss.byProtocol()
          && !Thread.currentThread().isInterrupted();
    }
  }

  private void noteLoss() {
    if (!lossSeen) {
      lossSeen = true;
      lostSince = System.nanoTime();
    }
  }

  /// The live connection; makes it anew, or waits for the caller who does.
  private ClientConnection connection() throws BlockException {
    synchronized (lock) {
      boolean interrupted = false;
      long failedBefore = failedReconnects;
      while (connecting && !closed) {
        try {
          lock.wait();
        } catch (InterruptedException _) {
          interrupted = true;
        }
      }
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
      if (closed) {
        throw new TransportException(uri + ": closed");
      }
      if (connection.alive()) {
        return connection;
      }
      if (failedReconnects != failedBefore) { // who waits for an attempt shares its end
        throw new TransportException(lastFailure);
      }
      noteLoss();
      connecting = true;
    }
    ClientConnection fresh = null;
    String failure = uri + ": not reconnected";
    try {
      fresh = reconnect();
      return fresh;
    } catch (BlockException e) {
      failure = String.valueOf(e.getMessage());
      throw e;
    } finally {
      synchronized (lock) {
        connecting = false;
        if (fresh != null) {
          connection = fresh;
          lossSeen = false;
          if (closed) {
            fresh.close();
          }
        } else {
          failedReconnects++;
          lastFailure = failure;
        }
        lock.notifyAll();
      }
    }
  }

  /// Tries until the delay since the loss is over, at least once.
  private ClientConnection reconnect() throws BlockException {
    long pauseMillis = FIRST_PAUSE_MILLIS;
    while (true) {
      try {
        ClientConnection fresh = ClientConnection.open(uri, options);
        checkUnchanged(fresh);
        return fresh;
      } catch (BlockException e) {
        synchronized (lock) {
          long leftMillis =
              (lostSince + options.reconnectDelay().toNanos() - System.nanoTime()) / 1_000_000;
          if (closed || leftMillis <= 0 || Thread.currentThread().isInterrupted()) {
            throw new TransportException(uri + ": the server is away: " + e.getMessage(), e);
          }
          pause(Math.min(pauseMillis, leftMillis));
        }
        pauseMillis = Math.min(2 * pauseMillis, LONGEST_PAUSE_MILLIS);
      }
    }
  }

  /// Waits on `lock`, which is held; ends early on close.
  private void pause(long millis) {
    long deadline = System.nanoTime() + millis * 1_000_000;
    try {
      long left = millis;
      while (!closed && left > 0) {
        lock.wait(left);
        left = (deadline - System.nanoTime()) / 1_000_000;
      }
    } catch (InterruptedException _) {
      Thread.currentThread().interrupt();
    }
  }

  private void checkUnchanged(ClientConnection fresh) throws BlockException {
    ExportInfo now = fresh.terms().info();
    int lostFlags = info.transmissionFlags() & ~now.transmissionFlags();
    boolean lessWritable = now.readOnly() && !info.readOnly();
    if (now.size() != info.size()
        || now.minBlock() > info.minBlock()
        || now.maxPayload() < info.maxPayload()
        || lessWritable
        || (lostFlags & (Wire.Flag.SEND_FLUSH | Wire.Flag.SEND_WRITE_ZEROES)) != 0) {
      fresh.close();
      throw new TransportException(
          uri + ": the export came back as another: " + now + ", was " + info);
    }
  }

  /// Disconnects. Requests under way fail.
  @Override
  public void close() {
    ClientConnection last;
    synchronized (lock) {
      closed = true;
      last = connection;
      lock.notifyAll();
    }
    last.close();
  }
}
