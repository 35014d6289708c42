// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;

/// A range of a file in this process's memory, for system calls that take bytes from there.
///
/// Its bytes are for the kernel alone: where the file ends earlier, or cannot be read, a call fails
/// with EFAULT, but a look from Java would end in SIGBUS.
public final class FileMapping implements AutoCloseable {
  private final long address;
  private final ByteBuffer bytes;

  FileMapping(long address, long length) {
    this.address = address;
    this.bytes =
        MemorySegment.ofAddress(address).reinterpret(length).asByteBuffer().asReadOnlyBuffer();
  }

  /// Whether a range is in memory, so that a call that takes it waits for no disk.
  public boolean resident(int offset, int length) {
    int start = offset & -Calls.PAGE;
    return Calls.resident(address + start, (long) offset - start + length);
  }

  /// A range, valid until [#close].
  public ByteBuffer bytes(int offset, int length) {
    return bytes.slice(offset, length);
  }

  /// No system call may be using it.
  @Override
  public void close() {
    Calls.munmap(address, bytes.capacity());
  }
}
