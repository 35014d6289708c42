// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.function.Supplier;

/// A checked `<domain>` document in its inactive form, with libvirt's defaults filled in. What is
/// not understood is kept where it stood among its siblings. What holds for one disk is
/// [DiskCheck]'s; here, what holds for the document and for its disks together.
///
/// A domain of disks needs neither memory nor an operating system, so both may be missing, which
/// libvirt refuses.
///
/// Spec: libvirt `docs/formatdomain.rst`.
final class Definition {
  /// Most disks of a domain.
  static final int MAX_DISKS = 256;

  /// Longest name: with the suffixes that a state folder adds it still fits a file name.
  static final int MAX_NAME_BYTES = 200;

  /// Most memory that may be spoken of.
  static final long MAX_MEMORY_KIB = (1L << 53) - 1;

  private static final String WHAT = "domain_definition";

  /// Domain types that libvirt knows (`VIR_DOMAIN_VIRT_*`): another error when nobody serves them.
  private static final Set<String> LIBVIRT_TYPES =
      Set.of(
          "qemu",
          "kqemu",
          "kvm",
          "xen",
          "lxc",
          "uml",
          "openvz",
          "test",
          "vmware",
          "hyperv",
          "vbox",
          "phyp",
          "parallels",
          "bhyve",
          "vz",
          "hvf");

  private static final List<String> ORDER =
      List.of(
          "name",
          "uuid",
          "genid",
          "title",
          "description",
          "metadata",
          "memory",
          "currentMemory",
          "vcpu",
          "vcpus",
          "iothreads",
          "iothreadids",
          "cputune",
          "numatune",
          "resource",
          "sysinfo",
          "bootloader",
          "os",
          "features",
          "cpu",
          "clock",
          "on_poweroff",
          "on_reboot",
          "on_crash",
          "pm",
          "devices",
          "seclabel");

  private final XmlElement root;

  private Definition(XmlElement root) {
    this.root = root;
  }

  /// Holds a client's document against the schema, besides what [#parse] checks.
  static void validate(String xml) throws LibvirtException {
    XmlElement _ = Xml.parse(xml, WHAT, ErrorDomain.DOMAIN, "domain");
    Schema.DOMAIN.check(xml);
  }

