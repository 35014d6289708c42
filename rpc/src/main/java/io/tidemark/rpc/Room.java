// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

/// Placeholder while the room is being built.
final class Room {
  private Room() {}
}
