// SPDX-License-Identifier: Apache-2.0
package io.tidemark.rpc;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class ProcedureRowTest {
  @Test
  void knowsEveryNumberOfLibvirt9AndNoOther() {
    List<Integer> missing =
        IntStream.rangeClosed(1, 443)
            .filter(number -> ProcedureRow.of(Program.REMOTE, number).isEmpty())
            .boxed()
            .toList();
    assertThat(missing).isEmpty();
    assertThat(ProcedureRow.of(Program.REMOTE, 0)).isEmpty();
    assertThat(ProcedureRow.of(Program.REMOTE, 444)).isEmpty();
    assertThat(ProcedureRow.of(Program.QEMU, 8)).isEmpty();
  }

  @Test
  void saysWhoMayCallAndUnderWhichNameTheLibraryOffersIt() {
    ProcedureRow xml = Remote.DOMAIN_GET_XML_DESC.row();
    assertThat(xml)
        .isEqualTo(
            new ProcedureRow(
                Program.REMOTE,
                14,
                "DOMAIN_GET_XML_DESC",
                "virDomainGetXMLDesc",
                ProcedureRow.Access.READ,
                9));
    assertThat(Remote.DOMAIN_BLOCK_COPY.row().access()).isEqualTo(ProcedureRow.Access.WRITE);
    assertThat(ProcedureRow.of(Program.REMOTE, 318).orElseThrow().access())
        .isEqualTo(ProcedureRow.Access.EVENT);
  }

  @Test
  void everyEventKindHasItsMessages() {
    for (EventKind kind : EventKind.values()) {
      assertThat(ProcedureRow.of(Program.REMOTE, kind.message(false)).orElseThrow().access())
          .as(kind.name())
          .isEqualTo(ProcedureRow.Access.EVENT);
      if (kind.old()) {
        assertThat(ProcedureRow.of(Program.REMOTE, kind.message(true)).orElseThrow().name())
            .as(kind.name())
            .startsWith("DOMAIN_EVENT_");
      }
    }
    assertThat(EventKind.of(26)).contains(EventKind.MEMORY_DEVICE_SIZE_CHANGE);
    assertThat(EventKind.of(27)).isEmpty();
  }
}
