// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import io.tidemark.linux.FileMapping;
import io.tidemark.linux.LinuxFile;
import java.io.IOException;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/// A host file's pages, lent to system calls without a copy ([BlockNode#lend]).
///
/// The file is mapped in windows, each when a range in it is asked for first. A window may pass the
/// file's end, so a file that grows needs no new one. Only ranges that are in the page cache are
/// lent: the disk is better read in one request than page after page, and a failure is better met
/// before a reply was begun.
///
/// A window holds the file open, and so the locks of the descriptor that it was made by.
final class HostMapping implements AutoCloseable {
  /// Bytes of a window; a power of two.
  static final int WINDOW = 1 << 30;

  /// Windows at most, for 4 TiB of a file; what lies behind is not lent.
  private static final int MAX_WINDOWS = 4096;

  interface Opener {
    LinuxFile open() throws IOException;
  }

  private final Opener file;
  private final Gate lent = new Gate();

  /// By number; changed under this, by a copy.
  private volatile @Nullable FileMapping[] windows = {};

  private volatile boolean refused; // nothing is mapped any more
  private boolean closed; // guarded by this

  HostMapping(Opener file) {
    this.file = file;
  }

  /// See [BlockNode#lend]; the range lies within the file.
  int lend(long offset, int length, Borrower borrower) {
    long number = offset / WINDOW;
    int within = (int) (offset % WINDOW);
    if (number >= MAX_WINDOWS || length <= 0 || within > WINDOW - length) {
      return 0;
    }
    int ticket = lent.tryEnter();
    if (ticket < 0) {
      return 0;
    }
    try {
      FileMapping window = window((int) number);
      return window != null && window.resident(within, length)
          ? borrower.take(window.bytes(within, length))
          : 0;
    } finally {
      lent.leave(ticket);
    }
  }

  private @Nullable FileMapping window(int number) {
    FileMapping window = known(number);
    return window != null || refused ? window : map(number);
  }

  private @Nullable FileMapping known(int number) {
    @Nullable FileMapping[] known = windows;
    return number < known.length ? known[number] : null;
  }

  private synchronized @Nullable FileMapping map(int number) {
    FileMapping window = known(number);
    if (window != null || refused) {
      return window; // another thread was here meanwhile
    }
    try {
      FileMapping made = file.open().map((long) number * WINDOW, WINDOW);
      @Nullable FileMapping[] more = Arrays.copyOf(windows, Math.max(windows.length, number + 1));
      more[number] = made;
      windows = more;
      return made;
    } catch (IOException _) {
      // Safe because whoever is lent nothing reads instead.
      refused = true; // a file system without mappings, or no more room for them
      return null;
    }
  }

  /// Waits for those who borrow, which is never long. Nothing is lent from then on.
  @Override
  public void close() {
    synchronized (this) {
      if (closed) {
        return;
      }
      closed = true;
      refused = true;
    }
    lent.shut();
    for (FileMapping window : windows) {
      if (window != null) {
        window.close();
      }
    }
    windows = new FileMapping[0];
  }
}
