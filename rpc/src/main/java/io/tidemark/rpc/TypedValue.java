// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

/// The value of a typed parameter: a union whose tag is libvirt's virTypedParameterType.
public sealed interface TypedValue {
  record Int(int value) implements TypedValue {}

  record UInt(int value) implements TypedValue {}

  record LLong(long value) implements TypedValue {}

  record ULLong(long value) implements TypedValue {}

  record Real(double value) implements TypedValue {}

  record Bool(boolean value) implements TypedValue {}

  record Text(String value) implements TypedValue {}
}
