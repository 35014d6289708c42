// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.ViewServerSpec;
import io.tidemark.domain.spi.ViewServerSpec.Address;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.nio.file.Path;

/// `<server>` of a pull backup: where its clients connect.
///
/// @param address with port 0 when the client gave none
record BackupServer(Address address, boolean tls) {
  private static final int MAX_PORT = 65_535;

  /// @param server of a document that the schema took
  static BackupServer of(XmlElement server) throws LibvirtException {
    boolean tls = server.attribute("tls").equals("yes");
    if (server.attribute("transport").equals("unix")) {
      return new BackupServer(new Address.Unix(DiskElement.path(server.attribute("socket"))), tls);
    }
    String text = server.attribute("port");
    int port = text.isEmpty() ? 0 : Integer.parseInt(text);
    if (port > MAX_PORT) {
      throw ErrorCode.XML_ERROR.in(
          ErrorDomain.DOMAIN, "failed to parse port number '%s'".formatted(text));
    }
    return new BackupServer(new Address.Tcp(server.attribute("name"), port), tls);
  }

  /// As clients see it.
  XmlElement toXml() {
    XmlElement server = new XmlElement("server");
    switch (address) {
      case Address.Unix(Path socket) ->
          server.attribute("transport", "unix").attribute("socket", socket);
      case Address.Tcp(String host, int port) -> {
        server.attribute("transport", "tcp");
        if (tls) {
          server.attribute("tls", "yes");
        }
        server.attribute("name", host).attribute("port", port);
      }
    }
    if (tls && address instanceof Address.Unix) {
      server.attribute("tls", "yes");
    }
    return server;
  }

  /// With its host as an address, so that nobody waits for a name service under a domain's lock.
  /// What cannot be resolved stays as it is: listening fails for it, with the reason.
  BackupServer resolved() {
    if (address instanceof Address.Tcp(String host, int port)) {
      try {
        return new BackupServer(
            new Address.Tcp(InetAddress.getByName(host).getHostAddress(), port), tls);
      } catch (UnknownHostException _) {
        return this;
      }
    }
    return this;
  }

  ViewServerSpec spec() {
    return new ViewServerSpec(address, tls);
  }

  void requirePort() throws LibvirtException {
    if (address instanceof Address.Tcp(_, int port) && port == 0) {
      throw ErrorCode.OPERATION_UNSUPPORTED.because("<domainbackup> must specify TCP port for now");
    }
  }
}
