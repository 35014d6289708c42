// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.StateStore;
import java.util.List;
import java.util.UUID;

/// All domains of a daemon. Safe for any thread.
///
/// Texts and numbers of what is thrown are libvirt's. Spec: libvirt 9.0.0, `virDomain*`.
public final class Domains {
  /// @param drivers one for each domain type that is served
  public Domains(
      StateStore state, ImageService images, List<DomainDriver> drivers, Environment environment) {
    throw new UnsupportedOperationException();
  }

  /// Registers for events of every domain, [#restore] included when called before it.
  public void addListener(DomainEventListener listener) {
    throw new UnsupportedOperationException();
  }

  public void removeListener(DomainEventListener listener) {
    throw new UnsupportedOperationException();
  }

  /// Reads the state store and takes up what ran when the last daemon ended. Called once, before
  /// clients are served. A domain that cannot be taken up is logged and shown shut off; only a
  /// store that cannot be read is an error.
  public void restore() throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// Lets go of every running domain for a restart of the daemon; their records stay.
  public void shutdown() {
    throw new UnsupportedOperationException();
  }

  /// virDomainDefineXMLFlags.
  public Domain defineXml(String xml, int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainCreateXML.
  ///
  /// @param connection identity of the client for `START_AUTODESTROY`, see [#connectionClosed]
  public Domain createXml(String xml, int flags, Object connection) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// Destroys the domains that were started with `START_AUTODESTROY` by this connection.
  public void connectionClosed(Object connection) {
    throw new UnsupportedOperationException();
  }

  public Domain lookupByName(String name) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public Domain lookupByUuid(UUID uuid) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public Domain lookupById(int id) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// The domain that a call names, as libvirt finds it: by uuid, the name is for the error text.
  public Domain resolve(DomainRef ref) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virConnectListAllDomains, in order of name.
  public List<Domain> list(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virConnectGetCapabilities.
  public String capabilities() {
    throw new UnsupportedOperationException();
  }
}
