// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.ImageBusyException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.util.Optional;

/// Error numbers of replies.
///
/// Spec: proto.md, "Error values".
enum NbdErrno {
  EPERM(1, "not permitted"),
  EIO(5, "input/output error"),
  ENOMEM(12, "out of memory"),
  EINVAL(22, "invalid request"),
  ENOSPC(28, "no space left"),
  EOVERFLOW(75, "request too large"),
  ENOTSUP(95, "not supported"),
  ESHUTDOWN(108, "server is shutting down");

  private final int number;
  private final String text;

  NbdErrno(int number, String text) {
    this.number = number;
    this.text = text;
  }

  int number() {
    return number;
  }

  /// What the peer is told: nothing about the host.
  String text() {
    return text;
  }

  /// The one mapping from failures of a node.
  static NbdErrno of(BlockException failure) {
    return switch (failure) {
      case OutOfSpaceException _ -> ENOSPC;
      case ReadOnlyNodeException _ -> EPERM;
      case UnsupportedImageException _ -> ENOTSUP;
      case CorruptImageException _, ImageBusyException _, TransportException _ -> EIO;
    };
  }

  static Optional<NbdErrno> ofNumber(int number) {
    for (NbdErrno errno : values()) {
      if (errno.number == number) {
        return Optional.of(errno);
      }
    }
    return Optional.empty();
  }
}
