// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.domain.spi.StateStore;
import io.tidemark.domain.spi.StateStore.Document;
import io.tidemark.domain.spi.StateStore.Kind;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class FileStateStoreTest {
  private static String key(Kind kind, String name) {
    return kind == Kind.CHECKPOINT || kind == Kind.SNAPSHOT ? "vm/" + name : name;
  }

  @ParameterizedTest
  @EnumSource
  void whatIsPutIsThereForTheNextProcess(Kind kind, @TempDir Path dir) throws IOException {
    Path state = dir.resolve("new/state");
    Path run = dir.resolve("run");
    StateStore store = new FileStateStore(state, run, Disk.SYSTEM);
    store.put(kind, key(kind, "a b.ü"), "<one/>");
    store.put(kind, key(kind, "c"), "<two/>");
    store.put(kind, key(kind, "c"), "<three/>");
    store.put(kind, key(kind, "gone"), "<x/>");
    store.remove(kind, key(kind, "gone"));
    store.remove(kind, key(kind, "never"));
    assertThat(new FileStateStore(state, run, Disk.SYSTEM).all(kind))
        .containsExactlyInAnyOrder(
            new Document(key(kind, "a b.ü"), "<one/>"), new Document(key(kind, "c"), "<three/>"));
    for (Kind other : Kind.values()) {
      if (other != kind) {
        assertThat(store.all(other)).isEmpty();
      }
    }
  }

  @Test
  void filesAreWhereTheDocumentationSays(@TempDir Path dir) throws IOException {
    StateStore store = new FileStateStore(dir.resolve("s"), dir.resolve("r"), Disk.SYSTEM);
    store.put(Kind.DEFINITION, "vm", "<d/>");
    store.put(Kind.CHECKPOINT, "vm/c1", "<c/>");
    store.put(Kind.LIVE, "vm", "<l/>");
    assertThat(dir.resolve("s/domains/vm.xml")).hasContent("<d/>");
    assertThat(dir.resolve("s/checkpoints/vm/c1.xml")).hasContent("<c/>");
    assertThat(dir.resolve("r/live/vm.xml")).hasContent("<l/>");
    store.remove(Kind.CHECKPOINT, "vm/c1");
    assertThat(dir.resolve("s/checkpoints/vm")).doesNotExist();
  }

  @Test
  void leftoversOfADeadProcessAreRemovedAtStart(@TempDir Path dir) throws IOException {
    StateStore store = new FileStateStore(dir, dir, Disk.SYSTEM);
    store.put(Kind.CHECKPOINT, "vm/c1", "<c/>");
    Files.writeString(dir.resolve("domains/.tmp-1"), "half");
    Files.writeString(dir.resolve("checkpoints/vm/.tmp-9"), "half");
    FileStateStore next = new FileStateStore(dir, dir, Disk.SYSTEM);
    assertThat(dir.resolve("domains/.tmp-1")).doesNotExist();
    assertThat(dir.resolve("checkpoints/vm/.tmp-9")).doesNotExist();
    next.put(Kind.DEFINITION, "vm", "<d/>");
    assertThat(next.all(Kind.DEFINITION)).hasSize(1);
  }

  @Test
  void namesThatWereNotEscapedHereAreAnErrorNotAGuess(@TempDir Path dir) throws IOException {
    FileStateStore store = new FileStateStore(dir, dir, Disk.SYSTEM);
    Files.writeString(dir.resolve("domains/a b.xml"), "<d/>");
    assertThatThrownBy(() -> store.all(Kind.DEFINITION)).hasMessageContaining("a b.xml");
  }

  @Test
  void documentIsTheOldOrTheNewOneWhereverThePowerIsCut() throws IOException {
    Path state = Path.of("/state");
    Path run = Path.of("/run");
    for (Kind kind : Kind.values()) {
      String key = key(kind, "vm");
      for (int steps = 0; ; steps++) {
        CuttingDisk disk = new CuttingDisk();
        StateStore store = new FileStateStore(state, run, disk);
        store.put(kind, key, "<old/>");
        disk.cutAfter(steps);
        boolean done = attempt(() -> store.put(kind, key, "<new/>"));
        for (long seed = 0; seed < 20; seed++) {
          StateStore next = new FileStateStore(state, run, disk.afterPowerCut(seed));
          List<String> texts = next.all(kind).stream().map(Document::xml).toList();
          if (done) {
            assertThat(texts).as("%s, all %d steps", kind, steps).containsExactly("<new/>");
          } else {
            assertThat(texts)
                .as("%s, cut after %d steps, seed %d", kind, steps, seed)
                .hasSize(1)
                .first()
                .isIn("<old/>", "<new/>");
          }
        }
        if (done) {
          break;
        }
      }
    }
  }

  @Test
  void removalThatReturnedIsDurable() throws IOException {
    for (Kind kind : Kind.values()) {
      CuttingDisk disk = new CuttingDisk();
      StateStore store = new FileStateStore(Path.of("/state"), Path.of("/run"), disk);
      store.put(kind, key(kind, "vm"), "<old/>");
      store.remove(kind, key(kind, "vm"));
      for (long seed = 0; seed < 20; seed++) {
        StateStore next =
            new FileStateStore(Path.of("/state"), Path.of("/run"), disk.afterPowerCut(seed));
        assertThat(next.all(kind)).isEmpty();
      }
    }
  }

  @Test
  void firstPutOfAFolderIsDurableToo() throws IOException {
    CuttingDisk disk = new CuttingDisk();
    new FileStateStore(Path.of("/state"), Path.of("/run"), disk)
        .put(Kind.CHECKPOINT, "vm/c1", "<c/>");
    for (long seed = 0; seed < 20; seed++) {
      assertThat(
              new FileStateStore(Path.of("/state"), Path.of("/run"), disk.afterPowerCut(seed))
                  .all(Kind.CHECKPOINT))
          .containsExactly(new Document("vm/c1", "<c/>"));
    }
  }

  private interface Attempt {
    void run() throws IOException;
  }

  /// False when the power went.
  private static boolean attempt(Attempt attempt) throws IOException {
    try {
      attempt.run();
      return true;
    } catch (PowerCut e) {
      return false;
    }
  }

  private static final class PowerCut extends IOException {
    private static final long serialVersionUID = 1L;
  }

  /// A file system in memory that keeps, for each folder, the entries as they were at its last sync
  /// and every change since. After a power cut any prefix of a folder's unsynced changes survives,
  /// each folder's its own, and a folder without a durable entry is gone with all it held.
  private static final class CuttingDisk implements Disk {
    private record Entry(boolean folder, String text) {}

    private record Change(Path path, Optional<Entry> entry) {}

    private final Map<Path, Entry> now = new TreeMap<>();
    private final Map<Path, Entry> durable = new TreeMap<>();
    private final Map<Path, List<List<Change>>> unsynced = new HashMap<>();
    private int left = Integer.MAX_VALUE;

    void cutAfter(int steps) {
      left = steps;
    }

    private void step() throws PowerCut {
      if (left == 0) {
        throw new PowerCut();
      }
      left--;
    }

    CuttingDisk afterPowerCut(long seed) {
      Random random = new Random(seed);
      CuttingDisk after = new CuttingDisk();
      after.now.putAll(durable);
      unsynced.forEach((folder, changes) -> {
        int kept = random.nextInt(changes.size() + 1);
        for (List<Change> change : changes.subList(0, kept)) {
          for (Change each : change) {
            each.entry()
                .ifPresentOrElse(
                    e -> after.now.put(each.path(), e), () -> after.now.remove(each.path()));
          }
        }
      });
      boolean orphans = true;
      while (orphans) {
        orphans =
            after
                .now
                .keySet()
                .removeIf(
                    path -> path.getNameCount() > 1 && !after.now.containsKey(path.getParent()));
      }
      after.durable.putAll(after.now);
      return after;
    }

    private void change(Path folder, List<Change> changes) {
      for (Change each : changes) {
        each.entry().ifPresentOrElse(e -> now.put(each.path(), e), () -> now.remove(each.path()));
      }
      unsynced.computeIfAbsent(folder, _ -> new ArrayList<>()).add(changes);
    }

    private static Path above(Path path) {
      Path above = path.getParent();
      return above == null ? path : above;
    }

    private static Change set(Path path, Entry entry) {
      return new Change(path, Optional.of(entry));
    }

    private static Change unset(Path path) {
      return new Change(path, Optional.empty());
    }

    @Override
    public List<Path> makeFolder(Path folder) throws IOException {
      if (folder.getNameCount() == 0 || now.containsKey(folder)) {
        return List.of();
      }
      List<Path> changed = new ArrayList<>(makeFolder(above(folder)));
      step();
      change(above(folder), List.of(set(folder, new Entry(true, ""))));
      changed.add(above(folder));
      return changed;
    }

    @Override
    public void writeAndSync(Path file, byte[] bytes) throws IOException {
      step();
      change(
          above(file),
          List.of(set(file, new Entry(false, new String(bytes, StandardCharsets.UTF_8)))));
    }

    @Override
    public void rename(Path from, Path to) throws IOException {
      step();
      Entry entry = entry(from);
      change(above(to), List.of(set(to, entry), unset(from)));
    }

    @Override
    public boolean delete(Path file) throws IOException {
      step();
      if (!now.containsKey(file)) {
        return false;
      }
      change(above(file), List.of(unset(file)));
      return true;
    }

    @Override
    public boolean deleteFolder(Path folder) throws IOException {
      step();
      if (!now.containsKey(folder) || !list(folder).isEmpty()) {
        return false;
      }
      change(above(folder), List.of(unset(folder)));
      return true;
    }

    @Override
    public void syncFolder(Path folder) throws IOException {
      step();
      List<List<Change>> changes = unsynced.remove(folder);
      if (changes != null) {
        for (List<Change> change : changes) {
          for (Change each : change) {
            each.entry()
                .ifPresentOrElse(
                    e -> durable.put(each.path(), e), () -> durable.remove(each.path()));
          }
        }
      }
    }

    @Override
    public byte[] read(Path file) {
      return entry(file).text().getBytes(StandardCharsets.UTF_8);
    }

    private Entry entry(Path path) {
      return Objects.requireNonNull(now.get(path), path.toString());
    }

    @Override
    public List<Path> list(Path folder) {
      return now.keySet().stream().filter(path -> folder.equals(path.getParent())).toList();
    }
  }
}
