// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

/// An error as libvirt's wire carries it: what a server's call ends with, and what a client's call
/// received.
public final class RpcException extends Exception {
  private static final long serialVersionUID = 1L;

  /// VIR_ERR_RPC and VIR_FROM_RPC: the protocol itself.
  static final int CODE_RPC = 39;

  static final int DOMAIN_RPC = 7;
  private static final int CODE_INTERNAL_ERROR = 1;

  /// virErrorLevel of every error.
  static final int LEVEL_ERROR = 2;

  private final int code;
  private final int domain;

  /// @param code virErrorNumber
  /// @param domain virErrorDomain
  public RpcException(int code, int domain, String message) {
    super(message);
    this.code = code;
    this.domain = domain;
  }

  /// An error of the protocol: undecodable, unknown, before authentication. Clients take a plain
  /// one for a broken connection, so no call of ours ends with it for another reason.
  public static RpcException protocol(String message) {
    return new RpcException(CODE_RPC, DOMAIN_RPC, message);
  }

  /// A misuse of the connection: opened twice, or not at all.
  public static RpcException connection(String message) {
    return new RpcException(CODE_INTERNAL_ERROR, DOMAIN_RPC, "internal error: " + message);
  }

  public int code() {
    return code;
  }

  public int domain() {
    return domain;
  }

  @Override
  public String getMessage() {
    return String.valueOf(super.getMessage());
  }
}