  /// Checks and completes a client's document.
  ///
  /// @param served domain types with a driver
  static Definition parse(String xml, Set<String> served, Supplier<UUID> uuids)
      throws LibvirtException {
    XmlElement root = Xml.parse(xml, WHAT, ErrorDomain.DOMAIN, "domain");
    root.removeAttribute("id");
    checkType(root, served);
    checkName(root);
    fillUuid(root, uuids);
    fillMemory(root);
    fillMachine(root);
    XmlElement devices = root.childOrNew("devices");
    List<XmlElement> disks = devices.children("disk");
    if (disks.size() > MAX_DISKS) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.DOMAIN, disks.size() + " disks, limit is " + MAX_DISKS);
    }
    for (XmlElement disk : disks) {
      XmlElement _ = DiskCheck.complete(disk);
    }
    checkTargets(disks);
    sortDevices(devices);
    root.attributesFirst(List.of("type"));
    order(root);
    return new Definition(root);
  }

  /// Brings the parts into libvirt's order.
  static void order(XmlElement root) {
    root.sortChildren((a, b) -> Integer.compare(rank(a.name()), rank(b.name())));
  }

  /// A document that this class wrote before.
  static Definition ofStored(XmlElement root) {
    return new Definition(root);
  }

  Definition copy() {
    return new Definition(root.copy());
  }

  XmlElement root() {
    return root;
  }

  String name() {
    return root.childText("name");
  }

  UUID uuid() {
    return UUID.fromString(root.childText("uuid"));
  }

  String type() {
    return root.attribute("type");
  }

  String osType() {
    return root.child("os").map(os -> os.childText("type")).filter(t -> !t.isEmpty()).orElse("hvm");
  }

  long memoryKib() {
    return kib("memory");
  }

  long currentMemoryKib() {
    return kib("currentMemory");
  }

  /// The most that it may have.
  int vcpus() {
    String text = root.childText("vcpu");
    return text.isEmpty() ? 1 : Integer.parseInt(text);
  }

  int currentVcpus() {
    String current = root.child("vcpu").map(vcpu -> vcpu.attribute("current")).orElse("");
    return current.matches("[0-9]{1,9}") ? Integer.parseInt(current) : vcpus();
  }

  void vcpus(int most, int current) {
    XmlElement vcpu = root.childOrNew("vcpu").text(String.valueOf(most));
    vcpu.removeAttribute("current");
    if (current != most) {
      vcpu.attribute("current", current);
    }
    order(root);
  }

  void memory(long mostKib, long currentKib) {
    root.childOrNew("memory").attribute("unit", "KiB").text(String.valueOf(mostKib));
    root.childOrNew("currentMemory").attribute("unit", "KiB").text(String.valueOf(currentKib));
    order(root);
  }

  /// Disks in libvirt's order: those of one bus by their letters.
  List<DiskElement> disks() {
    return root.child("devices")
        .map(devices -> devices.children("disk").stream().map(DiskElement::new).toList())
        .orElse(List.of());
  }

  Optional<DiskElement> disk(String target) {
    return disks().stream().filter(disk -> disk.target().equals(target)).findFirst();
  }

  private long kib(String name) {
    String text = root.childText(name);
    return text.isEmpty() ? 0 : Long.parseLong(text);
  }

  private static int rank(String name) {
    int at = ORDER.indexOf(name);
    return at >= 0 ? at : ORDER.indexOf("devices"); // unknown ones: with the devices, in order
  }

  private static void checkType(XmlElement root, Set<String> served) throws LibvirtException {
    if (!root.hasAttribute("type")) {
      throw ErrorCode.INTERNAL_ERROR.in(ErrorDomain.DOMAIN, "missing domain type attribute");
    }
    String type = root.attribute("type");
    if (served.contains(type)) {
      return;
    }
    if (LIBVIRT_TYPES.contains(type)) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "no driver runs domains of virt type '%s'".formatted(type));
    }
    throw ErrorCode.CONFIG_UNSUPPORTED.in(ErrorDomain.DOMAIN, "invalid domain type " + type);
  }

  private static void checkName(XmlElement root) throws LibvirtException {
    String name = root.childText("name");
    if (name.isEmpty()) {
      throw new LibvirtException(ErrorCode.NO_NAME, ErrorDomain.DOMAIN, "missing name information");
    }
    checkName(name);
  }

  /// Refuses a name that no domain may have; not empty.
  static void checkName(String name) throws LibvirtException {
    if (name.contains("/")) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.DOMAIN, "name %s cannot contain '/'".formatted(name));
    }
    if (name.chars().anyMatch(c -> c < ' ' || c == 0x7f)) {
      throw new LibvirtException(
          ErrorCode.XML_DETAIL, ErrorDomain.XML, "invalid char in name: " + name);
    }
    if (name.equals(".") || name.equals("..")) {
      throw ErrorCode.XML_ERROR.in(ErrorDomain.DOMAIN, "name %s is not allowed".formatted(name));
    }
    int length = name.getBytes(java.nio.charset.StandardCharsets.UTF_8).length;
    if (length > MAX_NAME_BYTES) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.DOMAIN, "name of %d bytes, limit is %d".formatted(length, MAX_NAME_BYTES));
    }
  }

  private static void fillUuid(XmlElement root, Supplier<UUID> uuids) throws LibvirtException {
    String text = root.childText("uuid").strip();
    UUID uuid;
    if (text.isEmpty() && root.child("uuid").isEmpty()) {
      uuid = uuids.get();
    } else {
      uuid =
          Uuids.parse(text)
              .orElseThrow(
                  () -> ErrorCode.INTERNAL_ERROR.in(ErrorDomain.DOMAIN, "malformed uuid element"));
    }
    root.childOrNew("uuid").text(uuid.toString());
  }

  private static void fillMemory(XmlElement root) throws LibvirtException {
    Optional<XmlElement> memory = root.child("memory");
    Optional<XmlElement> current = root.child("currentMemory");
    if (memory.isPresent()) {
      normaliseMemory(memory.get());
      XmlElement used = current.orElseGet(() -> root.add("currentMemory"));
      if (current.isPresent()) {
        normaliseMemory(used);
      } else {
        used.attribute("unit", "KiB").text(memory.get().text());
      }
    } else if (current.isPresent()) {
      normaliseMemory(current.get());
    }
    XmlElement vcpu = root.childOrNew("vcpu");
    if (vcpu.text().isBlank()) {
      vcpu.text("1");
    }
    try {
      if (Integer.parseInt(vcpu.text().strip()) < 1) {
        throw new NumberFormatException();
      }
    } catch (NumberFormatException e) {
      throw ErrorCode.XML_ERROR.in(ErrorDomain.DOMAIN, "maximum vcpus count must be an integer");
    }
    vcpu.text(vcpu.text().strip());
    if (!vcpu.hasAttribute("placement")) {
      vcpu.attribute("placement", "static");
    }
    vcpu.attributesFirst(List.of("placement"));
  }

  private static void normaliseMemory(XmlElement element) throws LibvirtException {
    String text = element.text().strip();
    if (!text.matches("[0-9]{1,19}")) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.XML,
          "Invalid value '%s' for element or attribute './%s[1]'".formatted(text, element.name()));
    }
    BigInteger bytes = new BigInteger(text).multiply(unit(element));
    BigInteger kib = bytes.add(BigInteger.valueOf(1023)).shiftRight(10);
    if (kib.compareTo(BigInteger.valueOf(MAX_MEMORY_KIB)) > 0) {
      throw ErrorCode.OVERFLOW.in(ErrorDomain.DOMAIN, "value too large: " + text);
    }
    element.attribute("unit", "KiB").text(kib.toString());
  }

  /// Bytes in a unit. Spec: libvirt `docs/formatdomain.rst`, "Memory Allocation".
  private static BigInteger unit(XmlElement element) throws LibvirtException {
    String unit = element.hasAttribute("unit") ? element.attribute("unit") : "KiB";
    String lower = unit.toLowerCase(java.util.Locale.ROOT);
    if (lower.equals("b") || lower.equals("byte") || lower.equals("bytes")) {
      return BigInteger.ONE;
    }
    int power = lower.isEmpty() ? -1 : "kmgtpe".indexOf(lower.charAt(0)) + 1;
    String rest = lower.isEmpty() ? "" : lower.substring(1);
    if (power > 0 && (rest.isEmpty() || rest.equals("ib"))) {
      return BigInteger.ONE.shiftLeft(10 * power);
    }
    if (power > 0 && rest.equals("b")) {
      return BigInteger.valueOf(1000).pow(power);
    }
    throw ErrorCode.INVALID_ARG.in(ErrorDomain.NONE, "unknown suffix '%s'".formatted(unit));
  }

  private static void fillMachine(XmlElement root) {
    XmlElement os = root.childOrNew("os");
    if (os.childText("type").isEmpty()) {
      os.childOrNew("type").text("hvm");
    }
    if (root.child("clock").isEmpty()) {
      root.add("clock").attribute("offset", "utc");
    }
    for (Map.Entry<String, String> action :
        List.of(
            Map.entry("on_poweroff", "destroy"),
            Map.entry("on_reboot", "restart"),
            Map.entry("on_crash", "destroy"))) {
      if (root.child(action.getKey()).isEmpty()) {
        root.add(action.getKey(), action.getValue());
      }
    }
  }

  /// Puts a checked disk in its place among the others.
  void addDisk(XmlElement element) {
    XmlElement devices = root.childOrNew("devices");
    devices.add(element);
    sortDevices(devices);
  }

  /// Takes a disk out; false when there is none of that target.
  boolean removeDisk(String target) {
    return root.childOrNew("devices")
        .children()
        .removeIf(
            child -> child.name().equals("disk") && new DiskElement(child).target().equals(target));
  }

  private static void checkTargets(List<XmlElement> disks) throws LibvirtException {
    Map<String, String> seen = new HashMap<>();
    for (XmlElement element : disks) {
      DiskElement disk = new DiskElement(element);
      String source = disk.source().orElse("");
      String before = seen.putIfAbsent(disk.target(), source);
      if (before != null) {
        throw ErrorCode.XML_ERROR.in(
            ErrorDomain.DOMAIN,
            "target '%s' duplicated for disk sources '%s' and '%s'"
                .formatted(disk.target(), before, source));
      }
    }
  }

  /// Emulator, then disks, then the rest, as libvirt writes them; a disk goes before the first one
  /// of its bus that has a later letter.
  private static void sortDevices(XmlElement devices) {
    List<XmlElement> disks = new ArrayList<>();
    for (XmlElement element : devices.children("disk")) {
      disks.add(placeOf(element, disks), element);
    }
    List<XmlElement> sorted = new ArrayList<>(devices.children("emulator"));
    sorted.addAll(disks);
    for (XmlElement other : devices.children()) {
      if (!other.name().equals("disk") && !other.name().equals("emulator")) {
        sorted.add(other);
      }
    }
    devices.children().clear();
    devices.children().addAll(sorted);
  }

  private static int placeOf(XmlElement element, List<XmlElement> disks) {
    DiskElement disk = new DiskElement(element);
    int place = -1;
    for (int i = disks.size() - 1; i >= 0; i--) {
      DiskElement other = new DiskElement(disks.get(i));
      if (!other.bus().equals(disk.bus())) {
        continue;
      }
      if (DiskNames.indexOf(other.target()) > DiskNames.indexOf(disk.target())) {
        place = i;
      } else if (place < 0) {
        place = i + 1;
      }
    }
    return place < 0 ? disks.size() : place;
  }
}
