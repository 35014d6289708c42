// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class BlockCopyTest {
  private static final String JOB = "copy-vda-libvirt-2-format";
  private final Daemon daemon = new Daemon(Daemon.usualMachine());

  @Test
  void pivotMovesTheGuestToTheCopy() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    daemon.running().ready(JOB);
    assertThat(daemon.awaitEvents(2))
        .containsExactly("BLOCK_JOB /img/a.qcow2 COPY READY", "BLOCK_JOB_2 vda COPY READY");
    domain.blockJobAbort("vda", Flags.ABORT_PIVOT);
    assertThat(daemon.takeEvents())
        .containsExactly("BLOCK_JOB /img/copy COPY COMPLETED", "BLOCK_JOB_2 vda COPY COMPLETED");
    assertThat(daemon.running().writesTo("vda")).isEqualTo("/img/copy");
    assertThat(domain.xmlDesc(0))
        .contains("<source file='/img/copy' index='4'/>\n      <backingStore/>");
    assertThat(domain.blockJobInfo("vda", 0)).isEmpty();
  }
}
