// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Extent;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.ZeroMode;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/// An export of an NBD server as a block node. Any thread may call any method; requests of several
/// threads are in flight together, on one connection or on several.
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
  private static final Logger LOG = System.getLogger(NbdClient.class.getName());

  /// Bytes of one zeroing or block status request whose length is 32 bits wide.
  private static final long MAX_RANGE = 1L << 30;

  private static final int ZEROES_BYTES = 256 << 10;

  private final NbdUri uri;
  private final ExportInfo info;

  /// Where the minimum block is larger than a byte: shared by aligned changes, exclusive for
  /// read-modify-write.
  private final ReentrantReadWriteLock edges = new ReentrantReadWriteLock();

  private final List<ClientLink> links; // at least one

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
    var links = new ArrayList<ClientLink>();
    links.add(ClientLink.open(uri, options));
    int wanted = links.getFirst().info().canMultiConn() ? options.connections() : 1;
    while (links.size() < wanted) {
      try {
        links.add(ClientLink.open(uri, options));
      } catch (BlockException e) { // as many as the server lets in
        LOG.log(Level.DEBUG, "{0}: {1} connections, not {2}: {3}", uri, links.size(), wanted, e);
        break;
      }
    }
    return new NbdClient(uri, links);
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
            handshake.begin(uri);
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

  private NbdClient(NbdUri uri, List<ClientLink> links) {
    this.uri = uri;
    this.links = List.copyOf(links);
    this.info = links.getFirst().info();
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

  /// What an export allows is the server's to say: this looks whether it does, and flushes before
  /// it is only read. Nothing changes on the connection.
  @Override
  public void reopen(boolean wantReadOnly) throws BlockException {
    if (!wantReadOnly && info.readOnly()) {
      throw new ReadOnlyNodeException(name() + ": the server's export is read-only");
    }
    if (wantReadOnly && !info.readOnly()) {
      flush();
    }
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
      long from = at;
      at +=
          link()
              .perform(terms ->
                  new ClientRequest(
                      Wire.Command.WRITE_ZEROES,
                      flags,
                      from,
                      Math.min(end - from, maxRange(terms)),
                      ByteBuffer.allocate(0)))
              .length;
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
    boolean known =
        status(
            MetaContext.ALLOCATION,
            offset,
            length,
            (at, count, flags) -> {
              boolean zero = (flags & Wire.State.ZERO) != 0;
              Extent.State state = zero ? Extent.State.ZERO : Extent.State.DATA;
              return visitor.visit(new Extent(at, count, state, at, false));
            });
    if (!known && length > 0) {
      visitor.visit(new Extent(offset, length, Extent.State.DATA, offset, false));
    }
  }

  /// Takes what a metadata context says of a range, piece by piece.
  @FunctionalInterface
  public interface StatusVisitor {
    /// Returns whether to go on.
    ///
    /// @param flags as the context defines them
    boolean visit(long offset, long length, long flags) throws BlockException;
  }

  /// Asks one of the contexts of [ClientOptions#contexts], or `base:allocation`, about a range.
  /// Returns false, without a visit, where the server does not answer that context.
  public boolean status(String context, long offset, long length, StatusVisitor visitor)
      throws BlockException {
    checkRange(offset, length);
    long at = offset;
    long end = offset + length;
    while (at < end) {
      long aligned = at & ~(info.minBlock() - 1L);
      ClientRequest answer = askStatus(context, aligned, roundUp(end) - aligned);
      if (answer == null) {
        return false;
      }
      long start = aligned;
      for (int i = 0; i < answer.extentCount() && at < end; i++) {
        // The last extent may pass the range that was asked for. Spec: REPLY_TYPE_BLOCK_STATUS
        long count = Math.min(answer.extentLength(i), info.size() - start);
        long to = Math.min(start + count, end);
        if (to > at) {
          if (!visitor.visit(at, to - at, answer.extentFlags(i))) {
            return true;
          }
          at = to;
        }
        start += count;
      }
    }
    return true;
  }

  /// Bytes of the largest zeroing or block status request.
  private static long maxRange(ClientHandshake.Terms terms) {
    return terms.framing() == Framing.EXTENDED ? Long.MAX_VALUE : MAX_RANGE;
  }

  /// Null where the server does not answer the context.
  private @Nullable ClientRequest askStatus(String context, long offset, long length)
      throws BlockException {
    return link()
        .performIf(
            terms -> {
              long count = Math.min(length, maxRange(terms));
              var request =
                  new ClientRequest(
                      Wire.Command.BLOCK_STATUS, 0, offset, count, ByteBuffer.allocate(0));
              request.context = terms.contexts().getOrDefault(context, -1);
              return request;
            },
            connected -> connected.terms().contexts().containsKey(context));
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

  // ---- connections

  /// Threads keep to a connection of their own, as far as there are enough.
  private ClientLink link() {
    return links.get((int) (Thread.currentThread().threadId() % links.size()));
  }

  private void perform(Supplier<ClientRequest> request) throws BlockException {
    link().perform(_ -> request.get());
  }

  /// Disconnects. Requests under way fail.
  @Override
  public void close() {
    links.forEach(ClientLink::close);
  }
}
