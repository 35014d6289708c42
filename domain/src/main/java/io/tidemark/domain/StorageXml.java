// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.Storage;
import java.util.Optional;
import java.util.Set;

/// `type` and `<source>` of a disk, backing store or mirror.
///
/// Spec: libvirt `docs/formatdomain.rst`, "Hard drives, floppy disks, CDROMs": types file, block
/// and network with the protocol nbd.
final class StorageXml {
  private static final int MAX_PORT = 65_535;

  /// What libvirt 9.0 knows, whether or not it is handled here.
  private static final Set<String> PROTOCOLS =
      Set.of(
          "nbd",
          "rbd",
          "sheepdog",
          "gluster",
          "iscsi",
          "http",
          "https",
          "ftp",
          "ftps",
          "tftp",
          "ssh",
          "vxhs",
          "nfs");

  private static final Set<String> TRANSPORTS = Set.of("tcp", "unix", "rdma");

  private StorageXml() {}

  /// Where an element's image lies; empty when it names none.
  ///
  /// @throws LibvirtException when it names one that is malformed or of a kind that is not handled
  static Optional<Storage> read(XmlElement element) throws LibvirtException {
    Optional<XmlElement> source = element.child("source");
    if (source.isEmpty()) {
      return Optional.empty();
    }
    String type = element.hasAttribute("type") ? element.attribute("type") : "file";
    return switch (type) {
      case "file" -> {
        String file = source.get().attribute("file");
        yield file.isEmpty()
            ? Optional.empty()
            : Optional.of(new Storage.LocalFile(DiskElement.path(file)));
      }
      case "block" -> {
        String device = source.get().attribute("dev");
        yield device.isEmpty()
            ? Optional.empty()
            : Optional.of(new Storage.Device(DiskElement.path(device)));
      }
      case "network" -> Optional.of(nbd(source.get()));
      default ->
          throw ErrorCode.CONFIG_UNSUPPORTED.because(
              "disk type '%s' is not supported, only 'file', 'block' and 'network' are"
                  .formatted(type));
    };
  }

  private static Storage.Nbd nbd(XmlElement source) throws LibvirtException {
    String protocol = source.attribute("protocol");
    if (protocol.isEmpty()) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.XML, "Missing required attribute 'protocol' in element 'source'");
    }
    if (!PROTOCOLS.contains(protocol)) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.XML,
          "Invalid value for attribute 'protocol' in element 'source': '%s'.".formatted(protocol));
    }
    if (!protocol.equals("nbd")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "network disk protocol '%s' is not supported, only 'nbd' is".formatted(protocol));
    }
    if (source.attribute("tls").equals("yes")) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because("TLS of network disks is not supported");
    }
    if (source.children("host").size() != 1) {
      throw ErrorCode.INTERNAL_ERROR.because("nbd protocol accepts only one host");
    }
    XmlElement host = source.childOrNew("host");
    String export = source.attribute("name");
    String transport = host.hasAttribute("transport") ? host.attribute("transport") : "tcp";
    return switch (transport) {
      case "unix" -> {
        String socket = host.attribute("socket");
        if (!socket.startsWith("/")) {
          throw ErrorCode.XML_ERROR.in(ErrorDomain.DOMAIN, "missing socket for unix transport");
        }
        yield new Storage.Nbd(
            Optional.of(DiskElement.path(socket)), "", 0, export, reconnect(source));
      }
      case "tcp" -> {
        if (host.attribute("name").isEmpty()) {
          throw ErrorCode.XML_ERROR.in(ErrorDomain.DOMAIN, "missing name for host");
        }
        yield new Storage.Nbd(
            Optional.empty(),
            host.attribute("name"),
            port(host.attribute("port")),
            export,
            reconnect(source));
      }
      default ->
          throw TRANSPORTS.contains(transport)
              ? ErrorCode.CONFIG_UNSUPPORTED.because(
                  "transport '%s' of an nbd disk is not supported".formatted(transport))
              : ErrorCode.CONFIG_UNSUPPORTED.in(
                  ErrorDomain.DOMAIN, "unknown protocol transport type '%s'".formatted(transport));
    };
  }

  private static int reconnect(XmlElement source) throws LibvirtException {
    Optional<XmlElement> reconnect = source.child("reconnect");
    if (reconnect.isEmpty() || !reconnect.get().hasAttribute("delay")) {
      return 0;
    }
    String delay = reconnect.get().attribute("delay");
    if (!delay.matches("[0-9]{1,9}")) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.XML,
          "Invalid value for attribute 'delay' in element 'reconnect': '%s'. Expected integer value"
              .formatted(delay));
    }
    return Integer.parseInt(delay);
  }

  private static int port(String text) throws LibvirtException {
    if (text.isEmpty()) {
      return Storage.Nbd.DEFAULT_PORT;
    }
    if (!text.matches("[0-9]{1,9}")) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.NONE, "failed to parse port number '%s'".formatted(text));
    }
    int port = Integer.parseInt(text);
    if (port > MAX_PORT) {
      throw ErrorCode.INVALID_ARG.in(ErrorDomain.NONE, "port '%s' out of range".formatted(text));
    }
    return port == 0 ? Storage.Nbd.DEFAULT_PORT : port;
  }

  /// Makes an element name an image; what else its source holds stays, but for what names another.
  static void write(XmlElement element, Storage storage) {
    XmlElement source = element.childOrNew("source");
    for (String attribute : new String[] {"file", "dev", "protocol", "name", "tls"}) {
      source.removeAttribute(attribute);
    }
    source.removeChildren("host");
    source.removeChildren("reconnect");
    switch (storage) {
      case Storage.LocalFile(var file) -> {
        element.attribute("type", "file");
        source.attribute("file", file);
      }
      case Storage.Device(var device) -> {
        element.attribute("type", "block");
        source.attribute("dev", device);
      }
      case Storage.Nbd nbd -> {
        element.attribute("type", "network");
        source.attribute("protocol", "nbd").attribute("name", nbd.export()).attribute("tls", "no");
        XmlElement host = source.add("host");
        if (nbd.socket().isPresent()) {
          host.attribute("transport", "unix").attribute("socket", nbd.socket().get());
        } else {
          host.attribute("name", nbd.host()).attribute("port", nbd.port());
        }
        if (nbd.reconnectSeconds() > 0) {
          source.add("reconnect").attribute("delay", nbd.reconnectSeconds());
        }
      }
    }
    source.attributesFirst(java.util.List.of("file", "dev", "protocol", "name", "tls"));
  }
}
