// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.ImageBusyException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.DriverException.Kind;
import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.NoSuchFileException;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/// The one mapping from the block room's failures to the driver port's.
final class DriverErrors {
  private DriverErrors() {}

  static DriverException of(BlockException failure) {
    return new DriverException(kindOf(failure), textOf(failure), failure);
  }

  /// Of a file operation that is not the block room's.
  static DriverException of(String text, IOException failure) {
    return new DriverException(Kind.GENERIC, text + ": " + textOf(failure), failure);
  }

  static DriverException notFound(String what, String name) {
    return new DriverException(Kind.NOT_FOUND, what + " " + name + " is not there");
  }

  static DriverException generic(String text) {
    return new DriverException(Kind.GENERIC, text);
  }

  private static Kind kindOf(BlockException failure) {
    return switch (failure) {
      case CorruptImageException _ -> Kind.CORRUPT_IMAGE;
      case ImageBusyException _ -> Kind.IMAGE_BUSY;
      case OutOfSpaceException _ -> Kind.OUT_OF_SPACE;
      case UnsupportedImageException _ -> Kind.UNSUPPORTED;
      case ReadOnlyNodeException _ -> Kind.GENERIC;
      case TransportException lost -> cannotBeOpened(lost) ? Kind.MISSING_FILE : Kind.GENERIC;
    };
  }

  private static boolean cannotBeOpened(TransportException failure) {
    @Nullable Throwable cause = failure.getCause();
    return cause instanceof NoSuchFileException || cause instanceof AccessDeniedException;
  }

  static String textOf(Throwable failure) {
    return Objects.requireNonNullElse(failure.getMessage(), failure.getClass().getSimpleName());
  }
}
