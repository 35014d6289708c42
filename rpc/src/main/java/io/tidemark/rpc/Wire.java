// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.util.Optional;
import java.util.UUID;

/// Structures that arguments, results and messages share. Field order is wire order.
public final class Wire {
  private Wire() {}

  /// remote_nonnull_domain.
  ///
  /// @param id −1 when the domain is not running
  public record Domain(String name, UUID uuid, int id) {}

  /// remote_nonnull_domain_checkpoint.
  public record Checkpoint(String name, Domain dom) {}

  /// remote_nonnull_domain_snapshot.
  public record Snapshot(String name, Domain dom) {}

  /// remote_nonnull_network: only in errors.
  public record Network(String name, UUID uuid) {}

  /// remote_nonnull_storage_pool.
  public record StoragePool(String name, UUID uuid) {}

  /// remote_typed_param.
  public record TypedParameter(String field, TypedValue value) {
    public static TypedParameter of(String field, int value) {
      return new TypedParameter(field, new TypedValue.Int(value));
    }

    public static TypedParameter unsigned(String field, int value) {
      return new TypedParameter(field, new TypedValue.UInt(value));
    }

    public static TypedParameter signed(String field, long value) {
      return new TypedParameter(field, new TypedValue.LLong(value));
    }

    public static TypedParameter unsigned(String field, long value) {
      return new TypedParameter(field, new TypedValue.ULLong(value));
    }

    public static TypedParameter of(String field, boolean value) {
      return new TypedParameter(field, new TypedValue.Bool(value));
    }

    public static TypedParameter of(String field, String value) {
      return new TypedParameter(field, new TypedValue.Text(value));
    }
  }

  /// remote_error. `int1` and `int2` are −1 when unused.
  record ErrorBody(
      int code,
      int domain,
      Optional<String> message,
      int level,
      Optional<Domain> dom,
      Optional<String> str1,
      Optional<String> str2,
      Optional<String> str3,
      int int1,
      int int2,
      Optional<Network> net) {}
}
