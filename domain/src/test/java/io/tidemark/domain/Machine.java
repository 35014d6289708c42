// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static java.util.Objects.requireNonNull;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.ImageSizes;
import io.tidemark.domain.spi.StateStore;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/// What survives a daemon in tests: image files as headers only, and the state store. A daemon's
/// view of it dies with the daemon: after [View#kill] it changes nothing any more.
final class Machine {
  /// Thrown at the moment of a simulated kill.
  static final class Killed extends Error {
    private static final long serialVersionUID = 1L;

    Killed() {
      super("killed");
    }
  }

  /// @param complete whether a backup or copy into it came to its end
  record FakeImage(
      String format, long size, Optional<ImageService.Backing> backing, boolean complete) {}

  final Map<Path, FakeImage> images = new TreeMap<>();
  final Map<Path, ImageService.FileStatus> others = new TreeMap<>();
  final Map<StateStore.Kind, Map<String, String>> documents = new LinkedHashMap<>();

  /// Names of the snapshots inside images, and which were gone back to.
  final Map<Path, List<String>> snapshots = new TreeMap<>();

  final List<String> applied = new ArrayList<>();
  String failSnapshotIn = "";

  /// Bitmaps by image, as a crash leaves them.
  final Map<Path, Map<String, BitmapState>> bitmaps = new TreeMap<>();

  Machine() {
    for (StateStore.Kind kind : StateStore.Kind.values()) {
      documents.put(kind, new TreeMap<>());
    }
  }

  private Map<String, String> documents(StateStore.Kind kind) {
    return requireNonNull(documents.get(kind));
  }

  synchronized void image(String file, String format, long size) {
    images.put(Path.of(file), new FakeImage(format, size, Optional.empty(), true));
  }

  synchronized void image(String file, String format, long size, String backing) {
    images.put(
        Path.of(file),
        new FakeImage(
            format,
            size,
            Optional.of(new ImageService.Backing(backing, Optional.of("qcow2"))),
            true));
  }

  synchronized FakeImage opened(String file) {
    return requireNonNull(images.get(Path.of(file)));
  }

  synchronized boolean has(String file) {
    return images.containsKey(Path.of(file));
  }

  synchronized List<String> files() {
    return images.keySet().stream().map(Path::toString).toList();
  }

  synchronized Optional<String> document(StateStore.Kind kind, String key) {
    return Optional.ofNullable(documents(kind).get(key));
  }

  private static final Set<String> FOLDERS = Set.of("/", "/img", "/bk", "/full");

  /// One daemon's hands on the machine.
  final class View implements StateStore, ImageService {
    private boolean dead;
    private int writesLeft = Integer.MAX_VALUE;
    private boolean killBeforeWrite;
    private boolean failWrites;
    // Null unless writes of one kind fail.
    @Nullable Kind failKind;
    int writes;

    /// Dies at the n-th change from now, counted from 0; before it takes place or after.
    void killAtWrite(int n, boolean before) {
      writesLeft = n;
      killBeforeWrite = before;
    }

    void failWrites(boolean fail) {
      synchronized (Machine.this) {
        failWrites = fail;
      }
    }

    void kill() {
      synchronized (Machine.this) {
        dead = true;
      }
    }

    boolean isDead() {
      synchronized (Machine.this) {
        return dead;
      }
    }

    void alive() {
      if (dead) {
        throw new Killed();
      }
    }

    private void write(Kind kind, Runnable change) throws IOException {
      synchronized (Machine.this) {
        alive();
        if (failWrites || kind == failKind) {
          throw new IOException("no space left");
        }
        mutate(change);
      }
    }

    /// One change of what survives; where a kill may fall.
    private void mutate(Runnable change) {
      writes++;
      boolean last = writesLeft == 0;
      writesLeft--;
      if (last && killBeforeWrite) {
        dead = true;
        throw new Killed();
      }
      change.run();
      if (last) {
        dead = true;
        throw new Killed();
      }
    }

    @Override
    public List<Document> all(Kind kind) {
      synchronized (Machine.this) {
        alive();
        return documents(kind).entrySet().stream()
            .map(entry -> new Document(entry.getKey(), entry.getValue()))
            .toList();
      }
    }

    @Override
    public void put(Kind kind, String key, String xml) throws IOException {
      write(kind, () -> documents(kind).put(key, xml));
    }

    @Override
    public void remove(Kind kind, String key) throws IOException {
      write(kind, () -> documents(kind).remove(key));
    }

    @Override
    public Optional<FileStatus> status(Path file) throws DriverException {
      synchronized (Machine.this) {
        alive();
        if (file.startsWith("/missing")) {
          throw new DriverException(DriverException.Kind.MISSING_FILE, file + ": no such folder");
        }
        if (others.containsKey(file)) {
          return Optional.of(others.get(file));
        }
        if (FOLDERS.contains(file.toString())) {
          return Optional.of(new FileStatus(FileKind.OTHER, 0));
        }
        return Optional.ofNullable(images.get(file))
            .map(image -> new FileStatus(FileKind.REGULAR, 4096));
      }
    }

    /// An image's header names another backing file: one change of what survives.
    void rebase(Path file, Optional<ImageService.Backing> backing) {
      synchronized (Machine.this) {
        FakeImage image = requireNonNull(images.get(file));
        if (!image.backing().equals(backing)) {
          mutate(() ->
              images.put(
                  file, new FakeImage(image.format(), image.size(), backing, image.complete())));
        }
      }
    }

