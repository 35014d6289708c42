// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.Throttle;
import io.tidemark.domain.spi.ThrottleSpec;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/// The limits of a domain's drives, by group. Guarded by the domain's lock.
final class Throttles {
  private final Map<String, Throttle> groups = new HashMap<>();

  /// Other limits for a drive and for those of its group; none: the drive leaves its group.
  void set(GuestDrive drive, Optional<ThrottleSpec> spec) {
    if (spec.isEmpty()) {
      drive.drive().throttle(Optional.empty());
      return;
    }
    String group =
        spec.get().group().isEmpty() ? "drive " + drive.target() : "group " + spec.get().group();
    Throttle throttle = groups.computeIfAbsent(group, _ -> new Throttle());
    throttle.set(limits(spec.get()), spec.get().operationBytes());
    drive.drive().throttle(Optional.of(throttle));
  }

  private static Map<Throttle.Kind, Throttle.Limit> limits(ThrottleSpec spec) {
    Map<Throttle.Kind, Throttle.Limit> limits = new EnumMap<>(Throttle.Kind.class);
    spec.limits()
        .forEach((kind, limit) ->
            limits.put(
                kind(kind),
                new Throttle.Limit(limit.average(), limit.max(), limit.lengthSeconds())));
    return limits;
  }

  private static Throttle.Kind kind(ThrottleSpec.Kind kind) {
    return switch (kind) {
      case TOTAL_BYTES -> Throttle.Kind.TOTAL_BYTES;
      case READ_BYTES -> Throttle.Kind.READ_BYTES;
      case WRITE_BYTES -> Throttle.Kind.WRITE_BYTES;
      case TOTAL_OPERATIONS -> Throttle.Kind.TOTAL_OPERATIONS;
      case READ_OPERATIONS -> Throttle.Kind.READ_OPERATIONS;
      case WRITE_OPERATIONS -> Throttle.Kind.WRITE_OPERATIONS;
    };
  }
}
