// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.Domains;
import io.tidemark.domain.LibvirtException;
import io.tidemark.domain.Snapshot;
import io.tidemark.domain.SnapshotVerbs;
import io.tidemark.rpc.CallTable;
import io.tidemark.rpc.Calls.Nothing;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.Replies;
import io.tidemark.rpc.Wire;
import java.util.List;

/// Calls about snapshots.
final class SnapshotCalls {
  private final Domains domains;

  SnapshotCalls(Domains domains) {
    this.domains = domains;
  }

  private SnapshotVerbs of(Wire.Domain dom) throws LibvirtException {
    return domains.resolve(Convert.ref(dom)).snapshots();
  }

  private Snapshot find(Wire.Snapshot snapshot) throws LibvirtException {
    return of(snapshot.dom()).lookupByName(snapshot.name(), 0);
  }

  void addTo(CallTable<Client> table) {
    addVerbsTo(table);
    addListsTo(table);
    addQuestionsTo(table);
  }

  private void addVerbsTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_SNAPSHOT_CREATE_XML,
            (_, call) -> reply(of(call.dom()).create(call.text(), call.flags())))
        .on(
            Remote.DOMAIN_SNAPSHOT_DELETE,
            (_, call) -> done(() -> find(call.snapshot()).delete(call.flags())))
        .on(
            Remote.DOMAIN_REVERT_TO_SNAPSHOT,
            (_, call) -> done(() -> find(call.snapshot()).revert(call.flags())));
  }

  private void addListsTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_LIST_ALL_SNAPSHOTS,
            (_, call) -> list(of(call.dom()).list(call.flags()), call.needResults()))
        .on(
            Remote.DOMAIN_SNAPSHOT_LIST_ALL_CHILDREN,
            (_, call) -> list(find(call.snapshot()).children(call.flags()), call.needResults()))
        .on(
            Remote.DOMAIN_SNAPSHOT_NUM,
            (_, call) -> new Replies.Int(of(call.dom()).names(call.flags()).size()))
        .on(
            Remote.DOMAIN_SNAPSHOT_LIST_NAMES,
            (_, call) -> names(of(call.dom()).names(call.flags()), call.most()))
        .on(
            Remote.DOMAIN_SNAPSHOT_NUM_CHILDREN,
            (_, call) -> new Replies.Int(find(call.snapshot()).childNames(call.flags()).size()))
        .on(
            Remote.DOMAIN_SNAPSHOT_LIST_CHILDREN_NAMES,
            (_, call) -> names(find(call.snapshot()).childNames(call.flags()), call.most()));
  }

  private void addQuestionsTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_SNAPSHOT_LOOKUP_BY_NAME,
            (_, call) -> reply(of(call.dom()).lookupByName(call.text(), call.flags())))
        .on(
            Remote.DOMAIN_SNAPSHOT_CURRENT,
            (_, call) -> reply(of(call.dom()).current(call.flags())))
        .on(
            Remote.DOMAIN_HAS_CURRENT_SNAPSHOT,
            (_, call) -> flag(of(call.dom()).hasCurrent(call.flags())))
        .on(
            Remote.DOMAIN_SNAPSHOT_GET_PARENT,
            (_, call) -> reply(find(call.snapshot()).parent(call.flags())))
        .on(
            Remote.DOMAIN_SNAPSHOT_GET_XML_DESC,
            (_, call) -> new Replies.Text(find(call.snapshot()).xmlDesc(call.flags())))
        .on(
            Remote.DOMAIN_SNAPSHOT_IS_CURRENT,
            (_, call) -> flag(find(call.snapshot()).isCurrent(call.flags())))
        .on(
            Remote.DOMAIN_SNAPSHOT_HAS_METADATA,
            (_, call) -> flag(find(call.snapshot()).hasMetadata(call.flags())));
  }

  private static Nothing done(DomainCalls.Act act) throws LibvirtException {
    return DomainCalls.done(act);
  }

  private static Replies.Int flag(boolean value) {
    return new Replies.Int(value ? 1 : 0);
  }

  private static Replies.Names names(List<String> names, int most) {
    return new Replies.Names(names.stream().limit(Math.max(0, most)).toList());
  }

  private static Replies.Snapshot reply(Snapshot snapshot) {
    return new Replies.Snapshot(Convert.wire(snapshot));
  }

  private static Replies.Snapshots list(List<Snapshot> found, int needResults) {
    return new Replies.Snapshots(
        needResults == 0 ? List.of() : found.stream().map(Convert::wire).toList(), found.size());
  }
}
