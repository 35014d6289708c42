// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ExtentVisitor;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;

/// An export of an NBD server as a block node.
public final class NbdClient implements BlockNode {
  /// Connects with [ClientOptions#defaults].
  public static NbdClient connect(NbdUri uri) throws BlockException {
    return connect(uri, ClientOptions.defaults());
  }

  /// Connects, and opens the export that the URI names.
  ///
  /// @throws io.tidemark.block.TransportException when there is no server, no such export, or what
  ///   it says is not NBD
  public static NbdClient connect(NbdUri uri, ClientOptions options) throws BlockException {
    throw new UnsupportedOperationException();
  }

  private NbdClient() {}

  @Override
  public String name() {
    throw new UnsupportedOperationException();
  }

  @Override
  public long virtualSize() {
    throw new UnsupportedOperationException();
  }

  @Override
  public boolean readOnly() {
    throw new UnsupportedOperationException();
  }

  @Override
  public void read(long offset, ByteBuffer into) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void write(long offset, ByteBuffer from) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void writeZeroes(long offset, long length, ZeroMode mode) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void discard(long offset, long length) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void flush() throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void extents(long offset, long length, ExtentVisitor visitor) throws BlockException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void close() throws BlockException {
    throw new UnsupportedOperationException();
  }
}
