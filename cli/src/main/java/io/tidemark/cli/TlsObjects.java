// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.ImageSource;
import io.tidemark.block.UnsupportedImageException;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.Option;

/// `--object tls-creds-x509,…` of a command, QEMU's way to name TLS credentials, for `tls-creds=ID`
/// in an image's options and for `--tls-creds ID`.
final class TlsObjects {
  static final String LABEL = "TYPE,id=ID,…";
  static final String DESCRIPTION =
      "TLS credentials: tls-creds-x509,id=ID,dir=FOLDER,endpoint=server|client[,verify-peer=on|off].";

  @Option(names = "--object", paramLabel = LABEL, description = DESCRIPTION)
  List<String> objects = new ArrayList<>();

  /// @param certificates folder of PEM files
  record Credentials(Path certificates, boolean server, boolean verifyPeer) {}

  /// What an id names.
  Credentials find(String id) throws CommandException {
    Credentials found = all().get(id);
    if (found == null) {
      throw new CommandException("No TLS credentials with id '" + id + "'");
    }
    return found;
  }

  private Map<String, Credentials> all() throws CommandException {
    var all = new LinkedHashMap<String, Credentials>();
    for (String object : objects) {
      int comma = object.indexOf(',');
      String type = comma < 0 ? object : object.substring(0, comma);
      Map<String, String> options;
      try {
        options =
            new HashMap<>(
                ImageSource.ofOptions(comma < 0 ? "" : object.substring(comma + 1)).options());
      } catch (UnsupportedImageException malformed) {
        throw CommandException.usage("--object " + object + ": wanted KEY=VALUE after the type");
      }
      String explicit = options.remove("qom-type");
      if (explicit != null) {
        type = explicit;
      }
      switch (type) {
        case "tls-creds-x509" -> {}
        case "tls-creds-psk" ->
            throw new CommandException(
                "--object tls-creds-psk: pre-shared keys are not supported, use tls-creds-x509");
        default ->
            throw new CommandException(
                "--object " + type + ": not supported, wanted tls-creds-x509");
      }
      put(all, object, options);
    }
    return all;
  }

  private static void put(Map<String, Credentials> all, String object, Map<String, String> options)
      throws CommandException {
    String id = options.remove("id");
    String folder = options.remove("dir");
    if (id == null || folder == null) {
      throw CommandException.usage("--object " + object + ": wanted id=ID and dir=FOLDER");
    }
    String endpoint = Optional.ofNullable(options.remove("endpoint")).orElse("client");
    String verify = Optional.ofNullable(options.remove("verify-peer")).orElse("on");
    options.remove("sanity-check");
    options.remove("priority");
    if (!endpoint.matches("client|server") || !verify.matches("on|off|yes|no|true|false")) {
      throw CommandException.usage(
          "--object " + object + ": wanted endpoint=client|server and verify-peer=on|off");
    }
    if (!options.isEmpty()) {
      throw CommandException.usage(
          "--object " + object + ": unknown " + options.keySet().iterator().next());
    }
    all.put(
        id,
        new Credentials(folder(folder), endpoint.equals("server"), verify.matches("on|yes|true")));
  }

  private static Path folder(String name) throws CommandException {
    try {
      return Path.of(name);
    } catch (InvalidPathException malformed) {
      throw new CommandException(name + ": not a folder's name: " + malformed.getReason());
    }
  }

  /// The source with the folder of its credentials in place of their id.
  ImageSource resolve(ImageSource source) throws CommandException {
    if (source.options().keySet().stream().noneMatch(TlsObjects::isCreds)) {
      return source;
    }
    var options = new HashMap<String, String>();
    for (Map.Entry<String, String> option : source.options().entrySet()) {
      String key = option.getKey();
      if (isCreds(key)) {
        String prefix = key.substring(0, key.length() - "tls-creds".length());
        Credentials found = find(option.getValue());
        if (found.server()) {
          throw new CommandException("Expecting TLS credentials with a client endpoint");
        }
        options.put(prefix + "tls-certificates", found.certificates().toString());
        options.put(prefix + "tls-verify-peer", found.verifyPeer() ? "on" : "off");
      } else {
        options.put(key, option.getValue());
      }
    }
    return new ImageSource(source.text(), options);
  }

  private static boolean isCreds(String key) {
    return key.equals("tls-creds") || key.endsWith(".tls-creds");
  }
}
