// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.Optional;

/// What a change concerns: the running domain, its persistent definition, or both.
///
/// Spec: libvirt `virDomainModificationImpact`.
///
/// @param live the run that is changed
/// @param config the definition that is changed
record Impact(Optional<Session> live, Optional<Definition> config) {
  static final int LIVE = 1;
  static final int CONFIG = 2;

  /// Refuses a question about both.
  static void requireOne(int flags) throws LibvirtException {
    Flags.exclusive(
        flags,
        LIVE,
        "VIR_DOMAIN_AFFECT_LIVE",
        CONFIG,
        "VIR_DOMAIN_AFFECT_CONFIG",
        ErrorDomain.DOMAIN);
  }

  /// Neither bit given means the running domain, or the definition when it does not run.
  static Impact of(DomainLife domain, int flags) throws LibvirtException {
    Optional<Session> running = domain.runningSession();
    boolean either = (flags & (LIVE | CONFIG)) != 0;
    boolean live = either ? Flags.has(flags, LIVE) : running.isPresent();
    boolean config = either ? Flags.has(flags, CONFIG) : running.isEmpty();
    if (live && running.isEmpty()) {
      throw DomainLife.notRunning();
    }
    Optional<Definition> definition = domain.persistentDefinition();
    if (config && definition.isEmpty()) {
      throw ErrorCode.OPERATION_INVALID.in(
          ErrorDomain.DOMAIN, "transient domains do not have any persistent config");
    }
    return new Impact(
        live ? running : Optional.empty(),
        config ? definition.map(Definition::copy) : Optional.empty());
  }
}
