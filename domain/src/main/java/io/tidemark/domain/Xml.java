// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.io.IOException;
import java.io.StringReader;
import java.util.ArrayDeque;
import java.util.Deque;
import javax.xml.XMLConstants;
import javax.xml.parsers.ParserConfigurationException;
import javax.xml.parsers.SAXParser;
import javax.xml.parsers.SAXParserFactory;
import org.jspecify.annotations.Nullable;
import org.xml.sax.Attributes;
import org.xml.sax.InputSource;
import org.xml.sax.SAXException;
import org.xml.sax.SAXParseException;
import org.xml.sax.XMLReader;
import org.xml.sax.helpers.DefaultHandler;

/// Reads documents from outside and writes them as libvirt does: two spaces a level, attributes in
/// single quotes.
///
/// A document type declaration is refused, so there are no entities to expand and nothing to fetch.
final class Xml {
  /// Most characters of a document: what fits one string on libvirt's wire.
  static final int MAX_CHARACTERS = 4 << 20;

  /// Deepest nesting; a backing chain nests one level a layer.
  static final int MAX_DEPTH = 300;

  /// Most elements of a document.
  static final int MAX_ELEMENTS = 100_000;

  private Xml() {}

  /// Reads a document.
  ///
  /// @param what libvirt's word for the text in errors: `domain_definition`
  static XmlElement parse(String text, String what, ErrorDomain domain) throws LibvirtException {
    if (text.length() > MAX_CHARACTERS) {
      throw malformed(
          what,
          domain,
          1,
          "document of " + text.length() + " characters, limit is " + MAX_CHARACTERS);
    }
    if (text.isBlank()) {
      throw malformed(what, domain, 1, "Document is empty\n(null)\n^");
    }
    if (!text.stripLeading().startsWith("<")) {
      String line = text.lines().findFirst().orElse("");
      throw malformed(what, domain, 1, "Start tag expected, '<' not found\n" + line + "\n^");
    }
    TreeBuilder builder = new TreeBuilder();
    try {
      parser().parse(new InputSource(new StringReader(text)), builder);
    } catch (SAXParseException e) {
      throw malformed(what, domain, Math.max(1, e.getLineNumber()), String.valueOf(e.getMessage()));
    } catch (SAXException e) {
      throw malformed(what, domain, 1, String.valueOf(e.getMessage()));
    } catch (IOException e) {
      throw new IllegalStateException("reading from memory", e);
    }
    if (builder.root == null) {
      throw malformed(what, domain, 1, "Document is empty\n(null)\n^");
    }
    return builder.root;
  }

