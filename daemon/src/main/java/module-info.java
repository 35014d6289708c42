// SPDX-License-Identifier: Apache-2.0
/// The daemon: sockets, access, procedure to domain call, event to message, state folder.
@org.jspecify.annotations.NullMarked
module io.tidemark.daemon {
  requires static org.jspecify;
  requires transitive io.tidemark.domain;
  requires io.tidemark.engine;
  requires io.tidemark.rpc;

  exports io.tidemark.daemon;
}
