// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.io.IOException;

/// How many processors and how much memory a domain's definition speaks of. An engine without a CPU
/// has neither, so a change of a running domain changes what is shown of it, nothing else. Safe for
/// any thread.
///
/// Spec: libvirt 9.0.0 `virDomainSetVcpusFlags`, `virDomainSetMemoryFlags`, measured.
public final class SizeVerbs {
  private static final int MAXIMUM = 4;
  private static final int GUEST = 8;
  private static final int HOTPLUGGABLE = 16;

  private final DomainLife life;

  SizeVerbs(DomainLife life) {
    this.life = life;
  }

  /// virDomainGetVcpusFlags.
  public int vcpus(int flags) throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG | MAXIMUM | GUEST, "qemuDomainGetVcpusFlags");
    Impact.requireOne(flags);
    return life.locked(() -> {
      if (Flags.has(flags, GUEST)) {
        throw life.runningSession().isPresent()
            ? GuestAgent.missing(life)
            : ErrorCode.INVALID_ARG.because(
                "vCPU count provided by the guest agent can only be requested for live domains");
      }
      Impact impact = Impact.of(life, flags & ~MAXIMUM);
      Definition definition =
          impact
              .live()
              .map(running -> running.live().definition())
              .or(impact::config)
              .orElseThrow();
      return Flags.has(flags, MAXIMUM) ? definition.vcpus() : definition.currentVcpus();
    });
  }

  /// virDomainGetMaxVcpus: of a running domain only.
  public int maxVcpus() throws LibvirtException {
    return vcpus(Impact.LIVE | MAXIMUM);
  }

  /// virDomainSetVcpusFlags.
  public void setVcpus(int count, int flags) throws LibvirtException {
    Flags.check(
        flags,
        Impact.LIVE | Impact.CONFIG | MAXIMUM | GUEST | HOTPLUGGABLE,
        "qemuDomainSetVcpusFlags");
    if (count == 0) {
      throw notZero("nvcpus in virDomainSetVcpusFlags");
    }
    Flags.require(
        flags,
        MAXIMUM,
        "VIR_DOMAIN_VCPU_MAXIMUM",
        Impact.CONFIG,
        "VIR_DOMAIN_AFFECT_CONFIG",
        ErrorDomain.DOMAIN);
    life.run(() -> {
      if (Flags.has(flags, GUEST)) {
        throw life.runningSession().isPresent()
            ? GuestAgent.missing(life)
            : ErrorCode.OPERATION_INVALID.because("domain is not running");
      }
      Impact impact = Impact.of(life, flags & (Impact.LIVE | Impact.CONFIG));
      if (Flags.has(flags, MAXIMUM)) {
        if (impact.live().isPresent()) {
          throw ErrorCode.INVALID_ARG.because(
              "maximum vcpu count of a live domain can't be modified");
        }
        Definition config = impact.config().orElseThrow();
        config.vcpus(count, Math.min(config.currentVcpus(), count));
      } else {
        checkVcpus(impact, count);
        impact
            .live()
            .map(running -> running.live().definition())
            .ifPresent(live -> live.vcpus(live.vcpus(), count));
        impact.config().ifPresent(config -> config.vcpus(config.vcpus(), count));
      }
      keep(impact);
    });
  }

  private static void checkVcpus(Impact impact, int count) throws LibvirtException {
    if (impact.live().isPresent()) {
      checkVcpus(impact.live().get().live().definition(), "live", count);
    }
    if (impact.config().isPresent()) {
      checkVcpus(impact.config().get(), "persistent", count);
    }
  }

  private static void checkVcpus(Definition definition, String which, int count)
      throws LibvirtException {
    if (Integer.compareUnsigned(count, definition.vcpus()) > 0) {
      throw ErrorCode.INVALID_ARG.because(
          "requested vcpus is greater than max allowable vcpus for the %s domain: %s > %d"
              .formatted(which, Integer.toUnsignedString(count), definition.vcpus()));
    }
  }

  /// virDomainSetMemoryFlags.
  ///
  /// @param kib unsigned
  public void setMemory(long kib, int flags) throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG | MAXIMUM, "qemuDomainSetMemoryFlags");
    if (kib == 0) {
      throw notZero("memory in virDomainSetMemoryFlags");
    }
    life.run(() -> {
      Impact impact = Impact.of(life, flags & ~MAXIMUM);
      if (Flags.has(flags, MAXIMUM)) {
        if (impact.live().isPresent()) {
          throw ErrorCode.OPERATION_INVALID.because(
              "cannot resize the maximum memory on an active domain");
        }
        checkSize(kib);
        Definition config = impact.config().orElseThrow();
        config.memory(kib, Math.min(config.currentMemoryKib(), kib));
      } else {
        if (impact.live().isPresent()) {
          checkMemory(impact.live().get().live().definition(), kib);
        }
        if (impact.config().isPresent()) {
          checkMemory(impact.config().get(), kib);
        }
        impact
            .live()
            .map(running -> running.live().definition())
            .ifPresent(live -> live.memory(live.memoryKib(), kib));
        impact.config().ifPresent(config -> config.memory(config.memoryKib(), kib));
      }
      keep(impact);
    });
  }

  private static void checkMemory(Definition definition, long kib) throws LibvirtException {
    if (Long.compareUnsigned(kib, definition.memoryKib()) > 0) {
      throw ErrorCode.INVALID_ARG.because("cannot set memory higher than max memory");
    }
  }

  private static void checkSize(long kib) throws LibvirtException {
    if (Long.compareUnsigned(kib, Definition.MAX_MEMORY_KIB) > 0) {
      throw ErrorCode.OVERFLOW.in(
          ErrorDomain.DOMAIN, "value too large: " + Long.toUnsignedString(kib));
    }
  }

  private static LibvirtException notZero(String what) {
    return new LibvirtException(
        ErrorCode.INVALID_ARG, ErrorDomain.DOMAIN, what + " must not be zero");
  }

  private void keep(Impact impact) throws LibvirtException {
    if (impact.config().isPresent()) {
      try {
        life.stored().redefine(impact.config().get());
      } catch (IOException e) {
        throw life.upkeep().cannotWrite(e);
      }
    }
    impact.live().ifPresent(running -> life.stored().putLiveOrLog(running.live()));
  }
}
