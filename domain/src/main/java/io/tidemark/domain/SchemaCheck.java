// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.Set;

/// Refusals in the words of libvirt's schema validation.
///
/// @param root name of the document's root and of its schema file
record SchemaCheck(String root) {
  void attributes(XmlElement element, Set<String> allowed) throws LibvirtException {
    for (String attribute : element.attributes().keySet()) {
      require(
          allowed.contains(attribute),
          "Invalid attribute %s for element %s".formatted(attribute, element.name()));
    }
  }

  /// Only these children, each at most once.
  void children(XmlElement element, Set<String> allowed) throws LibvirtException {
    for (XmlElement child : element.children()) {
      require(
          allowed.contains(child.name()),
          "Element %s has extra content: %s".formatted(element.name(), child.name()));
      requireChild(element.children(child.name()).size() == 1, child.name());
    }
  }

  /// Refuses the document because of something within a child of the root.
  void requireChild(boolean good, String child) throws LibvirtException {
    require(
        good,
        "Extra element %s in interleave\nElement %s failed to validate content"
            .formatted(child, root));
  }

  void require(boolean good, String detail) throws LibvirtException {
    if (!good) {
      throw ErrorCode.XML_INVALID_SCHEMA.in(
          ErrorDomain.XML, "Unable to validate doc against %s.rng\n%s\n".formatted(root, detail));
    }
  }
}
