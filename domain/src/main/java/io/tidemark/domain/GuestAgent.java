// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// The guest's agent, which a domain without a CPU does not have.
final class GuestAgent {
  private static final String CHANNEL = "org.qemu.guest_agent.0";

  private GuestAgent() {}

  /// Refuses what `flags` would have the agent do. Called with the domain's lock held.
  static void refuse(DomainLife domain, int flags) throws LibvirtException {
    if (!Flags.has(flags, Flags.SHUTDOWN_GUEST_AGENT)) {
      return;
    }
    if (domain.runningSession().isEmpty()) {
      throw ErrorCode.OPERATION_INVALID.because("domain is not running");
    }
    throw missing(domain);
  }

  /// Why it cannot be asked. Called with the domain's lock held.
  static LibvirtException missing(DomainLife domain) {
    if (domain.state().isPaused()) {
      return ErrorCode.OPERATION_INVALID.because("domain is not running");
    }
    boolean channel =
        domain.definition().stream()
            .flatMap(definition -> definition.root().child("devices").stream())
            .flatMap(devices -> devices.children("channel").stream())
            .flatMap(found -> found.child("target").stream())
            .anyMatch(target -> target.attribute("name").equals(CHANNEL));
    return channel
        ? ErrorCode.AGENT_UNRESPONSIVE.because("QEMU guest agent is not connected")
        : ErrorCode.ARGUMENT_UNSUPPORTED.because("QEMU guest agent is not configured");
  }
}
