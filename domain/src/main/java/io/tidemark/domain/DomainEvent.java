// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.RequestFailure;
import java.util.List;
import java.util.Optional;

/// What happened to a domain, one case for each libvirt event id that is sent.
public sealed interface DomainEvent {
  /// The domain at that moment: the id of a domain that just stopped is still the old one.
  DomainRef domain();

  /// Event id 0.
  record LifecycleChanged(DomainRef domain, Lifecycle change) implements DomainEvent {}

  /// Event id 8, always directly before [BlockJob2] of the same moment.
  ///
  /// @param path source file of the disk; after a pivot the new one
  record BlockJob(DomainRef domain, String path, BlockJobType type, BlockJobStatus status)
      implements DomainEvent {}

  /// Event id 16.
  ///
  /// @param target `vda`
  record BlockJob2(DomainRef domain, String target, BlockJobType type, BlockJobStatus status)
      implements DomainEvent {}

  /// Event id 1.
  record Rebooted(DomainRef domain) implements DomainEvent {}

  /// Event ids 4 and 6, one after the other.
  ///
  /// @param path of the disk's active layer
  record IoError(
      DomainRef domain, String path, String alias, RequestFailure.Action action, boolean noSpace)
      implements DomainEvent {}

  /// Event id 9: a disk that was not there when its domain started, and need not be.
  ///
  /// @param path of the disk's source
  /// @param reason 0 its drive is empty, 1 it is not plugged in
  record DiskChanged(DomainRef domain, String path, String alias, int reason)
      implements DomainEvent {
    static DiskChanged of(DomainRef domain, Launch.Missing missing) {
      DiskElement disk = missing.disk();
      return new DiskChanged(
          domain,
          disk.source().orElse(""),
          DiskNames.alias(disk.target(), disk.bus()),
          missing.reason());
    }
  }

  /// Event id 10.
  ///
  /// @param alias of the drive
  /// @param reason 0 opened, 1 closed
  record TrayChanged(DomainRef domain, String alias, int reason) implements DomainEvent {}

  /// Event id 15.
  record DeviceRemoved(DomainRef domain, String alias) implements DomainEvent {}

  /// Event id 17.
  record Tunable(DomainRef domain, List<TypedParam> params) implements DomainEvent {}

  /// Event id 19.
  record DeviceAdded(DomainRef domain, String alias) implements DomainEvent {}

  /// Event id 23.
  ///
  /// @param type virDomainMetadataType
  /// @param uri of the namespace; absent for a title or a description
  record MetadataChanged(DomainRef domain, int type, Optional<String> uri) implements DomainEvent {}

  /// Event id 24.
  ///
  /// @param device `vda` or `vda[N]`
  /// @param path of the image
  /// @param excess bytes beyond the threshold
  record BlockThreshold(DomainRef domain, String device, String path, long threshold, long excess)
      implements DomainEvent {}

  /// Event id 21.
  record JobCompleted(DomainRef domain, List<TypedParam> params) implements DomainEvent {}
}
