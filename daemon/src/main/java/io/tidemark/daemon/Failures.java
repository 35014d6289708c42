// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.ErrorCode;
import io.tidemark.domain.ErrorDomain;
import io.tidemark.domain.LibvirtException;
import io.tidemark.rpc.ProcedureRow;
import io.tidemark.rpc.RpcException;
import java.lang.System.Logger.Level;

/// The one mapping of failures to errors on the wire.
final class Failures {
  private static final System.Logger LOG = System.getLogger(Failures.class.getName());

  private Failures() {}

  /// A refusal keeps its number and text. Anything else is a fault of this program: the client gets
  /// an internal error, the log gets all of it.
  static RpcException of(ProcedureRow procedure, Throwable failure) {
    return switch (failure) {
      case LibvirtException refusal -> {
        LOG.log(
            Level.DEBUG, "{0}: {1}: {2}", procedure.name(), refusal.code(), refusal.getMessage());
        yield error(refusal.code(), refusal.domain(), String.valueOf(refusal.getMessage()));
      }
      case RpcException refusal -> refusal;
      default -> {
        LOG.log(Level.ERROR, procedure.name() + " failed: this is a fault of the program", failure);
        yield error(
            ErrorCode.INTERNAL_ERROR, ErrorDomain.NONE, "internal error: " + failure.toString());
      }
    };
  }

  static RpcException unsupported(ProcedureRow procedure) {
    return error(
        ErrorCode.NO_SUPPORT,
        domainOf(procedure),
        "this function is not supported by the connection driver: " + procedure.libraryCall());
  }

  static RpcException readOnly(ProcedureRow procedure) {
    return error(
        ErrorCode.OPERATION_DENIED,
        domainOf(procedure),
        "operation forbidden: read only access prevents " + procedure.libraryCall());
  }

  static RpcException secureFlag(ProcedureRow procedure) {
    return error(
        ErrorCode.OPERATION_DENIED,
        domainOf(procedure),
        "operation forbidden: " + procedure.libraryCall() + " with secure flag");
  }

  static RpcException error(ErrorCode code, ErrorDomain domain, String message) {
    return new RpcException(code.number(), domain.number(), message);
  }

  /// The part of libvirt that offers the call, which is what its refusals name.
  private static ErrorDomain domainOf(ProcedureRow procedure) {
    String call = procedure.libraryCall();
    if (call.startsWith("virDomainCheckpoint")) {
      return ErrorDomain.DOMAIN_CHECKPOINT;
    }
    if (call.startsWith("virDomainSnapshot")) {
      return ErrorDomain.DOMAIN_SNAPSHOT;
    }
    if (call.startsWith("virStorage")) {
      return ErrorDomain.STORAGE;
    }
    return call.startsWith("virDomain") ? ErrorDomain.DOMAIN : ErrorDomain.NONE;
  }
}
