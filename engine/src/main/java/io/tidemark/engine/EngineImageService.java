// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.ImageSizes;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/// Image files by the engine's own formats. Holds nothing open between calls; any thread may call.
public final class EngineImageService implements ImageService {
  public EngineImageService() {}

  @Override
  public Optional<FileStatus> status(Path file) throws DriverException {
    throw new UnsupportedOperationException();
  }

  @Override
  public Image inspect(Path file, String format) throws DriverException {
    throw new UnsupportedOperationException();
  }

  @Override
  public List<Image> chain(Path file, String format) throws DriverException {
    throw new UnsupportedOperationException();
  }

  @Override
  public String probe(Path file) throws DriverException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void create(Path file, String format, long virtualSizeBytes, Optional<Backing> backing)
      throws DriverException {
    throw new UnsupportedOperationException();
  }

  @Override
  public ImageSizes sizes(Path file, String format) throws DriverException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void publish(Path temporary, Path file) throws DriverException {
    throw new UnsupportedOperationException();
  }

  @Override
  public void delete(Path file) throws DriverException {
    throw new UnsupportedOperationException();
  }
}
