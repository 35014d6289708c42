// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.Storage;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// A client's `<disk>` held against what libvirt asks of one, with libvirt's defaults filled in:
/// afterwards a [DiskElement] finds in it what it reads. An element that is refused may have been
/// completed in part, and is thrown away.
///
/// What is output only or given anew at each start is dropped, so that a document which a client
/// got from here may be given back. What is not understood is kept.
///
/// Spec: libvirt `docs/formatdomain.rst`, "Hard drives, floppy disks, CDROMs".
final class DiskCheck {
  private static final Set<String> DISK_TYPES =
      Set.of("file", "block", "dir", "network", "volume", "nvme", "vhostuser", "vhostvdpa");
  private static final Set<String> DISK_DEVICES = Set.of("disk", "cdrom", "floppy", "lun");
  private static final Set<String> STARTUP_POLICIES = Set.of("mandatory", "requisite", "optional");
  private static final Set<String> BUSES =
      Set.of("ide", "fdc", "scsi", "virtio", "xen", "usb", "uml", "sata", "sd");

  /// Formats that libvirt's storage driver knows; only the first two can be run here.
  private static final Set<String> FORMATS =
      Set.of(
          "raw", "qcow2", "dir", "bochs", "cloop", "dmg", "iso", "vpc", "vdi", "vhd", "fat",
          "ploop", "luks", "cow", "qcow", "qed", "vmdk");

  private static final Map<String, Set<String>> DRIVER_VALUES =
      Map.of(
          "cache",
          Set.of("default", "none", "writethrough", "writeback", "directsync", "unsafe"),
          "error_policy",
          Set.of("stop", "report", "ignore", "enospace"),
          "rerror_policy",
          Set.of("stop", "report", "ignore", "enospace"),
          "io",
          Set.of("native", "threads", "io_uring"),
          "discard",
          Set.of("unmap", "ignore"),
          "detect_zeroes",
          Set.of("off", "on", "unmap"),
          "copy_on_read",
          Set.of("on", "off"));

  private DiskCheck() {}

  /// Whether libvirt knows the type, handled here or not.
  static boolean isDiskType(String type) {
    return DISK_TYPES.contains(type);
  }

  /// Whether libvirt knows the format, handled here or not.
  static boolean isFormat(String format) {
    return FORMATS.contains(format);
  }

  /// Checks and completes the document of one disk.
  ///
  /// @return the same element
  static XmlElement complete(XmlElement element) throws LibvirtException {
    DiskElement disk = new DiskElement(element);
    element.removeChildren("mirror"); // output only
    element.removeChildren("alias"); // given anew at each start
    oneOf(element, "type", DISK_TYPES, "file");
    oneOf(element, "device", DISK_DEVICES, "disk");
    element.child("source").ifPresent(source -> source.removeAttribute("index"));
    dropIndexes(element.child("backingStore"));
    String target = disk.target();
    if (target.isEmpty()) {
      throw new LibvirtException(
          ErrorCode.NO_TARGET,
          ErrorDomain.DOMAIN,
          "missing target information for device " + disk.source().orElse(""));
    }
    Optional<Storage> storage = StorageXml.read(element);
    checkStartupPolicy(element.child("source"));
    boolean removable = disk.removable();
    if (storage.isEmpty()) {
      if (!removable) {
        throw new LibvirtException(
            ErrorCode.NO_SOURCE,
            ErrorDomain.DOMAIN,
            "missing source information for device " + target);
      }
      element.removeChildren("source");
    }
    fillBus(element, disk);
    fillFormat(element, disk);
    checkDriver(element.childOrNew("driver"));
    checkBacking(disk);
    if (element.attribute("device").equals("cdrom") && !disk.readOnly()) {
      element.add("readonly");
    }
    disk.order();
    return element;
  }

  private static void checkStartupPolicy(Optional<XmlElement> source) throws LibvirtException {
    if (source.filter(given -> given.hasAttribute("startupPolicy")).isPresent()
        && !STARTUP_POLICIES.contains(source.get().attribute("startupPolicy"))) {
      throw invalid(source.get(), "startupPolicy");
    }
  }

