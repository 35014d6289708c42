// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.InternalSnapshot;
import java.time.Duration;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.List;
import java.util.Locale;

/// The table of an image's internal snapshots, as qemu-img prints it.
final class SnapshotList {
  private static final DateTimeFormatter DATE =
      DateTimeFormatter.ofPattern("yyyy-MM-dd HH:mm:ss", Locale.ROOT);

  private SnapshotList() {}

  /// Empty when there is none.
  static String text(List<InternalSnapshot> snapshots) {
    if (snapshots.isEmpty()) {
      return "";
    }
    StringBuilder text = new StringBuilder("Snapshot list:\n");
    text.append(line("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT"));
    for (InternalSnapshot snapshot : snapshots) {
      Duration clock = snapshot.guestClock();
      text.append(
          line(
              snapshot.id(),
              snapshot.name(),
              ImageSize.human(snapshot.vmStateBytes()),
              DATE.format(snapshot.date().atZone(ZoneId.systemDefault())),
              "%02d:%02d:%02d.%03d"
                  .formatted(
                      clock.toHours(),
                      clock.toMinutesPart(),
                      clock.toSecondsPart(),
                      clock.toMillisPart()),
              snapshot.instructions().isPresent()
                  ? Long.toUnsignedString(snapshot.instructions().getAsLong())
                  : ""));
    }
    return text.toString();
  }

  private static String line(
      String id, String tag, String size, String date, String clock, String instructions) {
    return String.format(
        Locale.ROOT, "%-9s %-16s %8s%20s%13s%11s\n", id, tag, size, date, clock, instructions);
  }
}
