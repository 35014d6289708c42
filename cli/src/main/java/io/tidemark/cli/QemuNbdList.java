// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BlockException;
import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.ExportInfo;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import java.io.PrintWriter;
import java.util.List;

/// What a server offers, in the lines of `qemu-nbd --list`.
final class QemuNbdList {
  /// By bit of the transmission flags, from the second on.
  private static final List<String> FLAGS =
      List.of(
          "readonly",
          "flush",
          "fua",
          "rotational",
          "trim",
          "zeroes",
          "df",
          "multi",
          "resize",
          "cache",
          "fast-zero",
          "block-status-payload");

  private QemuNbdList() {}

  static void print(PrintWriter out, NbdUri server) throws BlockException {
    List<ExportInfo> exports = NbdClient.list(server, ClientOptions.defaults());
    out.println("exports available: " + exports.size());
    for (ExportInfo export : exports) {
      out.println(" export: '" + Printable.plain(export.name()) + "'");
      if (!export.description().isEmpty()) {
        out.println("  description: " + Printable.plain(export.description()));
      }
      out.println("  size:  " + export.size());
      out.println("  flags: " + flags(export.transmissionFlags()));
      out.println("  min block: " + export.minBlock());
      out.println("  opt block: " + export.preferredBlock());
      out.println("  max block: " + export.maxPayload());
      if (!export.contexts().isEmpty()) {
        out.println("  available meta contexts: " + export.contexts().size());
        export.contexts().forEach(context -> out.println("   " + Printable.plain(context)));
      }
    }
  }

  private static String flags(int flags) {
    var text = new StringBuilder(String.format("0x%x (", flags));
    for (int bit = 0; bit < FLAGS.size(); bit++) {
      if ((flags & 2 << bit) != 0) {
        text.append(' ').append(FLAGS.get(bit));
      }
    }
    return text.append(" )").toString();
  }
}
