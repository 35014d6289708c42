// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.NodeSpec;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/// One image of a running disk's chain.
///
/// @param index the number that clients see as `<source index>` and in `vda[N]`; never used twice
///   in one run of the domain
/// @param file absolute path
/// @param format `raw` or `qcow2`
record Layer(int index, String file, String format) {
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
    return new NodeSpec(top.nodeName(), Path.of(top.file()), top.format(), readOnly, backing);
  }

  static XmlElement toXml(Layer layer) {
    return new XmlElement("layer")
        .attribute("index", layer.index)
        .attribute("file", layer.file)
        .attribute("format", layer.format);
  }

  static List<Layer> allOf(XmlElement parent) {
    return parent.children("layer").stream()
        .map(layer ->
            new Layer(
                Integer.parseInt(layer.attribute("index")),
                layer.attribute("file"),
                layer.attribute("format")))
        .toList();
  }
}
