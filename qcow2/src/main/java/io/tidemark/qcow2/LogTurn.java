// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.TransportException;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// The turn to make a log in a run dir, or to remove one there that is nobody's: of one thread of
/// one process at a time. Between the look at a log and its removal nobody can then make the name
/// his own.
///
/// Held for a few system calls on the run dir, never while storage is asked.
final class LogTurn implements AutoCloseable {
  private static final String NAME = ".turn";
  private static final long PATIENCE_NANOS = TimeUnit.SECONDS.toNanos(1);
  private static final long PAUSE_NANOS = TimeUnit.MILLISECONDS.toNanos(2);

  /// Locks of a file are the whole process's.
  private static final ReentrantLock HERE = new ReentrantLock();

  private final @Nullable FileChannel channel; // null: of this process only

  private LogTurn(@Nullable FileChannel channel) {
    this.channel = channel;
  }

  /// A turn among the threads of this process.
  static LogTurn here() {
    HERE.lock();
    return new LogTurn(null);
  }

  /// The turn in the folder of this log.
  ///
  /// @throws TransportException when the folder takes no file, or another process keeps the turn
  static LogTurn take(Path log) throws TransportException {
    HERE.lock();
    FileChannel channel = null;
    try {
      channel =
          FileChannel.open(
              log.resolveSibling(NAME), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
      lock(channel, log);
      return new LogTurn(channel);
    } catch (IOException | RuntimeException e) {
      new LogTurn(channel).close();
      throw e instanceof TransportException known
          ? known
          : new TransportException(log + ": cannot make the log of the image", e);
    }
  }

  /// Tries again for a while: a process that is stopped in its turn must not stop a guest.
  private static void lock(FileChannel channel, Path log) throws IOException {
    long start = System.nanoTime();
    while (!locked(channel)) {
      if (System.nanoTime() - start > PATIENCE_NANOS) {
        throw new TransportException(
            log + ": cannot make the log of the image: another process keeps its folder locked");
      }
      LockSupport.parkNanos(PAUSE_NANOS);
    }
  }

  private static boolean locked(FileChannel channel) throws IOException {
    try {
      FileLock lock = channel.tryLock(); // goes with the channel
      return lock != null;
    } catch (OverlappingFileLockException _) {
      return false; // a second copy of this class
    }
  }

  @Override
  public void close() {
    try {
      if (channel != null) {
        channel.close();
      }
    } catch (IOException _) {
      // Safe because nothing is written to it.
    } finally {
      HERE.unlock();
    }
  }
}
