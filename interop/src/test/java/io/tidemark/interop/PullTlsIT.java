// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.FileNode;
import io.tidemark.block.OpenOptions;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// A pull backup with `tls='yes'`, read by libnbd over GnuTLS: clients with a certificate of the
/// authority get the disk, all others nothing. The certificates are made here, by openssl.
@Tag("interop")
class PullTlsIT {
  private static final String DOMAIN = "sealed";

  private static String newKey(String kind) {
    return kind.equals("rsa")
        ? "req -newkey rsa:2048 -nodes"
        : "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
  }

  @TempDir Path folder;
  private Path disk;
  private int port;
  private @Nullable OneDomain domain; // from where a test starts it

  @BeforeEach
  void prepare() throws IOException {
    Tool.require("virsh");
    Tool.require("openssl");
    Tool.require("nbdcopy");
    Tool.require("nbdinfo");
    disk = folder.resolve("disk.qcow2");
    Tool.require("qemu-img").ok("create", "-q", "-f", "qcow2", disk, "16M");
    try (var free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      port = free.getLocalPort();
    }
  }

  /// @param kind of all keys: `rsa` or `ec`
  private void makeCertificates(String kind) throws IOException {
    for (String authority : new String[] {"ours", "theirs"}) {
      Path certificates = authority(authority, kind);
      issue(certificates, kind, "server", "subjectAltName=DNS:localhost,IP:127.0.0.1");
      issue(certificates, kind, "client", "extendedKeyUsage=clientAuth");
    }
    Files.createDirectory(folder.resolve("nameless"));
    Files.copy(folder.resolve("ours/ca-cert.pem"), folder.resolve("nameless/ca-cert.pem"));
    // Trusts ours, and shows a certificate of theirs.
    Path stranger = Files.createDirectory(folder.resolve("stranger"));
    Files.copy(folder.resolve("ours/ca-cert.pem"), stranger.resolve("ca-cert.pem"));
    Files.copy(folder.resolve("theirs/client-cert.pem"), stranger.resolve("client-cert.pem"));
    Files.copy(folder.resolve("theirs/client-key.pem"), stranger.resolve("client-key.pem"));
  }

  @AfterEach
  void stop() throws IOException {
    if (domain != null) {
      domain.close();
    }
  }

  private Path authority(String name, String kind) throws IOException {
    Path place = Files.createDirectory(folder.resolve(name));
    Tool.require("openssl")
        .in(place)
        .ok(
            (Object[])
                (newKey(kind)
                        + " -x509 -days 2 -keyout ca-key.pem -out ca-cert.pem"
                        + " -subj /CN="
                        + name)
                    .split(" ", -1));
    return place;
  }

  private static void issue(Path place, String kind, String role, String extension)
      throws IOException {
    Path extensions = Files.writeString(place.resolve(role + ".ext"), extension + "\n");
    Tool openssl = Tool.require("openssl").in(place);
    openssl.ok(
        (Object[])
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s-key.pem -out %s.csr -subj /CN=%s"
                .formatted(role, role, role)
                .split(" ", -1));
    openssl.ok(
        (Object[])
            ("x509 -req -in %s.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2"
                    + " -out %s-cert.pem -extfile %s")
                .formatted(role, role, extensions)
                .split(" ", -1));
  }

  private ProvingGuest run(String... options) throws IOException {
    String[] all = new String[options.length + 2];
    all[0] = "--backup-tls-dir";
    all[1] = folder.resolve("ours").toString();
    System.arraycopy(options, 0, all, 2, options.length);
    var started = OneDomain.in(folder, DOMAIN).disk("vda", disk).options(all).start();
    domain = started;
    ProvingGuest writing = started.beginGuest(20261122);
    writing.awaitProgress(100);
    return writing;
  }

  private void begin(Virsh virsh, String server) throws IOException {
    virsh.ok(
        "backup-begin",
        DOMAIN,
        Files.writeString(
            folder.resolve("backup.xml"),
            """
            <domainbackup mode='pull'>
              %s
              <disks><disk name='vda'><scratch file='%s'/></disk></disks>
            </domainbackup>
            """
                .formatted(server, folder.resolve("scratch"))));
  }

  private String tcp(String scheme, String certificates) {
    String uri = "%s://localhost:%d/vda".formatted(scheme, port);
    return certificates.isEmpty() ? uri : uri + "?tls-certificates=" + folder.resolve(certificates);
  }

  private static void assertRefused(String uri) {
    Tool.Result refused = Tool.require("nbdinfo").run("--size", uri);
    assertThat(refused.exit()).as("%s: %s", uri, refused.text()).isNotZero();
    assertThat(refused.out()).doesNotContain("16777216");
  }

  @ParameterizedTest
  @ValueSource(strings = {"rsa", "ec"})
  void onlyClientsOfTheAuthorityRead(String kind) throws IOException {
    makeCertificates(kind);
    ProvingGuest writing = run();
    Virsh virsh = Objects.requireNonNull(domain).virsh();
    long notBefore = writing.proof().acknowledged();
    begin(virsh, "<server transport='tcp' name='localhost' port='" + port + "' tls='yes'/>");
    assertThat(virsh.ok("backup-dumpxml", DOMAIN)).contains("tls='yes'");
    Tool info = Tool.require("nbdinfo");
    assertThat(info.ok("--size", tcp("nbds", "ours")).out().strip()).isEqualTo("16777216");
    assertRefused(tcp("nbd", "")); // in the clear
    assertRefused(tcp("nbds", "nameless")); // without a certificate
    assertRefused(tcp("nbds", "stranger")); // with another authority's
    assertRefused(tcp("nbds", "theirs")); // who does not trust us
    Path raw = folder.resolve("copy.raw");
    Tool.require("nbdcopy").ok(tcp("nbds", "ours"), raw);
    try (var copy = FileNode.open(raw, OpenOptions.reading())) {
      writing.assertHolds(copy, notBefore);
    }
    virsh.ok("domjobabort", DOMAIN);
    assertRefused(tcp("nbds", "ours"));
    writing.awaitProgress(100);
  }

  @Test
  void unixSocketsAreSealedTooAndClientsNeedNoCertificateWhereToldSo() throws IOException {
    makeCertificates("ec");
    ProvingGuest writing = run("--backup-tls-no-verify");
    Virsh virsh = Objects.requireNonNull(domain).virsh();
    Path socket = folder.resolve("pull.sock");
    begin(virsh, "<server transport='unix' socket='" + socket + "' tls='yes'/>");
    String uri = "nbds+unix:///vda?socket=" + socket + "&tls-verify-peer=false";
    String nameless = uri + "&tls-certificates=" + folder.resolve("nameless");
    assertThat(Tool.require("nbdinfo").ok("--size", nameless).out().strip()).isEqualTo("16777216");
    assertRefused("nbd+unix:///vda?socket=" + socket);
    virsh.ok("domjobabort", DOMAIN);
    writing.awaitProgress(100);
  }
}
