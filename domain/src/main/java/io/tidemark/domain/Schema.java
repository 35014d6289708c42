// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.io.IOException;
import java.io.InputStream;
import java.io.StringReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import javax.xml.XMLConstants;
import javax.xml.parsers.DocumentBuilderFactory;
import javax.xml.parsers.ParserConfigurationException;
import javax.xml.transform.stream.StreamSource;
import javax.xml.validation.SchemaFactory;
import javax.xml.validation.ValidatorHandler;
import org.jspecify.annotations.Nullable;
import org.w3c.dom.ls.DOMImplementationLS;
import org.w3c.dom.ls.LSInput;
import org.xml.sax.ErrorHandler;
import org.xml.sax.InputSource;
import org.xml.sax.SAXException;
import org.xml.sax.SAXParseException;
import org.xml.sax.XMLReader;

/// What clients may send, in RELAX NG: our own schemas, beside this class as resources.
///
/// libvirt holds checkpoints and backups against its schema always, domains and snapshots when a
/// flag asks for it. A schema and the library that knows its language (Jing) are loaded with the
/// first document that needs them. Safe for any thread.
final class Schema {
  static final Schema DOMAIN = new Schema("domain");
  static final Schema CHECKPOINT = new Schema("domaincheckpoint");
  static final Schema BACKUP = new Schema("domainbackup");
  static final Schema SNAPSHOT = new Schema("domainsnapshot");

  /// The schema language is found by the JDK's own interface; Jing is named, since what else lies
  /// on the class path is not to be asked.
  private static final String FACTORY = "com.thaiopensource.relaxng.jaxp.XMLSyntaxSchemaFactory";

  /// Most complaints that go into an error's text.
  private static final int MAX_COMPLAINTS = 3;

  private final String file;
  // Null until it is first needed. Guarded by this.
  private javax.xml.validation.@Nullable Schema compiled;

  private Schema(String root) {
    file = root + ".rng";
  }

  /// Refuses a document that the schema does not allow (92).
  ///
  /// @param text has been read by [Xml], so that its size, depth and number of elements are known
  ///   to be within the limits and it declares no document type
  void check(String text) throws LibvirtException {
    List<String> complaints = new ArrayList<>();
    ValidatorHandler validator = compiled().newValidatorHandler();
    validator.setErrorHandler(new Complaints(complaints));
    try {
      XMLReader reader = Xml.namespaceAwareReader();
      reader.setContentHandler(validator);
      reader.setErrorHandler(new Complaints(complaints));
      reader.parse(new InputSource(new StringReader(text)));
    } catch (SAXException e) {
      // Such as a prefix that was not declared.
      complaints.add(String.valueOf(e.getMessage()));
    } catch (IOException e) {
      throw new IllegalStateException("reading from memory", e);
    }
    if (!complaints.isEmpty()) {
      throw ErrorCode.XML_INVALID_SCHEMA.in(
          ErrorDomain.XML,
          "Unable to validate doc against %s\n%s\n".formatted(file, String.join("\n", complaints)));
    }
  }

  private synchronized javax.xml.validation.Schema compiled() {
    javax.xml.validation.Schema known = compiled;
    if (known == null) {
      SchemaFactory factory =
          SchemaFactory.newInstance(
              XMLConstants.RELAXNG_NS_URI, FACTORY, Schema.class.getClassLoader());
      factory.setResourceResolver((_, _, _, name, _) -> part(name));
      try (InputStream source = open(file)) {
        known = factory.newSchema(new StreamSource(source, file));
      } catch (SAXException | IOException e) {
        throw new IllegalStateException("schema " + file + " cannot be read", e);
      }
      compiled = known;
    }
    return known;
  }

  private static InputStream open(String file) {
    return Objects.requireNonNull(Schema.class.getResourceAsStream(file), file);
  }

  /// Another schema that one refers to: a resource, wherever classes come from.
  private static LSInput part(String name) {
    String file = name.substring(name.lastIndexOf('/') + 1);
    try {
      DOMImplementationLS dom =
          (DOMImplementationLS)
              DocumentBuilderFactory.newInstance()
                  .newDocumentBuilder()
                  .getDOMImplementation()
                  .getFeature("LS", "3.0");
      LSInput input = dom.createLSInput();
      input.setByteStream(open(file));
      input.setSystemId(file);
      return input;
    } catch (ParserConfigurationException e) {
      throw new IllegalStateException("the JDK's DOM cannot be set up", e);
    }
  }

  private record Complaints(List<String> texts) implements ErrorHandler {
    @Override
    public void warning(SAXParseException complaint) {
      // Safe because a warning says nothing against the document.
    }

    @Override
    public void error(SAXParseException complaint) {
      if (texts.size() < MAX_COMPLAINTS) {
        texts.add("line %d: %s".formatted(complaint.getLineNumber(), complaint.getMessage()));
      }
    }

    @Override
    public void fatalError(SAXParseException complaint) throws SAXException {
      throw complaint;
    }
  }
}
