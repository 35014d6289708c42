// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.List;

/// A snapshot of a domain by its name; one that was deleted meanwhile answers with "no domain
/// snapshot".
public final class Snapshot {
  private final SnapshotVerbs verbs;
  private final String name;

  Snapshot(SnapshotVerbs verbs, String name) {
    this.verbs = verbs;
    this.name = name;
  }

  public String name() {
    return name;
  }

  public Domain domain() {
    return verbs.domain();
  }

  public Snapshot parent(int flags) throws LibvirtException {
    return verbs.parent(name, flags);
  }

  /// virDomainSnapshotListAllChildren.
  public List<Snapshot> children(int flags) throws LibvirtException {
    return verbs.children(name, flags, "qemuDomainSnapshotListAllChildren");
  }

  /// virDomainSnapshotNumChildren and virDomainSnapshotListChildrenNames.
  public List<String> childNames(int flags) throws LibvirtException {
    return verbs.children(name, flags, "qemuDomainSnapshotNumChildren").stream()
        .map(Snapshot::name)
        .toList();
  }

  public String xmlDesc(int flags) throws LibvirtException {
    return verbs.xmlDesc(name, flags);
  }

  public boolean isCurrent(int flags) throws LibvirtException {
    return verbs.isCurrent(name, flags);
  }

  public boolean hasMetadata(int flags) throws LibvirtException {
    return verbs.hasMetadata(name, flags);
  }

  public void delete(int flags) throws LibvirtException {
    verbs.delete(name, flags);
  }

  /// virDomainRevertToSnapshot.
  public void revert(int flags) throws LibvirtException {
    verbs.revert(name, flags);
  }
}
