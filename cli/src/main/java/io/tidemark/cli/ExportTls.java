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

/// TLS of `export serve`: `--tls-certificates` as nbdkit has it, or `--object` and `--tls-creds` as
/// qemu-nbd has them.
final class ExportTls {
  static final NbdUri.Tls SYSTEM = new NbdUri.Tls(Optional.empty(), true, Optional.empty());

  private final TlsObjects objects = new TlsObjects();

  private @Nullable Path certificates; // null: see tlsCreds

  private @Nullable String tlsCreds; // null: no TLS

  private String mode = "require";

  private boolean verifyPeer;

  private @Nullable String hostname; // null: the address

  private @Nullable String authorization; // null: any certificate of the authority

  void declare(DeclaredCommand command) {
    command.option(
        Path.class,
        "FOLDER",
        "Speaks TLS with ca-cert.pem, server-cert.pem and server-key.pem of this folder.",
        v -> certificates = v,
        "--tls-certificates");
    command.option(
        String.class,
        "ID",
        "Speaks TLS with the credentials that --object gave this id.",
        v -> tlsCreds = v,
        "--tls-creds");
    command.option(
        String.class,
        "on|require",
        "Whether clients may or must use TLS. Default: require.",
        v -> mode = v,
        "--tls");
    command.flag(
        "Refuses clients without a certificate of the authority in ca-cert.pem.",
        v -> verifyPeer = v,
        "--tls-verify-peer");
    command.option(
        String.class,
        "NAME",
        "With --list: whose certificate the server must show.",
        v -> hostname = v,
        "--tls-hostname");
    command.hidden("ID", v -> authorization = v, "--tls-authz");
    command.options(TlsObjects.LABEL, TlsObjects.DESCRIPTION, v -> objects.objects = v, "--object");
  }

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
