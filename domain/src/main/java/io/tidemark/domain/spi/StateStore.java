// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.io.IOException;
import java.util.List;

/// Where definitions, checkpoints and live records are kept. Each document is replaced whole and is
/// durable when the call returns: written to a temporary name, synced, renamed, folder synced.
/// Order of a write path is its caller's.
public interface StateStore {
  /// Kinds of document. Those of the state folder survive a reboot; live records are of the run
  /// folder.
  enum Kind {
    /// One per persistent domain, key: the domain's name.
    DEFINITION,
    /// One per checkpoint, key: `domain/checkpoint`.
    CHECKPOINT,
    /// One per snapshot, key: `domain/snapshot`.
    SNAPSHOT,
    /// One per running domain, key: the domain's name. The single commit point of every change to a
    /// running domain.
    LIVE
  }

  /// @param key as it was put
  record Document(String key, String xml) {}

  List<Document> all(Kind kind) throws IOException;

  void put(Kind kind, String key, String xml) throws IOException;

  /// Removing what is not there is no error.
  void remove(Kind kind, String key) throws IOException;
}
