// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// Receives events of all domains; those of one domain in the order libvirt sends them.
///
/// Called with that domain's lock held: it puts the event into a queue and returns, and calls
/// nothing of [Domain]. An event that belongs to a call comes before the call returns.
@FunctionalInterface
public interface DomainEventListener {
  void happened(DomainEvent event);
}
