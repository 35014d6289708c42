// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.List;

/// A checkpoint of a domain by its name; one that was deleted meanwhile answers with "no domain
/// checkpoint".
public final class Checkpoint {
  private final Domain domain;
  private final String name;

  Checkpoint(Domain domain, String name) {
    this.domain = domain;
    this.name = name;
  }

  public String name() {
    return name;
  }

  public Domain domain() {
    return domain;
  }

  public Checkpoint parent(int flags) throws LibvirtException {
    return domain.checkpointParent(name, flags);
  }

  /// virDomainCheckpointListAllChildren.
  public List<Checkpoint> children(int flags) throws LibvirtException {
    return domain.checkpointChildren(name, flags);
  }

  public String xmlDesc(int flags) throws LibvirtException {
    return domain.checkpointXmlDesc(name, flags);
  }

  public void delete(int flags) throws LibvirtException {
    domain.checkpointDelete(name, flags);
  }
}
