// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.UnsupportedImageException;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Optional;

/// Where an export is: `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`, and with TLS
/// `nbds://` or `nbds+unix://`, where the query may have `tls-certificates=FOLDER`,
/// `tls-verify-peer=false` and `tls-hostname=NAME`.
///
/// Spec: doc/uri.md of the NBD project.
///
/// @param socket the unix socket; absent for TCP
/// @param host name or address for TCP (IPv6 without brackets), empty for a unix socket
/// @param port TCP port, 0 for a unix socket
/// @param export decoded export name, empty for the default export
/// @param tls how TLS is spoken; absent: not at all
public record NbdUri(
    Optional<Path> socket, String host, int port, String export, Optional<Tls> tls) {
  /// What a URI says of TLS.
  ///
  /// @param certificates folder for [TlsCredentials#client]; absent: the system's authorities
  /// @param verifyPeer whether the server must prove who it is
  /// @param hostname whose certificate it must show; absent: the URI's host, and on a unix socket
  ///   any that the authority signed
  public record Tls(Optional<Path> certificates, boolean verifyPeer, Optional<String> hostname) {}

  /// Spec: IANA, service "nbd".
  public static final int DEFAULT_PORT = 10809;

  private static final String TCP = "nbd://";
  private static final String UNIX = "nbd+unix://";
  private static final String TCP_TLS = "nbds://";
  private static final String UNIX_TLS = "nbds+unix://";

  public static NbdUri unix(Path socket, String export) {
    return new NbdUri(Optional.of(socket), "", 0, export, Optional.empty());
  }

  public static NbdUri tcp(String host, int port, String export) {
    return new NbdUri(Optional.empty(), host, port, export, Optional.empty());
  }

  /// The same place, reached with TLS.
  public NbdUri withTls(Tls value) {
    return new NbdUri(socket, host, port, export, Optional.of(value));
  }

  /// Whether `text` starts as an NBD URI does, of a kind that is known here or not.
  public static boolean matches(String text) {
    return text.matches("(?i)nbds?(\\+[a-z]+)?://.*");
  }

  /// Reads a URI.
  ///
  /// @throws UnsupportedImageException when it is malformed, or of a kind that is not spoken
  ///   (`nbd+vsock:`)
  public static NbdUri parse(String text) throws UnsupportedImageException {
    if (text.regionMatches(true, 0, TCP, 0, TCP.length())) {
      return parseTcp(text, Parts.of(text, text.substring(TCP.length())));
    }
    if (text.regionMatches(true, 0, UNIX, 0, UNIX.length())) {
      return parseUnix(text, Parts.of(text, text.substring(UNIX.length())));
    }
    if (text.regionMatches(true, 0, TCP_TLS, 0, TCP_TLS.length())) {
      Parts parts = Parts.of(text, text.substring(TCP_TLS.length()));
      return parseTcp(text, parts).withTls(parseTls(text, parts));
    }
    if (text.regionMatches(true, 0, UNIX_TLS, 0, UNIX_TLS.length())) {
      Parts parts = Parts.of(text, text.substring(UNIX_TLS.length()));
      return parseUnix(text, parts).withTls(parseTls(text, parts));
    }
    throw malformed(text, "scheme is none of nbd, nbds, nbd+unix, nbds+unix");
  }

  private static Tls parseTls(String text, Parts parts) throws UnsupportedImageException {
    Optional<String> folder = parts.parameter(text, "tls-certificates");
    String verify = parts.parameter(text, "tls-verify-peer").orElse("true");
    if (!verify.matches("true|false|1|0")) {
      throw malformed(text, "tls-verify-peer=" + verify + ", wanted true or false");
    }
    if (parts.parameter(text, "tls-psk-file").isPresent()) {
      throw malformed(text, "tls-psk-file: there are no pre-shared keys here, use certificates");
    }
    try {
      return new Tls(
          folder.map(Path::of),
          verify.equals("true") || verify.equals("1"),
          parts.parameter(text, "tls-hostname"));
    } catch (InvalidPathException e) {
      throw malformed(text, "tls-certificates: " + e.getReason());
    }
  }

  private static NbdUri parseTcp(String text, Parts parts) throws UnsupportedImageException {
    String authority = parts.authority.substring(parts.authority.lastIndexOf('@') + 1);
    int colon = authority.lastIndexOf(':');
    boolean portGiven = colon > authority.lastIndexOf(']');
    String host = portGiven ? authority.substring(0, colon) : authority;
    if (host.startsWith("[") && host.endsWith("]")) {
      host = host.substring(1, host.length() - 1);
    }
    if (host.isEmpty()) {
      host = "localhost";
    }
    int port = portGiven ? port(text, authority.substring(colon + 1)) : DEFAULT_PORT;
    return tcp(decode(text, host), port, parts.export);
  }

  private static int port(String text, String digits) throws UnsupportedImageException {
    if (digits.isEmpty()) {
      return DEFAULT_PORT;
    }
    if (!digits.matches("[0-9]{1,5}") || Integer.parseInt(digits) > 65535) {
      throw malformed(text, "port " + digits + ", wanted a number up to 65535");
    }
    return Integer.parseInt(digits);
  }

  private static NbdUri parseUnix(String text, Parts parts) throws UnsupportedImageException {
    if (!parts.authority.isEmpty()) {
      throw malformed(text, "host in a unix socket's URI");
    }
    Optional<String> path = parts.parameter(text, "socket");
    if (path.isEmpty()) {
      throw malformed(text, "no socket=PATH");
    }
    try {
      return unix(Path.of(path.get()), parts.export);
    } catch (InvalidPathException e) {
      throw malformed(text, "socket path: " + e.getReason());
    }
  }

  /// The pieces of what follows `//`, the export name decoded.
  private record Parts(String authority, String export, String query) {
    static Parts of(String text, String rest) throws UnsupportedImageException {
      int question = rest.indexOf('?');
      String query = question < 0 ? "" : rest.substring(question + 1);
      String hierarchy = question < 0 ? rest : rest.substring(0, question);
      int slash = hierarchy.indexOf('/');
      String authority = slash < 0 ? hierarchy : hierarchy.substring(0, slash);
      String export = slash < 0 ? "" : decode(text, hierarchy.substring(slash + 1));
      if (export.getBytes(UTF_8).length > Export.MAX_NAME_BYTES) {
        throw malformed(text, "export name longer than " + Export.MAX_NAME_BYTES + " bytes");
      }
      return new Parts(authority, export, query);
    }

    /// The first parameter of that name, decoded.
    Optional<String> parameter(String text, String name) throws UnsupportedImageException {
      for (String parameter : query.split("[&;]")) {
        if (parameter.startsWith(name + "=")) {
          return Optional.of(decode(text, parameter.substring(name.length() + 1)));
        }
      }
      return Optional.empty();
    }
  }

  private static String decode(String text, String encoded) throws UnsupportedImageException {
    if (encoded.indexOf('%') < 0) {
      return encoded;
    }
    var bytes = new ByteArrayOutputStream();
    byte[] raw = encoded.getBytes(UTF_8);
    for (int i = 0; i < raw.length; i++) {
      if (raw[i] != '%') {
        bytes.write(raw[i]);
        continue;
      }
      int high = i + 2 < raw.length ? Character.digit(raw[i + 1], 16) : -1;
      int low = i + 2 < raw.length ? Character.digit(raw[i + 2], 16) : -1;
      if (high < 0 || low < 0) {
        throw malformed(text, "% not followed by two hexadecimal digits");
      }
      bytes.write(high * 16 + low);
      i += 2;
    }
    try {
      return UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes.toByteArray())).toString();
    } catch (CharacterCodingException e) {
      throw malformed(text, "escapes are not UTF-8");
    }
  }

  private static UnsupportedImageException malformed(String text, String why) {
    return new UnsupportedImageException(text + ": " + why);
  }

  /// The URI, escaped so that [#parse] gives it back.
  @Override
  public String toString() {
    String name = escape(export);
    var query = new ArrayList<String>();
    socket.ifPresent(path -> query.add("socket=" + escape(path.toString())));
    if (tls.isPresent()) {
      tls.get()
          .certificates()
          .ifPresent(f -> query.add("tls-certificates=" + escape(f.toString())));
      tls.get().hostname().ifPresent(host -> query.add("tls-hostname=" + escape(host)));
      if (!tls.get().verifyPeer()) {
        query.add("tls-verify-peer=false");
      }
    }
    String parameters = query.isEmpty() ? "" : "?" + String.join("&", query);
    if (socket.isPresent()) {
      return (tls.isPresent() ? UNIX_TLS : UNIX) + "/" + name + parameters;
    }
    String where = host.indexOf(':') >= 0 ? "[" + host + "]" : escape(host);
    return (tls.isPresent() ? TCP_TLS : TCP)
        + where
        + (port == DEFAULT_PORT ? "" : ":" + port)
        + "/"
        + name
        + parameters;
  }

  private static String escape(String plain) {
    var text = new StringBuilder();
    for (byte b : plain.getBytes(UTF_8)) {
      char c = (char) (b & 0xff);
      if (c < 0x80 && (Character.isLetterOrDigit(c) || "-._~/:,+=@".indexOf(c) >= 0)) {
        text.append(c);
      } else {
        text.append('%').append(Character.toUpperCase(Character.forDigit(c >> 4, 16)));
        text.append(Character.toUpperCase(Character.forDigit(c & 15, 16)));
      }
    }
    return text.toString();
  }
}
