// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

/// Placeholder while the room is being built.
final class Room {
  private Room() {}
}
