// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// What libvirt 9.0.0 says about one procedure, whether it is served here or not.
///
/// @param name as in libvirt's interface file, without REMOTE_PROC_
/// @param libraryCall the client library's function, the word of error texts; `-` for none
/// @param access who may call it
/// @param writableFlags flag bits that a read-only connection may not give
public record ProcedureRow(
    Program program,
    int number,
    String name,
    String libraryCall,
    Access access,
    int writableFlags) {
  /// Who may call.
  public enum Access {
    /// Every connection.
    READ,
    /// A writable connection.
    WRITE,
    /// Nobody: the server sends it.
    EVENT
  }

  private record Key(Program program, int number) {}

  private static final class Table {
    static final Map<Key, ProcedureRow> ROWS = load();
  }

  /// Empty for a number that libvirt 9.0.0 does not know.
  public static Optional<ProcedureRow> of(Program program, int number) {
    return Optional.ofNullable(Table.ROWS.get(new Key(program, number)));
  }

  public static List<ProcedureRow> all() {
    return List.copyOf(Table.ROWS.values());
  }

  private static Map<Key, ProcedureRow> load() {
    Map<Key, ProcedureRow> rows = new HashMap<>();
    for (String line : lines()) {
      if (!line.startsWith("#")) {
        ProcedureRow row = parse(line.split("\t", -1));
        rows.put(new Key(row.program, row.number), row);
      }
    }
    return rows;
  }

  private static ProcedureRow parse(String[] fields) {
    Program program = fields[0].equals(Program.REMOTE.word()) ? Program.REMOTE : Program.QEMU;
    String[] access = fields[4].split("!", -1);
    return new ProcedureRow(
        program,
        Integer.parseInt(fields[1]),
        fields[2],
        fields[3],
        switch (access[0]) {
          case "read" -> Access.READ;
          case "write" -> Access.WRITE;
          case "event" -> Access.EVENT;
          default -> throw new AssertionError("procedures.tsv: access " + fields[4]);
        },
        access.length > 1 ? Integer.parseInt(access[1]) : 0);
  }

  private static List<String> lines() {
    try (InputStream in = ProcedureRow.class.getResourceAsStream("procedures.tsv")) {
      if (in == null) {
        throw new AssertionError("procedures.tsv is not in the module");
      }
      List<String> lines = new ArrayList<>();
      BufferedReader reader =
          new BufferedReader(new InputStreamReader(in, StandardCharsets.US_ASCII));
      for (String line = reader.readLine(); line != null; line = reader.readLine()) {
        lines.add(line);
      }
      return lines;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
