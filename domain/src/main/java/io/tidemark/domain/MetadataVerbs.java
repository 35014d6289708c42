// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.io.IOException;
import java.util.Optional;

/// What clients write on a domain: title, description, and elements of their own, one for each
/// namespace. Safe for any thread.
///
/// A client's element is kept under its prefix, and handed out without it.
///
/// Spec: libvirt 9.0.0 `virDomainSetMetadata`, measured.
public final class MetadataVerbs {
  // virDomainMetadataType
  private static final int DESCRIPTION = 0;
  private static final int TITLE = 1;
  private static final int ELEMENT = 2;

  private final DomainLife life;

  MetadataVerbs(DomainLife life) {
    this.life = life;
  }

  /// virDomainGetMetadata.
  ///
  /// @param type virDomainMetadataType
  /// @param uri of the element's namespace; only with an element
  public String metadata(int type, Optional<String> uri, int flags) throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG, ErrorDomain.DOMAIN, "virDomainObjGetMetadata");
    Impact.requireOne(flags);
    checkType(type);
    return life.locked(() -> {
      Impact asked = Impact.of(life, flags);
      XmlElement root =
          asked
              .live()
              .map(running -> running.live().definition())
              .or(asked::config)
              .orElseThrow()
              .root();
      return switch (type) {
        case TITLE -> text(root, "title");
        case DESCRIPTION -> text(root, "description");
        default ->
            Xml.write(
                withoutPrefix(element(root, uri.orElse("")).orElseThrow(MetadataVerbs::none)));
      };
    });
  }

  private static void checkType(int type) throws LibvirtException {
    if (type < DESCRIPTION || type > ELEMENT) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN, "unknown metadata type '%d'".formatted(type));
    }
  }

  private static String text(XmlElement root, String name) throws LibvirtException {
    return root.child(name).map(XmlElement::text).orElseThrow(MetadataVerbs::none);
  }

  private static LibvirtException none() {
    return ErrorCode.NO_DOMAIN_METADATA.in(
        ErrorDomain.DOMAIN, "Requested metadata element is not present");
  }

  /// virDomainSetMetadata.
  ///
  /// @param type virDomainMetadataType
  /// @param text absent or empty: what is there is removed
  /// @param key prefix of the element's names
  /// @param uri of the element's namespace
  public void set(
      int type, Optional<String> text, Optional<String> key, Optional<String> uri, int flags)
      throws LibvirtException {
    Flags.check(flags, Impact.LIVE | Impact.CONFIG, "qemuDomainSetMetadata");
    checkType(type);
    Optional<String> given = text.filter(some -> !some.isEmpty());
    Optional<XmlElement> element = Optional.empty();
    if (type == ELEMENT) {
      if (uri.isEmpty() || (given.isPresent() && key.isEmpty())) {
        throw ErrorCode.INVALID_ARG.in(
            ErrorDomain.DOMAIN, "an element of a client needs a key and a uri");
      }
      if (given.isPresent()) {
        XmlElement parsed = Xml.parse(given.get(), "metadata_xml", ErrorDomain.DOMAIN);
        element = Optional.of(withPrefix(parsed, checkedKey(key.orElse("")), uri.get()));
      }
    } else if (type == TITLE && given.filter(title -> title.contains("\n")).isPresent()) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG, ErrorDomain.DOMAIN, "metadata title can't contain newlines");
    }
    Optional<XmlElement> wanted = element;
    life.run(() -> {
      Impact impact = Impact.of(life, flags);
      if (impact.config().isPresent()) {
        put(impact.config().get().root(), type, given, wanted, uri);
        try {
          life.stored().redefine(impact.config().get());
        } catch (IOException e) {
          throw life.upkeep().cannotWrite(e);
        }
      }
      if (impact.live().isPresent()) {
        put(impact.live().get().live().definition().root(), type, given, wanted, uri);
        life.stored().putLiveOrLog(impact.live().get().live());
      }
      life.event(new DomainEvent.MetadataChanged(life.ref(), type, uri));
    });
  }

  private static void put(
      XmlElement root,
      int type,
      Optional<String> text,
      Optional<XmlElement> element,
      Optional<String> uri) {
    if (type != ELEMENT) {
      String name = type == TITLE ? "title" : "description";
      root.removeChildren(name);
      text.ifPresent(some -> root.add(name, some));
    } else {
      XmlElement all = root.childOrNew("metadata");
      element(root, uri.orElse("")).ifPresent(old -> all.children().remove(old));
      element.ifPresent(some -> all.add(some.copy()));
      if (all.children().isEmpty()) {
        root.removeChildren("metadata");
      }
    }
    Definition.order(root);
  }

  private static String checkedKey(String key) throws LibvirtException {
    if (!key.matches("[A-Za-z_][A-Za-z0-9_.-]*")) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.DOMAIN, "'%s' cannot be the prefix of a namespace".formatted(key));
    }
    return key;
  }

  /// The child of `<metadata>` that declares its own prefix to mean this namespace.
  private static Optional<XmlElement> element(XmlElement root, String uri) {
    return root.child("metadata").stream()
        .flatMap(all -> all.children().stream())
        .filter(child -> child.attribute(declaration(child)).equals(uri))
        .findFirst();
  }

  private static String prefix(XmlElement element) {
    int colon = element.name().indexOf(':');
    return colon < 0 ? "" : element.name().substring(0, colon + 1);
  }

  private static String declaration(XmlElement element) {
    String prefix = prefix(element);
    return prefix.isEmpty() ? "xmlns" : "xmlns:" + prefix.substring(0, prefix.length() - 1);
  }

  private static XmlElement withPrefix(XmlElement element, String key, String uri) {
    XmlElement prefixed = renamed(element, "", key + ":", "");
    prefixed.attribute("xmlns:" + key, uri);
    prefixed.attributesFirst(java.util.List.of("xmlns:" + key));
    return prefixed;
  }

  private static XmlElement withoutPrefix(XmlElement element) {
    return renamed(element, prefix(element), "", declaration(element));
  }

  /// A copy in which names with one prefix have another. The depth is that of a document that was
  /// read, so it is bounded.
  private static XmlElement renamed(
      XmlElement element, String from, String to, String withoutAttribute) {
    boolean renames = from.equals(prefix(element));
    XmlElement copy =
        new XmlElement(renames ? to + element.name().substring(from.length()) : element.name());
    element
        .attributes()
        .forEach((name, value) -> {
          if (!name.equals(withoutAttribute)) {
            copy.attribute(name, value);
          }
        });
    copy.text(element.text());
    element.children().forEach(child -> copy.add(renamed(child, from, to, withoutAttribute)));
    return copy;
  }
}