  private static void fillBus(XmlElement element, DiskElement disk) throws LibvirtException {
    XmlElement target = element.childOrNew("target");
    if (target.hasAttribute("bus") && !BUSES.contains(target.attribute("bus"))) {
      throw invalid(target, "bus");
    }
    String dev = disk.target();
    if (!DiskNames.isDiskName(dev)) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.DOMAIN, "Unknown disk name '%s' and no address specified".formatted(dev));
    }
    if (!target.hasAttribute("bus")) {
      target.attribute("bus", DiskNames.busOf(dev, disk.device()));
    }
    if (target.attribute("bus").equals("virtio") && disk.device().equals("cdrom")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "disk type of '%s' does not support ejectable media".formatted(dev));
    }
  }

  private static void fillFormat(XmlElement element, DiskElement disk) throws LibvirtException {
    XmlElement driver = element.childOrNew("driver");
    if (!driver.hasAttribute("name")) {
      driver.attribute("name", "qemu");
    } else if (!driver.attribute("name").equals("qemu")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "unsupported driver name '%s' for disk '%s'"
              .formatted(driver.attribute("name"), disk.target()));
    }
    if (!driver.hasAttribute("type")) {
      if (disk.source().isEmpty()) {
        return; // no medium, no format
      }
      driver.attribute("type", "raw");
    }
    checkFormat(driver.attribute("type"), "disk '%s'".formatted(disk.target()));
    if (disk.storage().filter(Storage.Nbd.class::isInstance).isPresent()
        && !driver.attribute("type").equals("raw")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "disk '%s': format '%s' over a network is not supported, only 'raw' is"
              .formatted(disk.target(), driver.attribute("type")));
    }
  }

  private static void checkDriver(XmlElement driver) throws LibvirtException {
    for (String attribute : DiskElement.DRIVER_ORDER) {
      Set<String> values = DRIVER_VALUES.get(attribute);
      if (values != null
          && driver.hasAttribute(attribute)
          && !values.contains(driver.attribute(attribute))) {
        throw invalid(driver, attribute);
      }
    }
    if (driver.attribute("rerror_policy").equals("enospace")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.in(
          ErrorDomain.DOMAIN, "Invalid disk read error policy: 'enospace'");
    }
    String cache = driver.attribute("cache");
    if (driver.attribute("io").equals("native")
        && !cache.equals("none")
        && !cache.equals("directsync")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "io='native' needs either no disk cache or directsync cache mode");
    }
  }

  private static LibvirtException invalid(XmlElement element, String attribute) {
    return ErrorCode.XML_ERROR.in(
        ErrorDomain.XML,
        "Invalid value for attribute '%s' in element '%s': '%s'."
            .formatted(attribute, element.name(), element.attribute(attribute)));
  }

  /// Refuses a format that libvirt does not know, or that is not handled here.
  static void checkFormat(String format, String where) throws LibvirtException {
    if (!FORMATS.contains(format)) {
      throw ErrorCode.CONFIG_UNSUPPORTED.in(
          ErrorDomain.DOMAIN, "unknown driver format value '%s'".formatted(format));
    }
    if (!format.equals("raw") && !format.equals("qcow2")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "%s: format '%s' is not supported, only 'raw' and 'qcow2' are".formatted(where, format));
    }
  }

  /// Refuses a chain that the document gives and that is longer than what is walked, or says not
  /// enough of an image.
  static void checkBacking(DiskElement disk) throws LibvirtException {
    Optional<List<DiskElement.Image>> backing = disk.backing();
    if (backing.isEmpty()) {
      return;
    }
    if (backing.get().size() > DiskElement.MAX_CHAIN) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.DOMAIN,
          "disk '%s' has %d backing layers, limit is %d"
              .formatted(disk.target(), backing.get().size(), DiskElement.MAX_CHAIN));
    }
    for (DiskElement.Image image : backing.get()) {
      if (image.file().isEmpty()) {
        throw new LibvirtException(
            ErrorCode.NO_SOURCE, ErrorDomain.DOMAIN, "missing source for disk backing store");
      }
      if (image.format().isEmpty()) {
        throw ErrorCode.XML_ERROR.in(ErrorDomain.DOMAIN, "missing disk backing store format");
      }
      DiskElement.path(image.file());
      checkFormat(image.format(), "backing store of disk '%s'".formatted(disk.target()));
    }
  }

  private static void dropIndexes(Optional<XmlElement> store) {
    Optional<XmlElement> next = store;
    while (next.isPresent()) {
      XmlElement element = next.get();
      element.removeAttribute("index");
      element.child("source").ifPresent(source -> source.removeAttribute("index"));
      next = element.child("backingStore");
    }
  }

  private static void oneOf(XmlElement element, String attribute, Set<String> values, String usual)
      throws LibvirtException {
    if (!element.hasAttribute(attribute)) {
      element.attribute(attribute, usual);
    } else if (!values.contains(element.attribute(attribute))) {
      throw invalid(element, attribute);
    }
  }
}
