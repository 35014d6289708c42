// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.ImageSource;
import io.tidemark.nbd.NbdUri;
import io.tidemark.nbd.ServerTls;
import io.tidemark.nbd.TlsCredentials;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/// TLS of `export serve`: `--tls-certificates` as nbdkit has it, or `--object` and `--tls-creds` as
/// qemu-nbd has them.
final class ExportTls {
  static final NbdUri.Tls SYSTEM = new NbdUri.Tls(Optional.empty(), true, Optional.empty());

  @Mixin TlsObjects objects = new TlsObjects();

  @Option(
      names = "--tls-certificates",
      paramLabel = "FOLDER",
      description =
          "Speaks TLS with ca-cert.pem, server-cert.pem and server-key.pem of this folder.")
  @Nullable Path certificates; // null: see tlsCreds

  @Option(
      names = "--tls-creds",
      paramLabel = "ID",
      description = "Speaks TLS with the credentials that --object gave this id.")
  @Nullable String tlsCreds; // null: no TLS

  @Option(
      names = "--tls",
      paramLabel = "on|require",
      description = "Whether clients may or must use TLS. Default: require.")
  String mode = "require";

  @Option(
      names = "--tls-verify-peer",
      description = "Refuses clients without a certificate of the authority in ca-cert.pem.")
  boolean verifyPeer;

  @Option(
      names = "--tls-hostname",
      paramLabel = "NAME",
      description = "With --list: whose certificate the server must show.")
  @Nullable String hostname; // null: the address

  @Option(names = "--tls-authz", paramLabel = "ID", hidden = true)
  @Nullable String authorization; // null: any certificate of the authority

  boolean required() {
    return (certificates != null || tlsCreds != null) && mode.equals("require");
  }

  /// What a server offers.
  Optional<ServerTls> server() throws IOException, CommandException {
    if (!mode.matches("on|require")) {
      throw CommandException.usage("--tls " + mode + ": wanted on or require");
    }
    if (authorization != null) {
      throw new CommandException(
          "--tls-authz: lists of allowed certificates are not supported: every certificate of the"
              + " authority is accepted");
    }
    if (certificates != null && tlsCreds != null) {
      throw CommandException.usage("--tls-certificates and --tls-creds exclude each other");
    }
    boolean must = mode.equals("require");
    if (certificates != null) {
      return Optional.of(new ServerTls(TlsCredentials.server(certificates, verifyPeer), must));
    }
    if (tlsCreds == null) {
      return Optional.empty();
    }
    TlsObjects.Credentials found = objects.find(tlsCreds);
    if (!found.server()) {
      throw new CommandException("Expecting TLS credentials with a server endpoint");
    }
    return Optional.of(
        new ServerTls(TlsCredentials.server(found.certificates(), found.verifyPeer()), must));
  }

  /// What `--list` connects with.
  Optional<NbdUri.Tls> client(ExportAddress address) throws CommandException {
    Optional<String> host = Optional.ofNullable(hostname);
    if (tlsCreds != null) {
      TlsObjects.Credentials found = objects.find(tlsCreds);
      if (found.server()) {
        throw new CommandException("Expecting TLS credentials with a client endpoint");
      }
      return Optional.of(
          new NbdUri.Tls(Optional.of(found.certificates()), found.verifyPeer(), host));
    }
    if (host.isPresent() && certificates == null) {
      throw new CommandException("--tls-hostname requires TLS credentials");
    }
    return Optional.ofNullable(certificates)
        .map(folder -> new NbdUri.Tls(Optional.of(folder), true, host));
  }

  ImageSource resolve(ImageSource source) throws CommandException {
    return objects.resolve(source);
  }
}
