// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriveManners;
import io.tidemark.domain.spi.DriveManners.OnError;
import io.tidemark.domain.spi.DriveManners.WrittenZeroes;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.Storage;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/// A `<disk>` of a checked domain document. Reads and changes the element it was made for.
///
/// Spec: libvirt `docs/formatdomain.rst`, "Hard drives, floppy disks, CDROMs".
final class DiskElement {
  /// Longest backing chain that is walked or accepted (libvirt: 200).
  static final int MAX_CHAIN = 200;

  /// Where an image lies, and its format. Of a malformed document the file may be empty.
  record Image(Storage storage, String format) {
    Image(String file, String format) {
      this(new Storage.LocalFile(Path.of(file)), format);
    }

    String file() {
      return storage.location();
    }
  }

  private final XmlElement element;

  DiskElement(XmlElement element) {
    this.element = element;
  }

  /// A client's text as a path.
  static Path path(String file) throws LibvirtException {
    try {
      return Path.of(file);
    } catch (InvalidPathException e) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          ErrorDomain.HYPERVISOR,
          "invalid argument: path: " + e.getMessage(),
          e);
    }
  }

  XmlElement element() {
    return element;
  }

  /// `vda`.
  String target() {
    return element.child("target").map(target -> target.attribute("dev")).orElse("");
  }

  String bus() {
    return element.child("target").map(target -> target.attribute("bus")).orElse("");
  }

  String device() {
    return element.attribute("device");
  }

  /// The active layer's path, or URI; empty for a drive without medium.
  Optional<String> source() {
    return storage().map(Storage::location);
  }

  /// Where the active layer lies; empty for a drive without medium. The document has been checked.
  Optional<Storage> storage() {
    try {
      return StorageXml.read(element);
    } catch (LibvirtException _) {
      return Optional.empty();
    }
  }

  String format() {
    return element.child("driver").map(driver -> driver.attribute("type")).orElse("");
  }

  /// Clients name a disk by its target or its active layer's path.
  boolean isCalled(String name) {
    return name.equals(target()) || source().filter(name::equals).isPresent();
  }

  boolean readOnly() {
    return element.child("readonly").isPresent();
  }

  /// How the images of the disk are reached: `cache='none'` and `'directsync'` go past the page
  /// cache, `io='threads'` without a queue.
  NodeSpec.Way way() {
    XmlElement driver = element.child("driver").orElseGet(() -> new XmlElement("driver"));
    String cache = driver.attribute("cache");
    if (!cache.equals("none") && !cache.equals("directsync")) {
      return NodeSpec.Way.CACHED;
    }
    return driver.attribute("io").equals("threads")
        ? NodeSpec.Way.DIRECT
        : NodeSpec.Way.DIRECT_QUEUED;
  }

  /// This disk over a chain.
  DriveSpec driveSpec(List<Layer> chain) {
    return new DriveSpec(
        target(),
        DiskNames.alias(target(), bus()),
        Layer.nodes(chain, readOnly()).by(way()),
        readOnly(),
        manners());
  }

  /// How requests of the guest are taken, by the attributes of `<driver>`.
  ///
  /// With `error_policy` alone failed reads go by it too, as libvirt tells QEMU, but for
  /// `enospace`, which is of writes only. Without `discard` discards are honoured: QEMU's own
  /// default ignores them.
  DriveManners manners() {
    XmlElement driver = element.child("driver").orElseGet(() -> new XmlElement("driver"));
    String write = driver.attribute("error_policy");
    String read =
        driver.hasAttribute("rerror_policy") || write.equals("enospace")
            ? driver.attribute("rerror_policy")
            : write;
    boolean discard = !driver.attribute("discard").equals("ignore");
    return new DriveManners(
        onError(read, DriveManners.USUAL.onReadError()),
        onError(write, DriveManners.USUAL.onWriteError()),
        discard,
        switch (driver.attribute("detect_zeroes")) {
          case "on" -> WrittenZeroes.ZEROES;
          case "unmap" -> discard ? WrittenZeroes.UNMAP : WrittenZeroes.ZEROES;
          default -> WrittenZeroes.DATA;
        });
  }

  private static OnError onError(String policy, OnError usual) {
    return switch (policy) {
      case "stop" -> OnError.STOP;
      case "report" -> OnError.REPORT;
      case "ignore" -> OnError.IGNORE;
      case "enospace" -> OnError.STOP_WITHOUT_SPACE;
      default -> usual;
    };
  }

  /// A disk that others write too is run without a cache, as libvirt does.
  void forbidCacheIfShared() {
    XmlElement driver = element.childOrNew("driver");
    if (element.child("shareable").isPresent() && !driver.hasAttribute("cache")) {
      driver.attribute("cache", "none");
    }
  }

  /// Whether its medium comes and goes.
  boolean removable() {
    return device().equals("cdrom") || device().equals("floppy");
  }

  /// Whether a domain starts when the source is not there.
  boolean startsWithout() {
    return element
        .child("source")
        .filter(source -> source.attribute("startupPolicy").equals("optional"))
        .isPresent();
  }

  /// Takes the medium out.
  void eject() {
    element.removeChildren("source");
    element.removeChildren("backingStore");
    element.child("driver").ifPresent(driver -> driver.removeAttribute("type"));
  }

  boolean isTransient() {
    return element.child("transient").isPresent();
  }

  /// The chain beneath the active layer as the document gives it; absent when it says nothing and
  /// the images are to be asked.
  Optional<List<Image>> backing() {
    Optional<XmlElement> layer = element.child("backingStore");
    if (layer.isEmpty()) {
      return Optional.empty();
    }
    List<Image> images = new ArrayList<>();
    while (layer.isPresent() && layer.get().child("source").isPresent()) {
      XmlElement store = layer.get();
      images.add(
          new Image(
              new DiskElement(store).storage().orElse(new Storage.LocalFile(Path.of(""))),
              store.child("format").map(format -> format.attribute("type")).orElse("")));
      layer = store.child("backingStore");
    }
    return Optional.of(images);
  }

  /// Whether [#backing] says where the chain ends, by an empty element; else it goes on as the last
  /// image's header says.
  boolean backingEnds() {
    Optional<XmlElement> layer = element.child("backingStore");
    while (layer.isPresent() && layer.get().child("source").isPresent()) {
      layer = layer.get().child("backingStore");
    }
    return layer.isPresent();
  }

  /// Makes this the active layer, as a pivot does.
  void setSource(String file, String format) {
    setSource(new Storage.LocalFile(Path.of(file)), format);
  }

  /// Makes this the active layer, as a pivot does.
  void setSource(Storage storage, String format) {
    StorageXml.write(element, storage);
    element.childOrNew("driver").attribute("type", format);
    order();
  }

  /// Puts an overlay over what is the active layer now, which becomes its first backing layer.
  void pushOverlay(Storage overlay, String format) {
    XmlElement below = new XmlElement("backingStore").attribute("type", "");
    below.add("format").attribute("type", format());
    storage().ifPresent(source -> StorageXml.write(below, source));
    element.child("backingStore").ifPresent(below::add);
    setSource(overlay, format);
    setBacking(Optional.of(below));
  }

  /// The `<backingStore>` beneath, at any depth, that names the file.
  Optional<XmlElement> store(String file) {
    Optional<XmlElement> layer = element.child("backingStore");
    while (layer.isPresent()) {
      if (new DiskElement(layer.get()).source().equals(Optional.of(file))) {
        return layer;
      }
      layer = layer.get().child("backingStore");
    }
    return layer;
  }

  /// Replaces what `<driver>` says of a cache of metadata, or removes it.
  void metadataCache(@Nullable XmlElement cache) {
    XmlElement driver = element.childOrNew("driver");
    driver.removeChildren("metadata_cache");
    if (cache != null) {
      driver.add(cache.copy());
    }
  }

  void setBacking(Optional<XmlElement> backing) {
    element.removeChildren("backingStore");
    backing.ifPresent(element::add);
    order();
  }

  /// Brings children and attributes into libvirt's order; what it does not know comes after what it
  /// knows, before alias and address.
  void order() {
    element.attributesFirst(List.of("type", "device", "model"));
    element.child("driver").ifPresent(driver -> driver.attributesFirst(DRIVER_ORDER));
    element.child("target").ifPresent(target -> target.attributesFirst(List.of("dev", "bus")));
    element.sortChildren(DiskElement::compare);
  }

  /// Attributes of `<driver>` as libvirt writes them.
  static final List<String> DRIVER_ORDER =
      List.of(
          "name",
          "type",
          "cache",
          "error_policy",
          "rerror_policy",
          "io",
          "ioeventfd",
          "event_idx",
          "copy_on_read",
          "discard",
          "iothread",
          "detect_zeroes",
          "queues");

  private static final List<String> FIRST =
      List.of(
          "driver",
          "auth",
          "source",
          "backingStore",
          "mirror",
          "target",
          "iotune",
          "readonly",
          "shareable",
          "transient",
          "serial",
          "wwn",
          "vendor",
          "product",
          "encryption",
          "boot");
  private static final List<String> LAST = List.of("alias", "address");

  private static int compare(XmlElement a, XmlElement b) {
    return Integer.compare(rank(a.name()), rank(b.name()));
  }

  private static int rank(String name) {
    int first = FIRST.indexOf(name);
    if (first >= 0) {
      return first;
    }
    int last = LAST.indexOf(name);
    return last >= 0 ? FIRST.size() + 1 + last : FIRST.size();
  }
}
