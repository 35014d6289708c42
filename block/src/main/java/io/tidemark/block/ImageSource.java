// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// What to open: a file name, a URI, `json:{…}`, or options as QEMU's `--image-opts` has them.
/// Names of one kind become options too: the name is `file.filename`.
///
/// Made by [#parse] from a name, by [#ofOptions] from options, by [#of] from a path. Nothing is
/// opened or looked at before [ImageOpener] does.
///
/// @param text what the user or the header wrote; messages call it so
/// @param options flat, by QEMU's names; an empty `backing` says that nothing lies beneath
public record ImageSource(String text, Map<String, String> options) {
  /// Characters of a name or of options.
  public static final int MAX_TEXT = 64 << 10;

  private static final String JSON = "json:";
  private static final String DRIVER = "driver";
  private static final String FILE_NAME = "file.filename";

  public ImageSource {
    options = Map.copyOf(options);
  }

  /// A local file, whatever its name looks like.
  public static ImageSource of(Path file) {
    return new ImageSource(
        file.toString(), Map.of("file.driver", "file", FILE_NAME, file.toString()));
  }

  /// A name as qemu-img takes it: `json:{…}`, `file:NAME`, a URI such as `nbd://HOST/EXPORT`, else
  /// a file name. As in QEMU a colon before the first slash ends a protocol's name; such a file is
  /// written `./a:b`.
  ///
  /// @throws UnsupportedImageException when it is malformed
  public static ImageSource parse(String name) throws UnsupportedImageException {
    refuseLong(name);
    if (name.startsWith(JSON)) {
      return new ImageSource(name, JsonText.options(name, name.substring(JSON.length())));
    }
    if (name.isEmpty()) {
      throw new UnsupportedImageException("'': The 'file' block driver requires a file name");
    }
    if (name.startsWith("file:")) {
      String rest = name.substring("file:".length());
      return new ImageSource(name, Map.of("file.driver", "file", FILE_NAME, rest));
    }
    return new ImageSource(name, Map.of(FILE_NAME, name));
  }

  /// Options as `--image-opts` has them: `driver=qcow2,file.filename=a.img`, a comma in a value
  /// written twice. A first word without `=` names an open node in QEMU; there is none here.
  ///
  /// @throws UnsupportedImageException when they are malformed
  public static ImageSource ofOptions(String text) throws UnsupportedImageException {
    refuseLong(text);
    var options = new TreeMap<String, String>();
    int at = 0;
    while (at < text.length()) {
      var word = new StringBuilder();
      while (at < text.length() && (text.charAt(at) != ',' || text.startsWith(",,", at))) {
        at += text.charAt(at) == ',' ? 1 : 0;
        word.append(text.charAt(at++));
      }
      at++;
      int equals = word.indexOf("=");
      if (equals <= 0) {
        throw noSuchNode(text, word.toString());
      }
      options.put(
          word.substring(0, equals), word.substring(equals + 1)); // qemu: the last one counts
    }
    return new ImageSource(text, options);
  }

  static UnsupportedImageException noSuchNode(String source, String node) {
    return new UnsupportedImageException(
        source + ": Cannot find device='" + node + "' nor node-name='" + node + "'");
  }

  private static void refuseLong(String text) throws UnsupportedImageException {
    if (text.length() > MAX_TEXT) {
      throw new UnsupportedImageException(
          text.substring(0, 60)
              + "…: name of "
              + text.length()
              + " characters, at most "
              + MAX_TEXT);
    }
  }

  /// The driver that these options ask for: a format, or a protocol whose bytes are the image.
  public Optional<String> driver() {
    return Optional.ofNullable(options.get(DRIVER));
  }

  /// The scheme that a name begins with, in lower case; empty for a path.
  static Optional<String> scheme(String name) {
    int colon = name.indexOf(':');
    int slash = name.indexOf('/');
    // qemu: a colon before the first slash ends a protocol's name
    return colon >= 0 && (slash < 0 || colon < slash)
        ? Optional.of(name.substring(0, colon).toLowerCase(Locale.ROOT))
        : Optional.empty();
  }

  /// The local file that holds the image, where it is one: what relative names in the image start
  /// at the folder of.
  public Optional<Path> localFile() {
    String prefix =
        options.containsKey(FILE_NAME) || options.containsKey("file.driver") ? "file." : "";
    String driver = options.get(prefix + DRIVER);
    String name = options.get(prefix + "filename");
    if (name == null || (driver == null && scheme(name).isPresent())) {
      return Optional.empty();
    }
    if (driver != null && !FileProtocol.NAMES.contains(driver)) {
      return Optional.empty();
    }
    return FileProtocol.path(name);
  }

  /// As messages call it.
  @Override
  public String toString() {
    return text;
  }
}
