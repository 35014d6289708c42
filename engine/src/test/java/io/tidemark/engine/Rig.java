// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.OpenOptions;
import io.tidemark.domain.spi.DriveManners;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.DriverJobStatus;
import io.tidemark.domain.spi.DriverListener;
import io.tidemark.domain.spi.ImageService.Backing;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.RequestFailure;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.ModelDisk;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;

/// An engine in a folder: its images, a driver, what its listener heard.
final class Rig {
  static final long SIZE = 4 << 20;
  private static final long PATIENCE_NANOS = 60_000_000_000L;

  final Path dir;
  final EngineConfig config;
  final EmbeddedDriver driver;
  final EngineImageService images = new EngineImageService();
  final Statuses statuses = new Statuses();

  Rig(Path dir) {
    this.dir = dir;
    config = EngineConfig.of(dir.resolve("run"), dir.resolve("scratch"));
    driver = new EmbeddedDriver(config);
  }

  /// What the driver told, in order.
  static final class Statuses implements DriverListener {
    private final List<String> heard = new ArrayList<>();

    @Override
    public synchronized void jobStatusChanged(String jobId, DriverJobStatus status) {
      heard.add(jobId + " " + status);
      notifyAll();
    }

    @Override
    public synchronized void writeThresholdPassed(String target, long threshold, long excess) {
      heard.add("threshold " + target + " " + threshold + " " + excess);
      notifyAll();
    }

    synchronized List<String> all() {
      return List.copyOf(heard);
    }

    @Override
    public synchronized void requestFailed(RequestFailure failure) {
      heard.add("failed " + failure.target() + " " + failure.action() + " " + failure.noSpace());
      notifyAll();
    }

    @Override
    public synchronized void stopped(String reason) {
      heard.add("stopped " + reason);
      notifyAll();
    }

    synchronized List<String> of(String jobId) {
      return heard.stream().filter(line -> line.startsWith(jobId + " ")).toList();
    }

    synchronized void await(String jobId, DriverJobStatus status) {
      await(jobId + " " + status);
    }

    /// Waits for a line that begins so.
    synchronized void await(String wanted) {
      long end = System.nanoTime() + PATIENCE_NANOS;
      while (heard.stream().noneMatch(line -> line.startsWith(wanted))) {
        long left = (end - System.nanoTime()) / 1_000_000;
        if (left <= 0) {
          throw new AssertionError("waited for " + wanted + ", heard " + heard);
        }
        try {
          wait(left);
        } catch (InterruptedException e) {
          throw new AssertionError(e);
        }
      }
    }
  }

  Path file(String name) {
    return dir.resolve(name);
  }

  /// A new image of [#SIZE] bytes, over one of the same folder or none.
  Path create(String name, String format, String... backingAndItsFormat) throws IOException {
    Optional<Backing> backing =
        backingAndItsFormat.length == 0
            ? Optional.empty()
            : Optional.of(new Backing(backingAndItsFormat[0], Optional.of(backingAndItsFormat[1])));
    images.create(file(name), format, SIZE, backing);
    return file(name);
  }

  static NodeSpec node(String name, Path file, String format) {
    return new NodeSpec(name, file, format, false, Optional.empty());
  }

  static NodeSpec node(String name, Path file, String format, NodeSpec backing) {
    return new NodeSpec(name, file, format, false, Optional.of(backing));
  }

  static NodeSpec base(String name, Path file, String format) {
    return new NodeSpec(name, file, format, true, Optional.empty());
  }

  static DriveSpec drive(String target, NodeSpec top) {
    return new DriveSpec(target, "virtio-" + target, top, false);
  }

  /// One whose guest is told of each failure.
  static DriveSpec reporting(String target, NodeSpec top) {
    DriveManners usual = DriveManners.USUAL;
    return new DriveSpec(
        target,
        "virtio-" + target,
        top,
        false,
        new DriveManners(
            DriveManners.OnError.REPORT,
            DriveManners.OnError.REPORT,
            usual.discard(),
            usual.zeroes()));
  }

  LaunchSpec spec(DriveSpec... drives) {
    return new LaunchSpec("vm", new UUID(1, 2), 1, List.of(drives), false);
  }

  RunningDomain launch(DriveSpec... drives) throws DriverException {
    return driver.launch(spec(drives), statuses);
  }

  /// The guest's way to a disk.
  NbdClient guest(String target) throws BlockException {
    return guest(target, ClientOptions.defaults());
  }

  NbdClient guest(String target, ClientOptions options) throws BlockException {
    return NbdClient.connect(NbdUri.unix(dir.resolve("run/guest/vm.sock"), target), options);
  }

  /// Opens an image with all beneath, to look at it.
  FormatNode open(Path file, String format) throws BlockException {
    return new ImageOpener(ImageOpener.Probing.REFUSED).open(file, format, OpenOptions.reading());
  }

  /// Fails unless an image and all beneath it hold what `model` does.
  void requireHolds(Path file, String format, ModelDisk model) throws BlockException {
    try (FormatNode node = open(file, format)) {
      model.holdsExactly(node);
    }
  }

  /// What an image and all beneath it hold.
  ModelDisk content(Path file, String format) throws BlockException {
    try (FormatNode node = open(file, format)) {
      return ModelDisk.of(node);
    }
  }

  /// Writes into an image that nobody has open.
  void fill(Path file, String format, long offset, byte[] bytes) throws BlockException {
    var opener = new ImageOpener(ImageOpener.Probing.REFUSED);
    try (FormatNode node = opener.open(file, format, OpenOptions.readWrite())) {
      node.write(offset, ByteBuffer.wrap(bytes));
      node.flush();
    }
  }

  static byte[] bytes(int length, int value) {
    byte[] bytes = new byte[length];
    java.util.Arrays.fill(bytes, (byte) value);
    return bytes;
  }

  static void refuses(ThrowingCallable call, Kind kind, String text) {
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(
            DriverException.class, e -> assertThat(e.kind()).as(e.getMessage()).isEqualTo(kind))
        .hasMessageContaining(text);
  }
}
