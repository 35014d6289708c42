// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.List;
import java.util.Optional;
import java.util.Set;

/// What a domain may be: disks, and nothing of a machine.
///
/// Spec: libvirt 9.0.0 `docs/formatdomaincaps.rst`; refusals as measured.
///
/// @param types of domains that are served
record DomainCapabilities(Set<String> types) {
  /// As many processors a definition may usefully speak of: what libvirt says of QEMU's machines.
  private static final int MAX_VCPUS = 255;

  private static final List<String> NOT_THERE =
      List.of("graphics", "video", "hostdev", "rng", "filesystem", "tpm", "redirdev", "channel");

  int maxVcpus(Optional<String> type) throws LibvirtException {
    if (type.isPresent() && !types.contains(type.get())) {
      throw ErrorCode.INVALID_ARG.because("unknown type '%s'".formatted(type.get()));
    }
    return MAX_VCPUS;
  }

  /// The program that runs domains: this one.
  private static String emulator() {
    return ProcessHandle.current().info().command().orElse("/");
  }

  String document(
      Optional<String> emulator,
      Optional<String> arch,
      Optional<String> machine,
      Optional<String> type)
      throws LibvirtException {
    String host = Domains.architecture();
    if (arch.filter(asked -> !asked.equals(host)).isPresent()) {
      throw ErrorCode.INVALID_ARG.because("unknown architecture: " + arch.get());
    }
    if (type.filter(asked -> !types.contains(asked)).isPresent()) {
      throw ErrorCode.INVALID_ARG.because("unknown virttype: " + type.get());
    }
    if (emulator.filter(asked -> !asked.equals(emulator())).isPresent()) {
      throw ErrorCode.SYSTEM_ERROR.because(
          "Cannot check QEMU binary %s: No such file or directory".formatted(emulator.get()));
    }
    if (machine.isPresent()) {
      throw ErrorCode.INVALID_ARG.because(
          "the machine '%s' is not supported by emulator '%s'"
              .formatted(machine.get(), emulator()));
    }
    return Xml.write(
        document(type.orElseGet(() -> types.stream().sorted().findFirst().orElse(""))));
  }

  private XmlElement document(String type) {
    XmlElement root = new XmlElement("domainCapabilities");
    root.add("path", emulator());
    root.add("domain", type);
    root.add("arch", Domains.architecture());
    root.add("vcpu").attribute("max", MAX_VCPUS);
    root.add("iothreads").attribute("supported", "no");
    root.add("os").attribute("supported", "no");
    root.add("cpu");
    XmlElement devices = root.add("devices");
    XmlElement disk = devices.add("disk").attribute("supported", "yes");
    values(disk, "diskDevice", List.of("disk", "cdrom"));
    values(disk, "bus", List.of("ide", "fdc", "scsi", "virtio", "usb", "sata", "sd"));
    values(disk, "model", List.of());
    NOT_THERE.forEach(device -> devices.add(device).attribute("supported", "no"));
    XmlElement features = root.add("features");
    for (String feature : List.of("gic", "vmcoreinfo", "genid", "backingStoreInput", "backup")) {
      boolean there = feature.startsWith("back");
      features.add(feature).attribute("supported", there ? "yes" : "no");
    }
    return root;
  }

  private static void values(XmlElement parent, String name, List<String> values) {
    XmlElement list = parent.add("enum").attribute("name", name);
    values.forEach(value -> list.add("value", value));
  }
}
