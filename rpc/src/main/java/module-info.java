// SPDX-License-Identifier: Apache-2.0
/// libvirt's remote protocol: XDR, packets, procedures, a server and a client.
@org.jspecify.annotations.NullMarked
module io.tidemark.rpc {
  requires static org.jspecify;

  exports io.tidemark.rpc;
}
