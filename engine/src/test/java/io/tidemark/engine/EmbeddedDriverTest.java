// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import io.tidemark.domain.spi.LaunchSpec;
import io.tidemark.domain.spi.NodeSpec;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import org.junit.jupiter.api.Test;

class EmbeddedDriverTest {
  private final EmbeddedDriver driver =
      new EmbeddedDriver(EngineConfig.of(Path.of("/run/tidemark"), Path.of("/var/tmp")));

  @Test
  void acceptsADomainWhoseImagesAreNotThereYet() {
    assertThatCode(() -> driver.check(domain("vm", disk("vda", "/none.qcow2", "qcow2"))))
        .doesNotThrowAnyException();
  }

  @Test
  void refusesANameWhoseSocketDoesNotFit() {
    refuses(domain("n".repeat(100)), Kind.GENERIC, "a socket address holds 107");
  }

  @Test
  void refusesATargetThatIsThereTwice() {
    refuses(
        domain("vm", disk("vda", "/a", "raw"), disk("vda", "/b", "raw")),
        Kind.GENERIC,
        "target vda is there twice");
  }

  @Test
  void refusesAFormatItDoesNotKnow() {
    refuses(domain("vm", disk("vda", "/a", "vmdk")), Kind.UNSUPPORTED, "format vmdk");
  }

  @Test
  void refusesARelativePath() {
    refuses(domain("vm", disk("vda", "a", "raw")), Kind.GENERIC, "not an absolute path");
  }

  @Test
  void refusesAWritableDiskOnAReadOnlyImage() {
    var node = new NodeSpec("n1", Path.of("/a"), "raw", true, Optional.empty());
    refuses(
        domain("vm", new DriveSpec("vda", "virtio-disk0", node, false)),
        Kind.GENERIC,
        "is read-only");
  }

  private void refuses(LaunchSpec spec, Kind kind, String text) {
    assertThatThrownBy(() -> driver.check(spec))
        .isInstanceOfSatisfying(DriverException.class, e -> assertThat(e.kind()).isEqualTo(kind))
        .hasMessageContaining(text);
  }

  private static DriveSpec disk(String target, String file, String format) {
    return new DriveSpec(
        target,
        "alias-" + target,
        new NodeSpec("node-" + file, Path.of(file), format, false, Optional.empty()),
        false);
  }

  private static LaunchSpec domain(String name, DriveSpec... drives) {
    return new LaunchSpec(name, new UUID(1, 2), 1, List.of(drives), false);
  }
}
