// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// Stands in a [Drive]'s write path: copy-before-write, mirroring. Called on the guest's thread
/// with the request's range locked, so calls for overlapping ranges never run at once and come in
/// the order the disk sees them.
///
/// A filter never fails the guest: trouble with its own target is kept, and fails its job.
public interface WriteFilter {
  /// Before the disk changes. Copy-before-write saves old bytes here.
  default void before(GuestWrite write) {}

  /// After the disk changed, before the guest is acknowledged. Not called when the disk's own write
  /// failed, see [#failed].
  default void after(GuestWrite write) {}

  /// The disk's own write failed and may have changed any part of the range.
  default void failed(GuestWrite write) {}
}
