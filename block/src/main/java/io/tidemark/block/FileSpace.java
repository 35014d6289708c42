// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.Errno;
import io.tidemark.linux.LinuxException;
import io.tidemark.linux.LinuxFile;
import java.io.IOException;
import java.util.OptionalLong;

/// What the host does to a file without bytes being written: holes, zeroes, write-back; and where
/// in it data is. Ranges are checked by [FileNode]. Any thread may call.
///
/// Not every file system or device can all of it. That is learnt from the first refusal, so that
/// later requests do not ask in vain.
final class FileSpace {
  /// A descriptor that is open, or is opened now.
  interface Descriptor {
    LinuxFile open() throws IOException;
  }

  private final boolean device;
  private final Descriptor reading;
  private final Descriptor writing;
  private volatile boolean cannotPunch;
  private volatile boolean cannotZero;
  private volatile boolean cannotStart;

  FileSpace(boolean device, Descriptor reading, Descriptor writing) {
    this.device = device;
    this.reading = reading;
    this.writing = writing;
  }

  /// Whether [#punch] or [#zeroRange] may do anything.
  boolean changes() {
    return !cannotPunch || !cannotZero;
  }

  /// @return false when the file system or device cannot, and nothing changed
  boolean punch(long offset, long length) throws IOException {
    if (cannotPunch) {
      return false;
    }
    try {
      writing.open().punchHole(offset, length);
      return true;
    } catch (LinuxException e) {
      cannotPunch |= e.unsupported();
      return refused(e);
    }
  }

  boolean zeroRange(long offset, long length) throws IOException {
    if (cannotZero) {
      return false;
    }
    try {
      writing.open().zeroRange(offset, length);
      return true;
    } catch (LinuxException e) {
      cannotZero |= e.unsupported();
      return refused(e);
    }
  }

  /// False for what may be done another way: an unknown call, or a range that a device does not
  /// take because it is not aligned to its blocks.
  private boolean refused(LinuxException e) throws LinuxException {
    if (e.unsupported() || (device && e.errno() == Errno.EINVAL)) {
      return false;
    }
    throw e;
  }

  /// Has the host begin to write out what changed, where it can.
  void startWriteBack() throws IOException {
    if (cannotStart) {
      return;
    }
    try {
      writing.open().startWriteBack();
    } catch (LinuxException e) {
      if (!e.unsupported() && e.errno() != Errno.EINVAL && e.errno() != Errno.ESPIPE) {
        throw e;
      }
      cannotStart = true;
    }
  }

  /// Holes are zeroes with a place; a file system that does not tell has data everywhere.
  Extent extentAt(long at, long end) throws IOException {
    var state = Extent.State.DATA;
    long until = end;
    if (!device) {
      try {
        OptionalLong data = reading.open().seekData(at);
        if (data.isEmpty() || data.getAsLong() > at) {
          state = Extent.State.ZERO;
          until = data.orElse(end);
        } else {
          // A hole that starts right here was made since; the next look will find it.
          until = Math.max(at + 1, reading.open().seekHole(at).orElse(end));
        }
      } catch (LinuxException e) {
        if (!e.unsupported() && e.errno() != Errno.EINVAL) {
          throw e;
        }
      }
    }
    until = Math.min(until, end);
    return new Extent(at, until - at, state, at, false);
  }
}
