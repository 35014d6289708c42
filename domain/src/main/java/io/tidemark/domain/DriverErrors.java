// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;

/// The one mapping from what a driver or the image service could not do to what clients are told.
final class DriverErrors {
  private DriverErrors() {}

  /// libvirt passes on what the hypervisor says, as an internal error of the driver.
  ///
  /// @param action what was tried: `start block copy`
  static LibvirtException toClient(String action, DriverException failure) {
    return new LibvirtException(
        ErrorCode.INTERNAL_ERROR,
        ErrorDomain.HYPERVISOR,
        "internal error: unable to %s: %s".formatted(action, failure.getMessage()),
        failure);
  }

  /// Why a job failed, in the words of the system where it has some.
  static String reason(DriverException failure) {
    return switch (failure.kind()) {
      case OUT_OF_SPACE -> "No space left on device";
      case MISSING_FILE -> "No such file or directory";
      case GENERIC,
          NOT_FOUND,
          JOB_STATE,
          IMAGE_BUSY,
          CORRUPT_IMAGE,
          UNSUPPORTED,
          INCONSISTENT_BITMAP ->
          String.valueOf(failure.getMessage());
    };
  }
}
