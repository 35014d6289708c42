// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThatCode;

import java.nio.file.Path;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class StartupTrainingTest {
  @TempDir Path folder;

  /// A command that changed would silently cost the cache that the build makes.
  @ParameterizedTest
  @ValueSource(strings = {"image", "serve"})
  void everyCommandThatTheCacheIsMadeFromStillWorks(String kind) {
    assertThatCode(() -> StartupTraining.main(new String[] {kind, folder.toString()}))
        .doesNotThrowAnyException();
  }
}
