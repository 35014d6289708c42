// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.domain.spi.StateStore;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;

/// The daemon's state as files, one document each:
///
/// | document | file |
/// |---|---|
/// | definition | `STATE/domains/NAME.xml` |
/// | checkpoint | `STATE/checkpoints/DOMAIN/NAME.xml` |
/// | snapshot | `STATE/snapshots/DOMAIN/NAME.xml` |
/// | live record | `RUN/live/NAME.xml` |
///
/// Replacing a document, and what is on disk after each step:
/// 1. the new text is written to `.tmp-N` in the same folder and synced: the old document, and a
///    leftover that the next start removes;
/// 2. `.tmp-N` is renamed over the document: the old or the new document, as the power cut will
///    have it; any other process sees the new one;
/// 3. the folder is synced: the new document.
///
/// A folder's own entry is synced before its first document is written, so that no document is
/// durable in a folder that is not. Removing is unlinking and syncing the folder.
///
/// Safe for several threads as long as no two change one document at a time. One process at a time:
/// see [OwnedFolder].
final class FileStateStore implements StateStore {
  private static final System.Logger LOG = System.getLogger(FileStateStore.class.getName());
  private static final String SUFFIX = ".xml";

  /// No name that was escaped begins with a dot.
  private static final String TEMPORARY = ".tmp-";

  private final Disk disk;
  private final Path domains;
  private final Path checkpoints;
  private final Path snapshots;
  private final Path live;
  private final AtomicLong temporaries = new AtomicLong();

  /// Removes what an earlier process left half done.
  FileStateStore(Path stateDir, Path runDir, Disk disk) throws IOException {
    this.disk = disk;
    domains = stateDir.resolve("domains");
    checkpoints = stateDir.resolve("checkpoints");
    snapshots = stateDir.resolve("snapshots");
    live = runDir.resolve("live");
    for (Path folder : List.of(domains, checkpoints, snapshots, live)) {
      make(folder);
      clean(folder);
    }
    for (Path moments : List.of(checkpoints, snapshots)) {
      for (Path folder : foldersOf(moments)) {
        clean(folder);
      }
    }
  }

  @Override
  public List<Document> all(Kind kind) throws IOException {
    return switch (kind) {
      case DEFINITION -> documents(domains, "");
      case LIVE -> documents(live, "");
      case CHECKPOINT -> momentsOf(checkpoints);
      case SNAPSHOT -> momentsOf(snapshots);
    };
  }

  private List<Document> momentsOf(Path moments) throws IOException {
    List<Document> all = new ArrayList<>();
    for (Path folder : foldersOf(moments)) {
      all.addAll(documents(folder, FileName.parse(nameOf(folder), "") + "/"));
    }
    return all;
  }

  @Override
  public void put(Kind kind, String key, String xml) throws IOException {
    Path file = file(kind, key);
    Path folder = folderOf(file);
    make(folder);
    Path temporary = folder.resolve(TEMPORARY + temporaries.incrementAndGet());
    try {
      disk.writeAndSync(temporary, xml.getBytes(UTF_8));
      disk.rename(temporary, file);
    } catch (IOException e) {
      deleteQuietly(temporary, e);
      throw e;
    }
    disk.syncFolder(folder);
  }

  @Override
  public void remove(Kind kind, String key) throws IOException {
    Path file = file(kind, key);
    Path folder = folderOf(file);
    if (disk.delete(file)) {
      disk.syncFolder(folder);
    }
    boolean moment = kind == Kind.CHECKPOINT || kind == Kind.SNAPSHOT;
    if (moment && disk.deleteFolder(folder)) {
      disk.syncFolder(folderOf(folder));
    }
  }

  private Path file(Kind kind, String key) throws IOException {
    return switch (kind) {
      case DEFINITION -> domains.resolve(FileName.of(key, SUFFIX));
      case LIVE -> live.resolve(FileName.of(key, SUFFIX));
      case CHECKPOINT -> moment(checkpoints, key);
      case SNAPSHOT -> moment(snapshots, key);
    };
  }

  /// The name of a checkpoint or a snapshot has no slash.
  private static Path moment(Path moments, String key) throws IOException {
    int slash = key.lastIndexOf('/');
    if (slash < 0) {
      throw new IOException("key '" + key + "' without a domain");
    }
    return moments
        .resolve(FileName.of(key.substring(0, slash), ""))
        .resolve(FileName.of(key.substring(slash + 1), SUFFIX));
  }

  private List<Document> documents(Path folder, String prefix) throws IOException {
    List<Document> found = new ArrayList<>();
    for (Path file : disk.list(folder)) {
      String name = nameOf(file);
      if (name.startsWith(TEMPORARY)) {
        continue; // being written by another thread of this process
      }
      if (!name.endsWith(SUFFIX)) {
        LOG.log(Level.WARNING, "{0}: not a document of this store, left alone", file);
        continue;
      }
      found.add(
          new Document(prefix + FileName.parse(name, SUFFIX), new String(disk.read(file), UTF_8)));
    }
    return found;
  }

  private List<Path> foldersOf(Path moments) throws IOException {
    return disk.list(moments).stream().filter(folder -> !nameOf(folder).startsWith(".")).toList();
  }

  private void make(Path folder) throws IOException {
    for (Path above : disk.makeFolder(folder)) {
      disk.syncFolder(above);
    }
  }

  private void clean(Path folder) throws IOException {
    for (Path file : disk.list(folder)) {
      if (nameOf(file).startsWith(TEMPORARY)) {
        LOG.log(Level.INFO, "{0}: removed, left by a process that ended while writing", file);
        disk.delete(file);
      }
    }
  }

  private void deleteQuietly(Path file, IOException failure) {
    try {
      disk.delete(file);
    } catch (IOException e) {
      failure.addSuppressed(e);
    }
  }

  private static String nameOf(Path file) {
    return String.valueOf(file.getFileName());
  }

  private static Path folderOf(Path file) throws IOException {
    Path folder = file.getParent();
    if (folder == null) {
      throw new IOException(file + ": has no folder");
    }
    return folder;
  }
}
