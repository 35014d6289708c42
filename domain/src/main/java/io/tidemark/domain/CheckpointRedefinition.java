// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.List;
import java.util.Optional;

/// Checks of a checkpoint that a client describes instead of making one: after it kept the document
/// elsewhere, or to change what is remembered.
///
/// A document with a domain is aligned with that domain's disks, as when it was made; of one
/// without the disks are taken as they are named.
///
/// Spec: libvirt 9.0.0, `VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE`, measured.
record CheckpointRedefinition(
    DomainLife life, DomainContext context, MomentTree<CheckpointDocument> tree) {

  CheckpointDocument check(CheckpointDocument.Request request) throws LibvirtException {
    String name =
        request
            .name()
            .orElseThrow(() ->
                ErrorCode.XML_ERROR.in(
                    ErrorDomain.DOMAIN_CHECKPOINT, "a redefined checkpoint must have a name"));
    long made =
        request
            .past()
            .creationTime()
            .orElseThrow(() ->
                ErrorCode.INTERNAL_ERROR.in(
                    ErrorDomain.DOMAIN_CHECKPOINT,
                    "missing creationTime from existing checkpoint"));
    Optional<Definition> domain = Optional.empty();
    if (request.past().domain().isPresent()) {
      domain =
          Optional.of(
              Definition.parse(
                  Xml.write(request.past().domain().get()),
                  context.drivers().keySet(),
                  context.environment().uuids()));
    }
    checkParent(name, request.past().parent());
    if (domain.isPresent() && !domain.get().uuid().equals(life.uuid())) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN_CHECKPOINT,
          "definition for checkpoint %s must use uuid %s".formatted(name, life.uuid()));
    }
    List<CheckpointDocument.Disk> disks =
        domain.isPresent()
            ? CheckpointDocument.align(request, name, domain.get().disks())
            : asNamed(request, name);
    return new CheckpointDocument(
        name,
        request.description(),
        request.past().parent(),
        made,
        disks,
        domain.map(Definition::root));
  }

  private static List<CheckpointDocument.Disk> asNamed(
      CheckpointDocument.Request request, String name) {
    return request.disks().orElse(List.of()).stream()
        .map(disk -> new CheckpointDocument.Disk(disk.name(), disk.bitmapOr(name)))
        .toList();
  }

  private void checkParent(String name, Optional<String> parent) throws LibvirtException {
    if (parent.isEmpty()) {
      return;
    }
    if (parent.get().equals(name)) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN, "cannot set moment %s as its own parent".formatted(name));
    }
    Optional<CheckpointDocument> at = tree.find(parent.get());
    if (at.isEmpty()) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN, "parent %s for moment %s not found".formatted(parent.get(), name));
    }
    // Documents on disk may say anything of their parents: no way up is longer than the tree.
    for (int steps = tree.size(); at.isPresent() && steps > 0; steps--) {
      if (at.get().parent().filter(name::equals).isPresent()) {
        throw ErrorCode.INVALID_ARG.in(
            ErrorDomain.DOMAIN,
            "parent %s would create cycle to %s".formatted(at.get().name(), name));
      }
      at = tree.parent(at.get());
    }
  }
}
