// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.spi.BitmapState;
import io.tidemark.domain.spi.CommitSpec;
import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriveStatistics;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverListener;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.ImageSizes;
import io.tidemark.domain.spi.JobState;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.MirrorSpec;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.RunningDomain;
import io.tidemark.domain.spi.StreamSpec;
import io.tidemark.domain.spi.ThrottleSpec;
import io.tidemark.domain.spi.TransactionAction;
import io.tidemark.domain.spi.ViewExportSpec;
import io.tidemark.domain.spi.ViewServerSpec;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CopyOnWriteArrayList;

/// Domains that run without anything running: enough for calls about life and for questions. Notes
/// what it was asked.
final class FakeDriver implements DomainDriver, ImageService {
  final List<String> asked = new CopyOnWriteArrayList<>();

  @Override
  public String domainType() {
    return "tidemark";
  }

  @Override
  public void check(LaunchSpec spec) {}

  @Override
  public RunningDomain launch(LaunchSpec spec, DriverListener listener) {
    asked.add("launch " + spec.name());
    return new FakeDomain(spec.name());
  }

  @Override
  public RunningDomain reattach(LaunchSpec spec, DriverListener listener) {
    asked.add("reattach " + spec.name());
    return new FakeDomain(spec.name());
  }

  @Override
  public Optional<FileStatus> status(Path file) {
    return Optional.of(new FileStatus(FileKind.REGULAR, 1 << 20));
  }

  @Override
  public boolean same(Path one, Path other) {
    return one.equals(other);
  }

  @Override
  public Image inspect(Path file, String format) {
    return new Image(file, format, 1 << 20, Optional.empty(), Optional.empty(), List.of());
  }

  @Override
  public List<Image> chain(Path file, String format) {
    return List.of(inspect(file, format));
  }

  @Override
  public String probe(Path file) {
    return "raw";
  }

  @Override
  public void create(Path file, String format, long size, Optional<Backing> backing) {}

  @Override
  public void createSnapshot(Path file, String format, String name, java.time.Instant date)
      throws DriverException {
    throw new DriverException(DriverException.Kind.UNSUPPORTED, "no snapshots");
  }

  @Override
  public void deleteSnapshot(Path file, String format, String name) throws DriverException {
    throw new DriverException(DriverException.Kind.UNSUPPORTED, "no snapshots");
  }

  @Override
  public void applySnapshot(Path file, String format, String name) throws DriverException {
    throw new DriverException(DriverException.Kind.UNSUPPORTED, "no snapshots");
  }

  @Override
  public ImageSizes sizes(Path file, String format) {
    return new ImageSizes(1 << 20, 4_096, 65_536);
  }

  @Override
  public ByteBuffer peek(Path file, long offset, int length) {
    return ByteBuffer.allocate(length);
  }

  @Override
  public void publish(Path temporary, Path file) {}

  @Override
  public void delete(Path file) {}

  @Override
  public void delete(Path file, String identity) {}

  @Override
  public String identity(Path file) {
    return "";
  }

  private final class FakeDomain implements RunningDomain {
    private final String name;

    FakeDomain(String name) {
      this.name = name;
    }

    private DriverException no() {
      return new DriverException(DriverException.Kind.UNSUPPORTED, "a fake has no jobs");
    }

    @Override
    public void addNode(NodeSpec node) throws DriverException {
      throw no();
    }

    @Override
    public void startViewServer(ViewServerSpec server) throws DriverException {
      throw no();
    }

    @Override
    public void exportView(ViewExportSpec export) throws DriverException {
      throw no();
    }

    @Override
    public void stopViewServer() {}

    @Override
    public void removeNode(String node) {}

    @Override
    public void addDrive(DriveSpec drive) throws DriverException {
      throw no();
    }

    @Override
    public void removeDrive(String target) throws DriverException {
      throw no();
    }

    @Override
    public void setThrottle(String target, Optional<ThrottleSpec> limits) throws DriverException {
      throw no();
    }

    @Override
    public void setWriteThreshold(String target, long bytes) throws DriverException {
      throw no();
    }

    @Override
    public void transaction(List<TransactionAction> actions) throws DriverException {
      throw no();
    }

    @Override
    public void startMirror(MirrorSpec mirror) throws DriverException {
      throw no();
    }

    @Override
    public void startStream(StreamSpec stream) throws DriverException {
      throw no();
    }

    @Override
    public void startCommit(CommitSpec commit) throws DriverException {
      throw no();
    }

    @Override
    public void changeBackingFile(String node, Optional<ImageService.Backing> backing)
        throws DriverException {
      throw no();
    }

    @Override
    public void completeJob(String id) throws DriverException {
      throw no();
    }

    @Override
    public void finalizeJob(String id) throws DriverException {
      throw no();
    }

    @Override
    public void cancelJob(String id) throws DriverException {
      throw no();
    }

    @Override
    public void dismissJob(String id) throws DriverException {
      throw no();
    }

    @Override
    public void setJobSpeed(String id, long bandwidthBytesPerSecond) throws DriverException {
      throw no();
    }

    @Override
    public List<JobState> jobs() {
      return List.of();
    }

    @Override
    public List<BitmapState> bitmaps(String target) {
      return List.of();
    }

    @Override
    public DriveStatistics statistics(String target) {
      return new DriveStatistics(1, 2, 3, 4, 5, 6, 7, 8, 0);
    }

    @Override
    public Optional<Trouble> trouble(String target) {
      return Optional.empty();
    }

    @Override
    public ImageSizes sizes(String target) {
      return new ImageSizes(1 << 20, 4_096, 65_536);
    }

    @Override
    public void resize(String target, long bytes) throws DriverException {
      throw no();
    }

    @Override
    public long virtualSize(String node) {
      return 1 << 20;
    }

    @Override
    public void suspend() {
      asked.add("suspend " + name);
    }

    @Override
    public void resume() {
      asked.add("resume " + name);
    }

    @Override
    public void stop() {
      asked.add("stop " + name);
    }

    @Override
    public void detach() {
      asked.add("detach " + name);
    }
  }
}
