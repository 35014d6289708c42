// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.List;

/// A checkpoint of a domain by its name; one that was deleted meanwhile answers with "no domain
/// checkpoint".
public final class Checkpoint {
  Checkpoint() {}

  public String name() {
    throw new UnsupportedOperationException();
  }

  public Domain domain() {
    throw new UnsupportedOperationException();
  }

  public Checkpoint parent(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  /// virDomainCheckpointListAllChildren.
  public List<Checkpoint> children(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public String xmlDesc(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }

  public void delete(int flags) throws LibvirtException {
    throw new UnsupportedOperationException();
  }
}
