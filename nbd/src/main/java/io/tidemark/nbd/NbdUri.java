// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.UnsupportedImageException;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Optional;

/// Where an export is: `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`.
///
/// Spec: doc/uri.md of the NBD project.
///
/// @param socket the unix socket; absent for TCP
/// @param host name or address for TCP (IPv6 without brackets), empty for a unix socket
/// @param port TCP port, 0 for a unix socket
/// @param export decoded export name, empty for the default export
public record NbdUri(Optional<Path> socket, String host, int port, String export) {
  /// Spec: IANA, service "nbd".
  public static final int DEFAULT_PORT = 10809;

  private static final String TCP = "nbd://";
  private static final String UNIX = "nbd+unix://";

  public static NbdUri unix(Path socket, String export) {
    return new NbdUri(Optional.of(socket), "", 0, export);
  }

  public static NbdUri tcp(String host, int port, String export) {
    return new NbdUri(Optional.empty(), host, port, export);
  }

  /// Whether `text` starts as an NBD URI does, of a kind that is known here or not.
  public static boolean matches(String text) {
    return text.matches("(?i)nbds?(\\+[a-z]+)?://.*");
  }

  /// Reads a URI.
  ///
  /// @throws UnsupportedImageException when it is malformed, or of a kind that is not spoken
  ///   (`nbds:`, `nbd+vsock:`)
  public static NbdUri parse(String text) throws UnsupportedImageException {
    if (text.regionMatches(true, 0, TCP, 0, TCP.length())) {
      return parseTcp(text, Parts.of(text, text.substring(TCP.length())));
    }
    if (text.regionMatches(true, 0, UNIX, 0, UNIX.length())) {
      return parseUnix(text, Parts.of(text, text.substring(UNIX.length())));
    }
    throw malformed(text, "scheme is neither nbd nor nbd+unix");
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
    for (String parameter : parts.query.split("&")) {
      if (parameter.startsWith("socket=")) {
        String path = decode(text, parameter.substring("socket=".length()));
        try {
          return unix(Path.of(path), parts.export);
        } catch (InvalidPathException e) {
          throw malformed(text, "socket path: " + e.getReason());
        }
      }
    }
    throw malformed(text, "no socket=PATH");
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
    if (socket.isPresent()) {
      return UNIX + "/" + name + "?socket=" + escape(socket.get().toString());
    }
    String where = host.indexOf(':') >= 0 ? "[" + host + "]" : escape(host);
    return TCP + where + (port == DEFAULT_PORT ? "" : ":" + port) + "/" + name;
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
