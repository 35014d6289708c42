// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.Checkpoint;
import io.tidemark.domain.DomainRef;
import io.tidemark.domain.Snapshot;
import io.tidemark.domain.TypedParam;
import io.tidemark.rpc.TypedValue;
import io.tidemark.rpc.Wire;
import java.util.List;

/// Values of the domain room as the wire has them, and back.
final class Convert {
  private Convert() {}

  static Wire.Domain wire(DomainRef ref) {
    return new Wire.Domain(ref.name(), ref.uuid(), ref.id());
  }

  static DomainRef ref(Wire.Domain dom) {
    return new DomainRef(dom.name(), dom.uuid(), dom.id());
  }

  static Wire.Checkpoint wire(Checkpoint checkpoint) {
    return new Wire.Checkpoint(checkpoint.name(), wire(checkpoint.domain().ref()));
  }

  static Wire.Snapshot wire(Snapshot snapshot) {
    return new Wire.Snapshot(snapshot.name(), wire(snapshot.domain().ref()));
  }

  static List<Wire.TypedParameter> wire(List<TypedParam> params) {
    return params.stream().map(Convert::wire).toList();
  }

  private static Wire.TypedParameter wire(TypedParam param) {
    return new Wire.TypedParameter(
        param.name(),
        switch (param) {
          case TypedParam.Int(_, int value) -> new TypedValue.Int(value);
          case TypedParam.UInt(_, int value) -> new TypedValue.UInt(value);
          case TypedParam.LLong(_, long value) -> new TypedValue.LLong(value);
          case TypedParam.ULLong(_, long value) -> new TypedValue.ULLong(value);
          case TypedParam.Dbl(_, double value) -> new TypedValue.Real(value);
          case TypedParam.Bool(_, boolean value) -> new TypedValue.Bool(value);
          case TypedParam.Str(_, String value) -> new TypedValue.Text(value);
        });
  }

  static List<TypedParam> params(List<Wire.TypedParameter> params) {
    return params.stream().map(Convert::param).toList();
  }

  private static TypedParam param(Wire.TypedParameter param) {
    String name = param.field();
    return switch (param.value()) {
      case TypedValue.Int(int value) -> new TypedParam.Int(name, value);
      case TypedValue.UInt(int value) -> new TypedParam.UInt(name, value);
      case TypedValue.LLong(long value) -> new TypedParam.LLong(name, value);
      case TypedValue.ULLong(long value) -> new TypedParam.ULLong(name, value);
      case TypedValue.Real(double value) -> new TypedParam.Dbl(name, value);
      case TypedValue.Bool(boolean value) -> new TypedParam.Bool(name, value);
      case TypedValue.Text(String value) -> new TypedParam.Str(name, value);
    };
  }
}
