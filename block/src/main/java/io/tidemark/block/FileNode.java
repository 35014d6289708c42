// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import java.nio.file.Path;

/// A host file or block device, byte for byte: what lies beneath every local format node (QEMU: the
/// protocol node).
///
/// Writes past the end are refused; a format grows its file with [#resize].
public final class FileNode implements BlockNode {
  /// Opens an existing file or device, and locks it as `options` say.
  ///
  /// @throws ImageBusyException when another holder's image lock excludes this use
  /// @throws TransportException when it is missing or may not be opened
  public static FileNode open(Path path, OpenOptions options) throws BlockException {
    throw new UnsupportedOperationException();
  }

  /// Creates an empty file that must not exist (mode 0600 less the umask), opens it read-write and
  /// locks it.
  public static FileNode create(Path path) throws BlockException {
    throw new UnsupportedOperationException();
  }

  private FileNode() {}

  /// The file's path.
  public Path path() {
    throw new UnsupportedOperationException();
  }

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
