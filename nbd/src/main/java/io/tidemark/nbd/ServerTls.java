// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

/// TLS as an [ExportServer] offers it.
///
/// @param credentials made by [TlsCredentials#server]
/// @param required a client that does not start TLS is told nothing and opens nothing
public record ServerTls(TlsCredentials credentials, boolean required) {}