  /// As [#parse], and the root must have this name.
  static XmlElement parse(String text, String what, ErrorDomain domain, String root)
      throws LibvirtException {
    XmlElement element = parse(text, what, domain);
    if (!element.name().equals(root)) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.XML,
          "expecting root element of '%s', not '%s'".formatted(root, element.name()));
    }
    return element;
  }

  private static LibvirtException malformed(
      String what, ErrorDomain domain, int line, String message) {
    return new LibvirtException(
        ErrorCode.XML_DETAIL, domain, "(%s):%d: %s".formatted(what, line, message));
  }

  private static SAXParser parser() {
    return parser(false); // prefixes and xmlns attributes are kept as they stand
  }

  /// For a schema, of a document that [#parse] has taken.
  static XMLReader namespaceAwareReader() throws SAXException {
    return parser(true).getXMLReader();
  }

  private static SAXParser parser(boolean namespaceAware) {
    SAXParserFactory factory = SAXParserFactory.newInstance();
    factory.setNamespaceAware(namespaceAware);
    try {
      factory.setFeature(XMLConstants.FEATURE_SECURE_PROCESSING, true);
      factory.setFeature("http://apache.org/xml/features/disallow-doctype-decl", true);
      factory.setFeature("http://xml.org/sax/features/external-general-entities", false);
      factory.setFeature("http://xml.org/sax/features/external-parameter-entities", false);
      SAXParser parser = factory.newSAXParser();
      // The JDK's own is lower. MAX_DEPTH itself is held by TreeBuilder.
      parser.setProperty("jdk.xml.maxElementDepth", String.valueOf(MAX_DEPTH + 1));
      return parser;
    } catch (ParserConfigurationException | SAXException e) {
      throw new IllegalStateException("the JDK's XML parser refuses its secure settings", e);
    }
  }

  static String write(XmlElement root) {
    StringBuilder out = new StringBuilder();
    write(root, 0, out);
    return out.toString();
  }

  private static void write(XmlElement element, int depth, StringBuilder out) {
    indent(depth, out).append('<').append(element.name());
    element
        .attributes()
        .forEach((key, value) -> {
          out.append(' ').append(key).append("='");
          escape(value, true, out);
          out.append('\'');
        });
    if (!element.children().isEmpty()) {
      out.append(">\n");
      for (XmlElement child : element.children()) {
        write(child, depth + 1, out);
      }
      indent(depth, out).append("</").append(element.name()).append(">\n");
    } else if (!element.text().isEmpty()) {
      out.append('>');
      escape(element.text(), false, out);
      out.append("</").append(element.name()).append(">\n");
    } else {
      out.append("/>\n");
    }
  }

  private static StringBuilder indent(int depth, StringBuilder out) {
    return out.repeat("  ", depth);
  }

  private static void escape(String value, boolean attribute, StringBuilder out) {
    for (int i = 0; i < value.length(); i++) {
      char c = value.charAt(i);
      switch (c) {
        case '&' -> out.append("&amp;");
        case '<' -> out.append("&lt;");
        case '>' -> out.append("&gt;");
        case '"' -> out.append("&quot;");
        case '\'' -> out.append("&apos;");
        case '\r' -> out.append("&#13;"); // else lost to line end normalisation
        case '\n', '\t' -> {
          if (attribute) {
            out.append("&#").append((int) c).append(';'); // else read back as a space
          } else {
            out.append(c);
          }
        }
        default -> out.append(c);
      }
    }
  }

  /// Builds the tree; counts depth and elements against the limits.
  private static final class TreeBuilder extends DefaultHandler {
    private final Deque<XmlElement> open = new ArrayDeque<>();
    private final Deque<StringBuilder> texts = new ArrayDeque<>();
    // Null until the root element starts.
    private @Nullable XmlElement root;
    private int elements;

    @Override
    public void startElement(String uri, String local, String name, Attributes attributes)
        throws SAXException {
      if (open.size() >= MAX_DEPTH) {
        throw new SAXException("element " + name + " is nested deeper than " + MAX_DEPTH);
      }
      elements++;
      if (elements > MAX_ELEMENTS) {
        throw new SAXException("more than " + MAX_ELEMENTS + " elements");
      }
      XmlElement element = new XmlElement(name);
      for (int i = 0; i < attributes.getLength(); i++) {
        element.attribute(attributes.getQName(i), attributes.getValue(i));
      }
      XmlElement parent = open.peek();
      if (parent != null) {
        parent.add(element);
      } else {
        root = element;
      }
      open.push(element);
      texts.push(new StringBuilder());
    }

    @Override
    public void characters(char[] characters, int start, int length) {
      StringBuilder text = texts.peek();
      if (text != null) {
        text.append(characters, start, length);
      }
    }

    @Override
    public void endElement(String uri, String local, String name) {
      XmlElement element = open.pop();
      String text = texts.pop().toString();
      if (element.children().isEmpty()) {
        element.text(text.isBlank() && text.indexOf('\n') >= 0 ? "" : text);
      }
    }

    @Override
    public void error(SAXParseException e) throws SAXException {
      throw e;
    }

    @Override
    public void fatalError(SAXParseException e) throws SAXException {
      throw e;
    }
  }
}
