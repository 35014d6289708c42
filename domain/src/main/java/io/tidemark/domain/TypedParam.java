// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// A named value of one of libvirt's seven kinds (virTypedParameter).
public sealed interface TypedParam {
  /// The field's name as libvirt spells it: `disk_total`.
  String name();

  record Int(String name, int value) implements TypedParam {}

  /// @param value the 32 bits, unsigned
  record UInt(String name, int value) implements TypedParam {}

  record LLong(String name, long value) implements TypedParam {}

  /// @param value the 64 bits, unsigned
  record ULLong(String name, long value) implements TypedParam {}

  record Dbl(String name, double value) implements TypedParam {}

  record Bool(String name, boolean value) implements TypedParam {}

  record Str(String name, String value) implements TypedParam {}
}