    @Override
    public boolean same(Path one, Path other) {
      synchronized (Machine.this) {
        return images.containsKey(one) && one.normalize().equals(other.normalize());
      }
    }

    FakeImage open(Path file, String format) throws DriverException {
      synchronized (Machine.this) {
        alive();
        FakeImage image = images.get(file);
        if (image == null) {
          throw new DriverException(DriverException.Kind.MISSING_FILE, file + ": missing");
        }
        if (format.equals("qcow2") && !image.format().equals("qcow2")) {
          throw new DriverException(
              DriverException.Kind.CORRUPT_IMAGE, file + ": not in qcow2 format");
        }
        return image;
      }
    }

    @Override
    public Image inspect(Path file, String format) throws DriverException {
      FakeImage image = open(file, format);
      Optional<Backing> backing = format.equals("raw") ? Optional.empty() : image.backing();
      return new Image(
          file,
          format,
          image.size(),
          backing,
          backing.map(found -> Path.of(found.name())),
          List.of());
    }

    @Override
    public List<Image> chain(Path file, String format) throws DriverException {
      List<Image> chain = new ArrayList<>();
      chain.add(inspect(file, format));
      return chain;
    }

    @Override
    public String probe(Path file) throws DriverException {
      return open(file, "raw").format();
    }

    @Override
    public void create(Path file, String format, long size, Optional<Backing> backing)
        throws DriverException {
      synchronized (Machine.this) {
        alive();
        if (file.startsWith("/missing")) {
          throw new DriverException(DriverException.Kind.GENERIC, file + ": ENOENT");
        }
        if (file.startsWith("/full")) {
          throw new DriverException(DriverException.Kind.OUT_OF_SPACE, file + ": full");
        }
        mutate(() -> images.put(file, new FakeImage(format, size, backing, false)));
      }
    }

    private List<String> snapshotsOf(Path file, String format) throws DriverException {
      open(file, format);
      return snapshots.computeIfAbsent(file, _ -> new ArrayList<>());
    }

    @Override
    public void createSnapshot(Path file, String format, String name, Instant date)
        throws DriverException {
      synchronized (Machine.this) {
        List<String> kept = snapshotsOf(file, format);
        if (file.toString().equals(failSnapshotIn)) {
          throw new DriverException(DriverException.Kind.OUT_OF_SPACE, file + ": full");
        }
        mutate(() -> kept.add(name));
      }
    }

    @Override
    public void deleteSnapshot(Path file, String format, String name) throws DriverException {
      synchronized (Machine.this) {
        List<String> kept = snapshotsOf(file, format);
        if (!kept.contains(name)) {
          throw new DriverException(DriverException.Kind.NOT_FOUND, file + ": no " + name);
        }
        mutate(() -> kept.remove(name));
      }
    }

    @Override
    public void applySnapshot(Path file, String format, String name) throws DriverException {
      synchronized (Machine.this) {
        if (!snapshotsOf(file, format).contains(name)) {
          throw new DriverException(DriverException.Kind.NOT_FOUND, file + ": no " + name);
        }
        mutate(() -> applied.add(file + " " + name));
      }
    }

    @Override
    public ImageSizes sizes(Path file, String format) throws DriverException {
      return new ImageSizes(open(file, format).size(), 65536, 196608);
    }

    @Override
    public ByteBuffer peek(Path file, long offset, int length) {
      return ByteBuffer.allocate(length);
    }

    @Override
    public void publish(Path temporary, Path file) throws DriverException {
      synchronized (Machine.this) {
        alive();
        FakeImage image = images.get(temporary);
        if (image == null) {
          throw new DriverException(DriverException.Kind.MISSING_FILE, temporary + ": missing");
        }
        if (images.containsKey(file) || others.containsKey(file)) {
          throw new DriverException(DriverException.Kind.GENERIC, file + ": File exists");
        }
        mutate(() -> {
          images.remove(temporary);
          images.put(file, image);
        });
      }
    }

    @Override
    public String identity(Path file) throws DriverException {
      synchronized (Machine.this) {
        alive();
        return String.valueOf(System.identityHashCode(open(file)));
      }
    }

    @Override
    public void delete(Path file, String identity) throws DriverException {
      synchronized (Machine.this) {
        if (!identity(file).equals(identity)) {
          throw new DriverException(DriverException.Kind.GENERIC, file + ": another file");
        }
        delete(file);
      }
    }

    private FakeImage open(Path file) throws DriverException {
      FakeImage image = images.get(file);
      if (image == null) {
        throw new DriverException(DriverException.Kind.MISSING_FILE, file + ": missing");
      }
      return image;
    }

    @Override
    public void delete(Path file) throws DriverException {
      synchronized (Machine.this) {
        alive();
        if (!images.containsKey(file)) {
          throw new DriverException(DriverException.Kind.MISSING_FILE, file + ": missing");
        }
        mutate(() -> images.remove(file));
      }
    }

    void markComplete(Path file) {
      synchronized (Machine.this) {
        alive();
        FakeImage image = images.get(file);
        if (image != null) {
          images.put(file, new FakeImage(image.format(), image.size(), image.backing(), true));
        }
      }
    }

    Map<String, BitmapState> bitmapsOf(Path file) {
      synchronized (Machine.this) {
        alive();
        return bitmaps.computeIfAbsent(file, _ -> new TreeMap<>());
      }
    }
  }
}
