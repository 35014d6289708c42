// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

/// A disk of a domain as a driver sees it.
///
/// @param target the guest device, `vda`; export name of the disk, and the drive's name in every
///   call
/// @param alias libvirt's device alias, `virtio-disk0`
/// @param top the active layer with its chain
/// @param readOnly the guest may not write
/// @param manners how requests of the guest are taken
public record DriveSpec(
    String target, String alias, NodeSpec top, boolean readOnly, DriveManners manners) {
  /// With the usual manners.
  public DriveSpec(String target, String alias, NodeSpec top, boolean readOnly) {
    this(target, alias, top, readOnly, DriveManners.USUAL);
  }
}
