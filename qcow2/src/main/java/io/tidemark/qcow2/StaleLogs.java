// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.nio.ByteBuffer;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// The logs in a run dir that nobody will ever want: of images that are gone, of an earlier boot,
/// and what never became a log.
///
/// A log whose image was only renamed is wanted, so its image's name says nothing: see
/// [io.tidemark.block.FileTrace]. A log is judged without any lock, because its image's storage may
/// hang; then it is removed in a [LogTurn], if it is still the same log and nobody's.
public final class StaleLogs {
  /// Logs that one call looks at.
  static final int MAX_LOGS = 1000;

  private static final Logger LOG = System.getLogger(StaleLogs.class.getName());

  private StaleLogs() {}

  /// As [#remove], on a thread of its own, which ends with the process: it asks the images'
  /// storage, which may hang.
  public static void removeBeside(Path runDir) {
    Thread.ofPlatform()
        .daemon()
        .name("tidy")
        .start(() -> {
          int _ = remove(runDir);
        });
  }

  /// Removes them, and returns how many. Any thread of any process may call, at any time; it may
  /// take as long as the images' storage does.
  public static int remove(Path runDir) {
    int removed = 0;
    try {
      String boot = ChangeLog.Identity.boot();
      for (Path log : logs(runDir)) {
        if (removeIfStale(log, boot)) {
          LOG.log(Level.INFO, "{0}: removed, its image is gone", log);
          removed++;
        }
      }
    } catch (IOException e) {
      LOG.log(Level.WARNING, runDir + ": logs of images that are gone stay: " + e.getMessage());
    }
    return removed;
  }

  private static List<Path> logs(Path runDir) throws IOException {
    var found = new ArrayList<Path>();
    if (!Files.isDirectory(runDir)) {
      return found;
    }
    try (DirectoryStream<Path> logs = Files.newDirectoryStream(runDir, "qcow2-*.log")) {
      for (Path log : logs) {
        if (found.size() == MAX_LOGS) {
          break;
        }
        found.add(log);
      }
    }
    return found;
  }

  private static boolean removeIfStale(Path log, String boot) throws BlockException {
    Optional<ByteBuffer> judged = header(log);
    if (judged.isEmpty() || !ChangeLog.isStale(judged.get(), boot)) {
      return false;
    }
    try (var _ = LogTurn.take(log)) {
      if (!ChangeLog.headerOfUnused(log).equals(judged)) {
        return false;
      }
      ChangeLog.delete(log);
      return true;
    }
  }

  private static Optional<ByteBuffer> header(Path log) throws BlockException {
    try (var _ = LogTurn.take(log)) {
      return ChangeLog.headerOfUnused(log);
    }
  }
}
