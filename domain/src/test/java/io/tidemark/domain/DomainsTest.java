// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class DomainsTest {
  private final Daemon daemon = new Daemon(Daemon.usualMachine());

  @Test
  void showsARunningDomainWithItsChainNumberedFromTheLastDisk() throws LibvirtException {
    Domain domain = daemon.startTransient();
    assertThat(domain.xmlDesc(0))
        .isEqualTo(
            """
            <domain type='tidemark' id='1'>
              <name>vm</name>
              <uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
              <vcpu placement='static'>1</vcpu>
              <os>
                <type>hvm</type>
              </os>
              <clock offset='utc'/>
              <on_poweroff>destroy</on_poweroff>
              <on_reboot>restart</on_reboot>
              <on_crash>destroy</on_crash>
              <devices>
                <disk type='file' device='disk'>
                  <driver name='qemu' type='qcow2'/>
                  <source file='/img/a.qcow2' index='2'/>
                  <backingStore type='file' index='3'>
                    <format type='qcow2'/>
                    <source file='/img/base.qcow2'/>
                    <backingStore/>
                  </backingStore>
                  <target dev='vda' bus='virtio'/>
                  <alias name='virtio-disk0'/>
                </disk>
                <disk type='file' device='disk'>
                  <driver name='qemu' type='qcow2'/>
                  <source file='/img/b.qcow2' index='1'/>
                  <backingStore/>
                  <target dev='vdb' bus='virtio'/>
                  <alias name='virtio-disk1'/>
                </disk>
              </devices>
            </domain>
            """);
  }

  @Test
  void tellsOfAStartInLibvirtsOrder() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    domain.create(0, Daemon.CLIENT);
    assertThat(daemon.takeEvents())
        .containsExactly("DEFINED_ADDED", "RESUMED_UNPAUSED", "STARTED_BOOTED");
    domain.destroy(0);
    domain.create(Flags.START_PAUSED, Daemon.CLIENT);
    assertThat(daemon.takeEvents())
        .containsExactly("STOPPED_DESTROYED", "STARTED_BOOTED", "SUSPENDED_PAUSED");
    assertThat(domain.state()).isEqualTo(DomainState.PAUSED_USER);
  }
}
