// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// An element of a document: name, attributes and children in the order of the text, so that what
/// is not understood is written back where it stood. Text is kept for elements without children;
/// comments and processing instructions are not kept, as libvirt does not.
///
/// Not safe for several threads; who shares one copies it.
final class XmlElement {
  private final String name;
  private final Map<String, String> attributes = new LinkedHashMap<>();
  private final List<XmlElement> children = new ArrayList<>();
  private String text = "";

  XmlElement(String name) {
    this.name = name;
  }

  String name() {
    return name;
  }

  String text() {
    return text;
  }

  XmlElement text(String value) {
    text = value;
    return this;
  }

  /// The attribute, or an empty string when it is not there.
  String attribute(String key) {
    return attributes.getOrDefault(key, "");
  }

  boolean hasAttribute(String key) {
    return attributes.containsKey(key);
  }

  Map<String, String> attributes() {
    return attributes;
  }

  /// Sets or replaces an attribute; a new one comes last.
  XmlElement attribute(String key, Object value) {
    attributes.put(key, value.toString());
    return this;
  }

  XmlElement removeAttribute(String key) {
    attributes.remove(key);
    return this;
  }

  List<XmlElement> children() {
    return children;
  }

  List<XmlElement> children(String childName) {
    return children.stream().filter(child -> child.name.equals(childName)).toList();
  }

  Optional<XmlElement> child(String childName) {
    return children.stream().filter(child -> child.name.equals(childName)).findFirst();
  }

  /// Text of a child, or an empty string.
  String childText(String childName) {
    return child(childName).map(XmlElement::text).orElse("");
  }

  XmlElement add(XmlElement child) {
    children.add(child);
    return this;
  }

  XmlElement add(String childName) {
    XmlElement child = new XmlElement(childName);
    children.add(child);
    return child;
  }

  XmlElement add(String childName, Object childText) {
    return add(childName).text(childText.toString());
  }

  void removeChildren(String childName) {
    children.removeIf(child -> child.name.equals(childName));
  }

  /// Puts the first child of that name in place, or adds it.
  XmlElement childOrNew(String childName) {
    return child(childName).orElseGet(() -> add(childName));
  }

  /// Sorts children by `rank`; equal ranks keep their order.
  void sortChildren(Comparator<XmlElement> rank) {
    children.sort(rank);
  }

  /// Moves the named attributes to the front, in that order.
  void attributesFirst(List<String> keys) {
    Map<String, String> sorted = new LinkedHashMap<>();
    for (String key : keys) {
      if (attributes.containsKey(key)) {
        sorted.put(key, attribute(key));
      }
    }
    attributes.forEach(sorted::putIfAbsent);
    attributes.clear();
    attributes.putAll(sorted);
  }

  /// Takes over all that another of the same name has.
  void becomeAs(XmlElement other) {
    attributes.clear();
    attributes.putAll(other.attributes);
    children.clear();
    other.children.forEach(child -> children.add(child.copy()));
    text = other.text;
  }

  XmlElement copy() {
    XmlElement copy = new XmlElement(name);
    copy.attributes.putAll(attributes);
    copy.text = text;
    for (XmlElement child : children) {
      copy.children.add(child.copy());
    }
    return copy;
  }
}
