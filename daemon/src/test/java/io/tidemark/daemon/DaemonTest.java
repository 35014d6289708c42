// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.domain.Environment;
import io.tidemark.domain.LibvirtException;
import io.tidemark.rpc.Calls;
import io.tidemark.rpc.Calls.Nothing;
import io.tidemark.rpc.HostRemote;
import io.tidemark.rpc.Messages;
import io.tidemark.rpc.Procedure;
import io.tidemark.rpc.ProcedureRow;
import io.tidemark.rpc.Program;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.Replies;
import io.tidemark.rpc.RpcClient;
import io.tidemark.rpc.RpcException;
import io.tidemark.rpc.Wire;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class DaemonTest {
  private static final String XML =
      """
      <domain type='tidemark'>
        <name>vm</name>
        <uuid>11111111-2222-3333-4444-555555555555</uuid>
        <memory unit='MiB'>64</memory>
        <os><type>hvm</type></os>
        <devices>
          <disk type='file' device='disk'>
            <driver name='qemu' type='raw'/>
            <source file='FILE'/>
            <target dev='vda' bus='virtio'/>
          </disk>
        </devices>
      </domain>
      """;

  @TempDir private Path dir;
  private final FakeDriver driver = new FakeDriver();
  private final LinkedBlockingQueue<RpcClient.Event> events = new LinkedBlockingQueue<>();
  private DaemonOptions options = DaemonOptions.of(Path.of("state"), Path.of("run"), "0");
  private Optional<Daemon> daemon = Optional.empty();

  @BeforeEach
  void start() throws IOException, LibvirtException {
    options = DaemonOptions.of(dir.resolve("state"), dir.resolve("run"), "1.2.3-SNAPSHOT");
    daemon = Optional.of(start(driver));
  }

  private Daemon start(FakeDriver with) throws IOException, LibvirtException {
    return Daemon.start(options, List.of(with), with, Environment.system());
  }

  @AfterEach
  void stop() {
    daemon.ifPresent(Daemon::close);
  }

  private String xml() {
    return XML.replace("FILE", dir.resolve("a.img").toString());
  }

  private RpcClient client() throws Exception {
    return RpcClient.open(dir.resolve("run/libvirt-sock"), "qemu:///system", events::add);
  }

  private static RpcException refused(Attempt attempt) throws Exception {
    try {
      attempt.run();
    } catch (RpcException e) {
      return e;
    }
    throw new AssertionError("not refused");
  }

  private interface Attempt {
    void run() throws Exception;
  }

  @Test
  void tellsWhatItIs() throws Exception {
    try (RpcClient client = client()) {
      assertThat(client.call(Remote.CONNECT_GET_TYPE, new Nothing()).text()).isEqualTo("Tidemark");
      assertThat(client.call(Remote.CONNECT_GET_VERSION, new Nothing()).value())
          .isEqualTo(1_002_003);
      assertThat(client.call(Remote.CONNECT_GET_LIB_VERSION, new Nothing()).value())
          .isEqualTo(9_000_000);
      assertThat(client.call(Remote.CONNECT_GET_URI, new Nothing()).text())
          .isEqualTo("qemu:///system");
      assertThat(client.call(Remote.CONNECT_GET_CAPABILITIES, new Nothing()).text())
          .startsWith("<capabilities>");
      for (int feature = 0; feature < 20; feature++) {
        assertThat(client.call(Remote.CONNECT_SUPPORTS_FEATURE, new Calls.Feature(feature)).value())
            .as("feature " + feature)
            .isEqualTo(List.of(4, 9, 10, 13, 14, 15).contains(feature) ? 1 : 0);
      }
    }
  }

  @Test
  void nothingIsAnsweredBeforeAuthenticationAndOpening() throws Exception {
    try (RpcClient client = RpcClient.connect(dir.resolve("run/libvirt-sock"), _ -> {})) {
      RpcException early =
          refused(() -> client.call(Remote.CONNECT_OPEN, new Calls.Open(Optional.of(""), 0)));
      assertThat(early.code()).isEqualTo(39);
      assertThat(early.domain()).isEqualTo(7);
      assertThat(early).hasMessage("authentication required");
      client.call(Remote.AUTH_LIST, new Nothing());
      assertThat(client.call(Remote.CONNECT_SUPPORTS_FEATURE, new Calls.Feature(10)).value())
          .isEqualTo(1);
      RpcException unopened =
          refused(() -> client.call(Remote.DOMAIN_LOOKUP_BY_NAME, new Calls.Name("vm")));
      assertThat(unopened.code()).isEqualTo(1);
      assertThat(unopened.domain()).isEqualTo(7);
      client.call(Remote.CONNECT_OPEN, new Calls.Open(Optional.of("tidemark:///session?x=y"), 0));
      assertThat(
              refused(() -> client.call(Remote.CONNECT_OPEN, new Calls.Open(Optional.of(""), 0))))
          .hasMessageContaining("already open");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"test:///default", "qemu:///embed", "lxc:///system", "qemu:///system/x"})
  void otherNamesHaveNoDriver(String name) {
    assertThatThrownBy(() -> RpcClient.open(dir.resolve("run/libvirt-sock"), name, _ -> {}))
        .isInstanceOfSatisfying(
            RpcException.class,
            e -> {
              assertThat(e.code()).isEqualTo(5);
              assertThat(e.domain()).isZero();
            })
        .hasMessage("no connection driver available for " + name);
  }

  @Test
  void domainLivesThroughItsWholeLifeWithItsEventsBeforeTheReplies() throws Exception {
    try (RpcClient client = client()) {
      int all = register(client, 0, Optional.empty());
      Wire.Domain dom = client.call(Remote.DOMAIN_DEFINE_XML, new Calls.Xml(xml())).dom();
      assertThat(dom.id()).isEqualTo(-1);
      client.call(Remote.DOMAIN_CREATE, new Calls.Domain(dom));
      Wire.Domain running =
          client.call(Remote.DOMAIN_LOOKUP_BY_UUID, new Calls.Uuid(dom.uuid())).dom();
      assertThat(running.id()).isPositive();
      assertThat(client.call(Remote.CONNECT_LIST_DOMAINS, new Calls.Most(10)).ids())
          .containsExactly(running.id());
      assertThat(client.call(Remote.DOMAIN_GET_STATE, new Calls.DomainFlags(running, 0)).state())
          .isEqualTo(1);
      client.call(Remote.DOMAIN_SUSPEND, new Calls.Domain(running));
      client.call(Remote.DOMAIN_RESUME, new Calls.Domain(running));
      client.call(Remote.DOMAIN_DESTROY, new Calls.Domain(running));
      client.call(Remote.DOMAIN_UNDEFINE_FLAGS, new Calls.DomainFlags(dom, 0));
      assertThat(driver.asked).containsExactly("launch vm", "suspend vm", "resume vm", "stop vm");
      assertThat(seen(7, all)).containsExactly("0/0", "4/0", "2/0", "3/0", "4/0", "5/1", "1/0");
      RpcException gone = refused(() -> client.call(Remote.DOMAIN_CREATE, new Calls.Domain(dom)));
      assertThat(gone.code()).isEqualTo(42);
      assertThat(gone.domain()).isEqualTo(10);
    }
  }

  private static int register(RpcClient client, int event, Optional<Wire.Domain> dom)
      throws Exception {
    return client
        .call(
            Remote.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, new Calls.RegisterEvent(event, dom))
        .value();
  }

  private List<String> seen(int count, int callback) throws InterruptedException {
    List<String> seen = new java.util.ArrayList<>();
    while (seen.size() < count) {
      RpcClient.Event event = events.poll(10, TimeUnit.SECONDS);
      if (event == null) {
        break;
      }
      if (event.callbackId() == callback) {
        Messages.Lifecycle change = (Messages.Lifecycle) event.message();
        seen.add(change.event() + "/" + change.detail());
      }
    }
    return seen;
  }

  @Test
  void eventsOfOneDomainReachOnlyWhoAskedForIt() throws Exception {
    try (RpcClient client = client()) {
      Wire.Domain dom = client.call(Remote.DOMAIN_DEFINE_XML, new Calls.Xml(xml())).dom();
      Wire.Domain other = new Wire.Domain("other", new java.util.UUID(1, 1), -1);
      int mine = register(client, 0, Optional.of(dom));
      int others = register(client, 0, Optional.of(other));
      int dropped = register(client, 0, Optional.empty());
      client.call(Remote.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, new Calls.Callback(dropped));
      assertThat(
              refused(() ->
                  client.call(
                      Remote.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY,
                      new Calls.Callback(dropped))))
          .hasMessageContaining("not registered");
      client.call(Remote.DOMAIN_UNDEFINE, new Calls.Domain(dom));
      assertThat(seen(1, mine)).containsExactly("1/0");
      assertThat(events).noneMatch(event -> event.callbackId() == others);
      assertThat(events).noneMatch(event -> event.callbackId() == dropped);
    }
  }

  @Test
  void everyEventCanBeRegisteredAndNoOther() throws Exception {
    try (RpcClient client = client()) {
      for (int id = 0; id <= 26; id++) {
        register(client, id, Optional.empty());
      }
      for (int id : new int[] {-1, 27, 1_000}) {
        RpcException error = refused(() -> register(client, id, Optional.empty()));
        assertThat(error.code()).isEqualTo(1);
        assertThat(error.domain()).isEqualTo(7);
        assertThat(error).hasMessageContaining("unsupported event ID " + id);
      }
      client.call(Remote.CONNECT_DOMAIN_EVENT_REGISTER_ANY, new Calls.Id(15));
      assertThat(
              refused(
                  () -> client.call(Remote.CONNECT_DOMAIN_EVENT_REGISTER_ANY, new Calls.Id(16))))
          .hasMessageContaining("unsupported event ID 16");
      while (true) {
        try {
          register(client, 0, Optional.empty());
        } catch (RpcException e) {
          assertThat(e).hasMessageContaining("1000 events");
          break;
        }
      }
    }
  }

  @Test
  void readOnlySocketAndReadOnlyFlagOnlyLook() throws Exception {
    Wire.Domain dom;
    try (RpcClient client = client()) {
      dom = client.call(Remote.DOMAIN_DEFINE_XML, new Calls.Xml(xml())).dom();
    }
    try (RpcClient looking =
            RpcClient.open(dir.resolve("run/libvirt-sock-ro"), "qemu:///system", _ -> {});
        RpcClient modest = RpcClient.connect(dir.resolve("run/libvirt-sock"), _ -> {})) {
      modest.call(Remote.AUTH_LIST, new Nothing());
      modest.call(Remote.CONNECT_OPEN, new Calls.Open(Optional.of("qemu:///system"), 1));
      for (RpcClient client : List.of(looking, modest)) {
        assertThat(client.call(Remote.DOMAIN_GET_XML_DESC, new Calls.DomainFlags(dom, 0)).text())
            .contains("<name>vm</name>");
        register(client, 8, Optional.empty());
        RpcException write =
            refused(() -> client.call(Remote.DOMAIN_CREATE, new Calls.Domain(dom)));
        assertThat(write.code()).isEqualTo(29);
        assertThat(write.domain()).isEqualTo(20);
        assertThat(write)
            .hasMessage("operation forbidden: read only access prevents virDomainCreate");
        RpcException secure =
            refused(() -> client.call(Remote.DOMAIN_GET_XML_DESC, new Calls.DomainFlags(dom, 1)));
        assertThat(secure).hasMessage("operation forbidden: virDomainGetXMLDesc with secure flag");
      }
    }
    assertThat(driver.asked).isEmpty();
  }

  @Test
  void socketsHaveTheirPermissionsAndVanishAtTheEnd() throws Exception {
    Path run = dir.resolve("run");
    assertThat(mode(run.resolve("libvirt-sock"))).isEqualTo("rw-------");
    assertThat(mode(run.resolve("libvirt-sock-ro"))).isEqualTo("rw-rw-rw-");
    stop();
    assertThat(run.resolve("libvirt-sock")).doesNotExist();
    assertThat(run.resolve("libvirt-sock-ro")).doesNotExist();
  }

  private static String mode(Path path) throws IOException {
    return PosixFilePermissions.toString(Files.getPosixFilePermissions(path));
  }

  @Test
  void secondDaemonIsRefusedAndTheFirstServesOn() throws Exception {
    assertThatThrownBy(() -> start(new FakeDriver()))
        .hasMessageContaining("in use by another tidemark daemon");
    try (RpcClient client = client()) {
      assertThat(client.call(Remote.CONNECT_NUM_OF_DOMAINS, new Nothing()).value()).isZero();
    }
  }

  @Test
  void restartTakesUpWhatRunsAndWhatIsDefined() throws Exception {
    try (RpcClient client = client()) {
      Wire.Domain dom = client.call(Remote.DOMAIN_DEFINE_XML, new Calls.Xml(xml())).dom();
      client.call(Remote.DOMAIN_CREATE, new Calls.Domain(dom));
    }
    stop();
    assertThat(driver.asked).containsExactly("launch vm", "detach vm");
    FakeDriver next = new FakeDriver();
    daemon = Optional.of(start(next));
    assertThat(next.asked).containsExactly("reattach vm");
    try (RpcClient client = client()) {
      assertThat(client.call(Remote.DOMAIN_LOOKUP_BY_NAME, new Calls.Name("vm")).dom().id())
          .isPositive();
    }
  }

  @Test
  void autostartHappensOnceInABoot() throws Exception {
    try (RpcClient client = client()) {
      Wire.Domain dom = client.call(Remote.DOMAIN_DEFINE_XML, new Calls.Xml(xml())).dom();
      client.call(Remote.DOMAIN_SET_AUTOSTART, new Calls.DomainNumber(dom, 1));
    }
    stop();
    daemon = Optional.of(start(driver));
    assertThat(driver.asked).as("only the daemon restarted").isEmpty();
    stop();
    Files.delete(dir.resolve("run/autostarted")); // as a reboot does
    daemon = Optional.of(start(driver));
    assertThat(driver.asked).containsExactly("launch vm");
  }

  @Test
  void domainStartedForAClientEndsWithIt() throws Exception {
    try (RpcClient watcher = client()) {
      int all = register(watcher, 0, Optional.empty());
      try (RpcClient client =
          RpcClient.open(dir.resolve("run/libvirt-sock"), "qemu:///system", _ -> {})) {
        client.call(Remote.DOMAIN_CREATE_XML, new Calls.XmlFlags(xml(), 2));
      }
      assertThat(seen(3, all)).endsWith("5/1");
      assertThat(driver.asked).containsExactly("launch vm", "stop vm");
    }
  }

  @Test
  void statisticsGoLengthFirst() throws Exception {
    try (RpcClient client = client()) {
      Wire.Domain dom = client.call(Remote.DOMAIN_CREATE_XML, new Calls.XmlFlags(xml(), 0)).dom();
      var count =
          client.call(Remote.DOMAIN_BLOCK_STATS_FLAGS, new Calls.BlockStats(dom, "vda", 0, 4));
      assertThat(count.params()).isEmpty();
      assertThat(count.nparams()).isEqualTo(8);
      var values =
          client.call(Remote.DOMAIN_BLOCK_STATS_FLAGS, new Calls.BlockStats(dom, "vda", 3, 4));
      assertThat(values.params()).hasSize(3);
      var list = client.call(Remote.CONNECT_LIST_ALL_DOMAINS, new Calls.ListAll(0, 3));
      assertThat(list.domains()).isEmpty();
      assertThat(list.count()).isEqualTo(1);
    }
  }

  @Test
  void whatIsNeverThereIsAnsweredAndWhatIsNotServedIsSaid() throws Exception {
    try (RpcClient client = client()) {
      Wire.Domain dom = client.call(Remote.DOMAIN_DEFINE_XML, new Calls.Xml(xml())).dom();
      assertThat(value(client, Remote.DOMAIN_SNAPSHOT_NUM, dom)).isZero();
      assertThat(value(client, Remote.DOMAIN_HAS_MANAGED_SAVE_IMAGE, dom)).isZero();
      RpcException unserved =
          refused(() ->
              client.call(
                  new Procedure<>(
                      ProcedureRow.of(Program.REMOTE, 289).orElseThrow(), // memory parameters
                      Nothing.class,
                      Nothing.class),
                  new Nothing()));
      assertThat(unserved.code()).isEqualTo(3);
      RpcException agent =
          refused(() -> client.call(Remote.DOMAIN_FSFREEZE, new Calls.Freeze(dom, List.of(), 0)));
      assertThat(agent.code()).as("not running").isEqualTo(55);
    }
  }

  @Test
  void hostIsToldAndWhatIsNotManagedIsListedAsNone() throws Exception {
    try (RpcClient client = client()) {
      assertThat(client.call(HostRemote.NODE_GET_FREE_MEMORY, new Nothing()).value()).isPositive();
      assertThat(client.call(HostRemote.NODE_GET_CELLS_FREE_MEMORY, new Calls.Cells(0, 1)).bytes())
          .hasSize(1)
          .allMatch(bytes -> bytes > 0);
      assertThat(
              refused(() ->
                      client.call(HostRemote.NODE_GET_CELLS_FREE_MEMORY, new Calls.Cells(99, 1)))
                  .getMessage())
          .contains("start cell 99 out of range");
      int fields =
          client
              .call(HostRemote.NODE_GET_MEMORY_STATS, new Calls.NodeMemoryStats(0, -1, 0))
              .nparams();
      assertThat(fields).isEqualTo(4);
      assertThat(
              client
                  .call(HostRemote.NODE_GET_MEMORY_STATS, new Calls.NodeMemoryStats(4, -1, 0))
                  .params())
          .extracting(Replies.NodeStat::field)
          .containsExactly("total", "free", "buffers", "cached");
      assertThat(
              client.call(HostRemote.NODE_GET_CPU_STATS, new Calls.NodeCpuStats(-1, 4, 0)).params())
          .extracting(Replies.NodeStat::field)
          .containsExactly("kernel", "user", "idle", "iowait");
      assertThat(
              refused(() ->
                      client.call(
                          HostRemote.NODE_GET_CPU_STATS, new Calls.NodeCpuStats(9999, 4, 0)))
                  .code())
          .isEqualTo(8);
      assertThat(client.call(HostRemote.NODE_GET_CPU_MAP, new Calls.CpuMap(1, 1, 0)).count())
          .isPositive();
      for (var count : HostRemote.COUNTS) {
        assertThat(client.call(count, new Nothing()).value()).isZero();
      }
      for (var names : HostRemote.NAMES) {
        assertThat(client.call(names, new Calls.Most(9)).names()).isEmpty();
      }
      for (var list : HostRemote.LISTS.keySet()) {
        assertThat(client.call(list, new Calls.ListAll(1, 0)).count()).isZero();
      }
      RpcException missing =
          refused(() -> client.call(HostRemote.NETWORK_LOOKUP_BY_NAME, new Calls.Name("x")));
      assertThat(missing.code()).isEqualTo(43);
      assertThat(missing).hasMessage("Network not found: no network with matching name 'x'");
    }
  }

  private static int value(
      RpcClient client,
      Procedure<Calls.DomainFlags, io.tidemark.rpc.Replies.Int> procedure,
      Wire.Domain dom)
      throws Exception {
    return client.call(procedure, new Calls.DomainFlags(dom, 0)).value();
  }
}
