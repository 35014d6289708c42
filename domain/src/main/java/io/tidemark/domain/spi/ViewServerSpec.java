// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.nio.file.Path;

/// Where clients that pull a backup connect (QEMU: `nbd-server-start`).
///
/// @param tls whether they must use TLS, with the driver's credentials for backups
public record ViewServerSpec(Address address, boolean tls) {
  /// A listening socket.
  public sealed interface Address {
    /// @param socket absolute; its file goes when the server stops
    record Unix(Path socket) implements Address {}

    /// @param host a name or an address of this host
    /// @param port 1 to 65535
    record Tcp(String host, int port) implements Address {}
  }
}
