// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.ImageService.Backing;
import io.tidemark.domain.spi.ImageService.FileKind;
import io.tidemark.domain.spi.ImageService.FileStatus;
import io.tidemark.domain.spi.ImageService.Image;
import io.tidemark.domain.spi.ImageSizes;
import java.io.IOException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class EngineImageServiceTest {
  private static final long SIZE = 1 << 20;

  private final EngineImageService images = new EngineImageService();
  @TempDir private Path dir;

  @Test
  void tellsTheChainByRecordedFormats() throws IOException {
    images.create(file("base.raw"), "raw", SIZE, Optional.empty());
    images.create(file("mid.qcow2"), "qcow2", SIZE, backing("base.raw", "raw"));
    images.create(file("top.qcow2"), "qcow2", SIZE, backing(file("mid.qcow2").toString(), "qcow2"));

    var chain = images.chain(file("top.qcow2"), "qcow2");

    assertThat(chain).extracting(Image::format).containsExactly("qcow2", "qcow2", "raw");
    assertThat(chain)
        .extracting(Image::file)
        .containsExactly(file("top.qcow2"), file("mid.qcow2"), file("base.raw"));
    assertThat(chain).extracting(Image::virtualSizeBytes).containsOnly(SIZE);
    assertThat(chain.get(1).backing()).contains(new Backing("base.raw", Optional.of("raw")));
    assertThat(chain.get(1).backingPath()).contains(file("base.raw"));
  }

  @Test
  void namesTheBackingFileThatIsMissing() throws IOException {
    images.create(file("base.raw"), "raw", SIZE, Optional.empty());
    images.create(file("top.qcow2"), "qcow2", SIZE, backing("base.raw", "raw"));
    images.delete(file("base.raw"));

    refuses(
        () -> images.chain(file("top.qcow2"), "qcow2"),
        Kind.MISSING_FILE,
        file("base.raw") + ": no such file, backing file of " + file("top.qcow2"));
  }

  @Test
  void refusesAChainThatMeetsAFileTwice() throws IOException {
    images.create(file("b.qcow2"), "qcow2", SIZE, backing("a.qcow2", "qcow2"));
    images.create(file("a.qcow2"), "qcow2", SIZE, backing("b.qcow2", "qcow2"));

    refuses(
        () -> images.chain(file("a.qcow2"), "qcow2"),
        Kind.GENERIC,
        "the backing chain is a loop, it meets " + file("a.qcow2") + " twice");
  }

  @Test
  void neverGuessesAnUnrecordedBackingFormat() throws IOException {
    images.create(file("base.raw"), "raw", SIZE, Optional.empty());
    images.create(
        file("top.qcow2"), "qcow2", SIZE, Optional.of(new Backing("base.raw", Optional.empty())));

    refuses(() -> images.chain(file("top.qcow2"), "qcow2"), Kind.UNSUPPORTED, "is not recorded");
  }

  @Test
  void tellsWhatIsNotAnImageOfItsFormat() throws IOException {
    Files.write(file("a.qcow2"), new byte[4096]);

    refuses(() -> images.inspect(file("a.qcow2"), "qcow2"), Kind.CORRUPT_IMAGE, "a.qcow2");
    refuses(() -> images.inspect(file("b.qcow2"), "qcow2"), Kind.MISSING_FILE, "b.qcow2");
  }

  @Test
  void tellsWhatStandsUnderAName() throws IOException {
    Files.writeString(file("a"), "four");
    Files.createSymbolicLink(file("link"), file("a"));
    Files.createSymbolicLink(file("dangling"), file("none"));

    assertThat(images.status(file("a"))).contains(new FileStatus(FileKind.REGULAR, 4));
    assertThat(images.status(file("link"))).contains(new FileStatus(FileKind.REGULAR, 4));
    assertThat(images.status(dir)).contains(new FileStatus(FileKind.DIRECTORY, 0));
    assertThat(images.status(file("none"))).isEmpty();
    assertThat(images.status(file("dangling"))).isEmpty();
    refuses(() -> images.status(file("no/such")), Kind.MISSING_FILE, "no such folder");
    refuses(() -> images.status(file("a/b")), Kind.MISSING_FILE, "a/b");
  }

  @Test
  void probesByTheBytes() throws IOException {
    images.create(file("a"), "qcow2", SIZE, Optional.empty());
    Files.write(file("b"), new byte[512]);

    assertThat(images.probe(file("a"))).isEqualTo("qcow2");
    assertThat(images.probe(file("b"))).isEqualTo("raw");
  }

  @Test
  void tellsBlocksTakenAsAllocation() throws IOException {
    images.create(file("a.raw"), "raw", SIZE, Optional.empty());

    // Its first block is written.
    assertThat(images.sizes(file("a.raw"), "raw")).isEqualTo(new ImageSizes(SIZE, 4096, SIZE));
  }

  @Test
  void createsInAnEmptyFileAndNotInAnother() throws IOException {
    Files.createFile(file("empty"));
    images.create(file("empty"), "qcow2", SIZE, Optional.empty());
    assertThat(images.inspect(file("empty"), "qcow2").virtualSizeBytes()).isEqualTo(SIZE);

    Files.writeString(file("full"), "kept");
    refuses(
        () -> images.create(file("full"), "raw", SIZE, Optional.empty()),
        Kind.GENERIC,
        "not empty");
    assertThat(file("full")).hasContent("kept");
  }

  @Test
  void publishesUnderAFreeNameOnly() throws IOException {
    Files.writeString(file("t.part"), "backup");
    images.publish(file("t.part"), file("t"));
    assertThat(file("t")).hasContent("backup");
    assertThat(file("t.part")).doesNotExist();

    Files.writeString(file("u.part"), "other");
    refuses(() -> images.publish(file("u.part"), file("t")), Kind.GENERIC, "is there already");
    assertThat(file("t")).hasContent("backup");
    assertThat(file("u.part")).hasContent("other");
  }

  @Test
  void publishesWhereTheFileSystemCannotRenameWithoutReplacing() throws IOException {
    Files.writeString(file("t.part"), "backup");
    EngineImageService.linkAndUnlink(file("t.part"), file("t"), dir);
    assertThat(file("t")).hasContent("backup");
    assertThat(file("t.part")).doesNotExist();

    Files.writeString(file("u.part"), "other");
    assertThatThrownBy(() -> EngineImageService.linkAndUnlink(file("u.part"), file("t"), dir))
        .isInstanceOf(FileAlreadyExistsException.class);
    assertThat(file("t")).hasContent("backup");
  }

  @Test
  void publishesWithinOneFolderOnly() throws IOException {
    Files.createDirectory(file("sub"));
    Files.writeString(file("t.part"), "backup");

    refuses(
        () -> images.publish(file("t.part"), file("sub").resolve("t")),
        Kind.GENERIC,
        "not in the folder");
  }

  @Test
  void deletesRegularFilesOnly() throws IOException {
    Files.writeString(file("a"), "x");
    Files.createSymbolicLink(file("link"), file("a"));
    Files.createDirectory(file("folder"));

    refuses(() -> images.delete(file("link")), Kind.GENERIC, "not a regular file");
    refuses(() -> images.delete(file("folder")), Kind.GENERIC, "not a regular file");
    refuses(() -> images.delete(file("none")), Kind.MISSING_FILE, "no such file");
    images.delete(file("a"));
    assertThat(file("a")).doesNotExist();
  }

  @Test
  void deletesTheFileOfAnIdentityOnly() throws IOException {
    Files.writeString(file("a"), "x");
    String identity = images.identity(file("a"));
    Files.writeString(file("a"), "written since");
    Files.move(file("a"), file("b"));
    Files.writeString(file("a"), "another");

    refuses(() -> images.delete(file("a"), identity), Kind.GENERIC, "is another file");
    refuses(() -> images.delete(file("none"), identity), Kind.MISSING_FILE, "no such file");
    assertThat(file("a")).hasContent("another");
    images.delete(file("b"), identity);
    assertThat(file("b")).doesNotExist();
  }

  private Path file(String name) {
    return dir.resolve(name);
  }

  private static Optional<Backing> backing(String name, String format) {
    return Optional.of(new Backing(name, Optional.of(format)));
  }

  private static void refuses(ThrowingCallable call, Kind kind, String text) {
    assertThatThrownBy(call)
        .isInstanceOfSatisfying(DriverException.class, e -> assertThat(e.kind()).isEqualTo(kind))
        .hasMessageContaining(text);
  }
}
