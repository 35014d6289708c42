// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.NodeSpec;
import io.tidemark.domain.spi.Storage;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/// One image of a running disk's chain.
///
/// @param index the number that clients see as `<source index>` and in `vda[N]`; never used twice
///   in one run of the domain
/// @param storage where it lies
/// @param format `raw` or `qcow2`
record Layer(int index, Storage storage, String format) {
  /// In a regular file.
  ///
  /// @param file absolute path
  Layer(int index, String file, String format) {
    this(index, new Storage.LocalFile(Path.of(file)), format);
  }

  /// What clients and messages call it: a path, or a URI.
  String file() {
    return storage.location();
  }

  String nodeName() {
    return nodeName(index);
  }

  static String nodeName(int index) {
    return "libvirt-" + index + "-format";
  }

  /// The chain as nodes for a driver; only the top is writable, and only when `readOnly` is not
  /// set.
  static NodeSpec nodes(List<Layer> chain, boolean readOnly) {
    Layer top = chain.getFirst();
    Optional<NodeSpec> backing =
        chain.size() > 1
            ? Optional.of(nodes(chain.subList(1, chain.size()), true))
            : Optional.empty();
    return new NodeSpec(top.nodeName(), top.storage(), top.format(), readOnly, backing);
  }

  static XmlElement toXml(Layer layer) {
    XmlElement element =
        new XmlElement("layer").attribute("index", layer.index).attribute("format", layer.format);
    StorageXml.write(element, layer.storage);
    return element;
  }

  /// @throws IllegalArgumentException when it cannot be understood
  static List<Layer> allOf(XmlElement parent) {
    return parent.children("layer").stream().map(Layer::ofXml).toList();
  }

  private static Layer ofXml(XmlElement layer) {
    int index = Integer.parseInt(layer.attribute("index"));
    Storage storage;
    try {
      storage = StorageXml.read(layer).orElseThrow();
    } catch (LibvirtException e) {
      throw new IllegalArgumentException("layer " + index + ": " + e.getMessage(), e);
    }
    return new Layer(index, storage, layer.attribute("format"));
  }
}
