// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/// Holds the documents against the tree.
class DocsTest {
  private static final Pattern CODE = Pattern.compile("`([^`]+)`");
  private static final Pattern CONSTANT = Pattern.compile("(\\w+)/(\\w+)\\.([A-Z][A-Z0-9_]+)");
  private static final Pattern DOCUMENT = Pattern.compile("`((?:docs/)?[\\w/.-]+\\.md)`");

  /// The cells in backquotes of one column of all tables.
  private static List<String> column(String document, int column) throws IOException {
    List<String> cells = new ArrayList<>();
    for (String line : Files.readAllLines(Root.path().resolve(document))) {
      String[] row = line.split("\\|", -1);
      if (row.length > column + 1 && line.startsWith("| ")) {
        Matcher code = CODE.matcher(row[column + 1]);
        while (code.find()) {
          cells.add(code.group(1));
        }
      }
    }
    return cells;
  }

  @Test
  void everyFileOfTheMapIsThere() throws IOException {
    List<String> files = column("docs/map.md", 1);
    assertThat(files).hasSizeGreaterThan(10);
    assertThat(files).allSatisfy(file -> assertThat(Root.path().resolve(file)).exists());
  }

  @Test
  void everyLimitIsAConstantOfTheCode() throws IOException {
    List<String> constants = column("docs/limits.md", 2);
    assertThat(constants).isNotEmpty();
    for (String constant : constants) {
      Matcher parts = CONSTANT.matcher(constant);
      assertThat(parts.matches()).as(constant).isTrue();
      String room = parts.group(1);
      Path source =
          Root.path()
              .resolve(
                  room + "/src/main/java/io/tidemark/" + room + "/" + parts.group(2) + ".java");
      assertThat(source).as(constant).exists();
      assertThat(Files.readString(source))
          .as(constant)
          .containsPattern("\\b" + parts.group(3) + "\\s*=");
    }
  }

  @Test
  void everyDocumentThatIsNamedIsThere() throws IOException {
    for (Path document : documents()) {
      Matcher named = DOCUMENT.matcher(Files.readString(document));
      while (named.find()) {
        Path fromRoot = Root.path().resolve(named.group(1));
        Path beside = document.resolveSibling(named.group(1));
        assertThat(Files.exists(fromRoot) || Files.exists(beside))
            .as("%s names %s", Root.path().relativize(document), named.group(1))
            .isTrue();
      }
    }
  }

  private static List<Path> documents() throws IOException {
    List<Path> documents = new ArrayList<>();
    for (String name : List.of("README.md", "CONTRIBUTING.md", "CHANGELOG.md")) {
      documents.add(Root.path().resolve(name));
    }
    try (Stream<Path> docs = Files.walk(Root.path().resolve("docs"))) {
      docs.filter(path -> path.toString().endsWith(".md")).forEach(documents::add);
    }
    return documents;
  }

  @Test
  void everyCallOfLibvirtIsInTheCompatibilityTable() throws IOException {
    String table = Files.readString(Root.path().resolve("docs/compatibility.md"));
    List<String> calls =
        Files.readAllLines(
                Root.path().resolve("rpc/src/main/resources/io/tidemark/rpc/procedures.tsv"))
            .stream()
            .filter(line -> !line.startsWith("#"))
            .map(line -> line.split("\t"))
            .filter(row -> !row[4].equals("event"))
            .map(row -> "| " + row[0] + " " + row[1] + " " + row[2] + " |")
            .toList();
    assertThat(calls).hasSizeGreaterThan(350).allSatisfy(call -> assertThat(table).contains(call));
  }
}
