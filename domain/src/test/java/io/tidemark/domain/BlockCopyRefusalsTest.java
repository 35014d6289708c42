// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static io.tidemark.domain.Refusals.assertRefused;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import io.tidemark.domain.spi.ImageService;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/// What libvirt refuses of a block copy and beside one, in its words.
class BlockCopyRefusalsTest {
  private static final String DEST = "<disk type='file'><source file='/img/copy'/></disk>";
  private final Machine machine = Daemon.usualMachine();
  private final Daemon daemon = new Daemon(machine);

  interface Verb {
    void on(Domain domain) throws LibvirtException;
  }

  /// Numbers, domains and texts as libvirt 9.0.0 gives them, where they are not QEMU's words.
  static Stream<Arguments> refusals() {
    int copy = Flags.REBASE_COPY;
    return Stream.of(
        refused(
            d -> d.blockRebase("vda", "/x", 0, 0x80),
            8,
            10,
            "unsupported flags (0x80) in function qemuDomainBlockRebase"),
        refused(d -> d.blockRebase("vda", "/x", 0, 2), 8, 20, "use of flags requires a copy job"),
        refused(
            d -> d.blockRebase("vda", null, 0, copy),
            8,
            20,
            "base in virDomainBlockRebase must not be NULL"),
        refused(
            d -> d.blockRebase("vda", "/x", 0, copy | 16),
            74,
            10,
            "argument unsupported: Relative backing during copy not supported yet"),
        refused(
            d -> d.blockRebase("vda", null, 0, 16),
            8,
            10,
            "invalid argument: flag VIR_DOMAIN_BLOCK_REBASE_RELATIVE is valid only with non-null"
                + " base"),
        refused(
            d -> d.blockRebase("vda", "/x", -1, copy),
            82,
            10,
            "numerical overflow: bandwidth must be less than 8796093022207"),
        refused(
            d -> d.blockRebase("vda", "/x", 8796093022208L, copy),
            82,
            10,
            "numerical overflow: bandwidth must be less than 8796093022207"),
        refused(
            d -> d.blockRebase("vdz", "/x", 0, copy),
            8,
            10,
            "invalid argument: disk 'vdz' not found in domain"),
        refused(
            d -> d.blockRebase("vda[1]", "/x", 0, copy),
            8,
            10,
            "invalid argument: disk 'vda[1]' not found in domain"),
        refused(
            d -> d.blockRebase("/img/base.qcow2", "/x", 0, copy),
            8,
            10,
            "invalid argument: disk '/img/base.qcow2' not found in domain"),
        refused(
            d -> d.blockRebase("vda", "x", 0, copy),
            8,
            10,
            "invalid argument: absolute path must be used as block copy target"),
        refused(
            d -> d.blockRebase("vda", "", 0, copy),
            8,
            10,
            "invalid argument: absolute path must be used as block copy target"),
        refused(
            d -> d.blockRebase("vda", "/x", 0, copy | 1 | 4),
            67,
            10,
            "unsupported configuration: shallow copy of disk 'vda' into a raw file is not"
                + " possible"),
        refused(
            d -> d.blockRebase("vda", "/img/base.qcow2", 0, copy),
            67,
            10,
            "unsupported configuration: external destination file for disk vda already exists and"
                + " is not a block device: /img/base.qcow2"),
        refused(
            d -> d.blockRebase("vda", "/folder", 0, copy),
            67,
            10,
            "unsupported configuration: external destination file for disk vda already exists and"
                + " is not a block device: /folder"),
        refused(
            d -> d.blockRebase("vda", "/folder", 0, copy | 2),
            67,
            10,
            "unsupported configuration: 'directory' storage format is not directly supported by"
                + " QEMU, use 'dir' disk type instead"),
        refused(
            d -> d.blockRebase("vda", "/img/new", -1, copy | Flags.REBASE_BANDWIDTH_BYTES),
            8,
            10,
            "invalid argument: bandwidth must be less than '9223372036854775807' bytes/s"
                + " (8796093022207 MiB/s)"),
        refused(
            d -> d.blockRebase("vda", "/img/no", 0, copy | 2),
            38,
            10,
            "missing destination file for disk vda: /img/no: No such file or directory"),
        refused(
            d -> d.blockRebase("vda", "/img/no", 0, copy | 32),
            38,
            10,
            "missing destination file for disk vda: /img/no: No such file or directory"),
        refused(
            d -> d.blockRebase("vda", "/missing/x", 0, copy),
            38,
            10,
            "failed to create copy target: No such file or directory"),
        refused(
            d -> d.blockRebase("vda", "/img/spare", 0, copy | 2 | 32),
            8,
            10,
            "invalid argument: blockdev flag requested for disk vda, but file '/img/spare' is not"
                + " a block device"),
        refused(
            d -> d.blockCopy("vda", "disk", List.of(), 0),
            35,
            20,
            "(disk_definition):1: Start tag expected, '<' not found\ndisk\n^"),
        refused(
            d -> d.blockCopy("vda", "<domain/>", List.of(), 0),
            27,
            5,
            "XML error: expecting root element of 'disk', not 'domain'"),
        refused(
            d -> d.blockCopy("vda", "<disk type='file'/>", List.of(), 0),
            19,
            20,
            "missing source information for device"),
        refused(
            d -> d.blockCopy("vda", "<disk><source/></disk>", List.of(), 0),
            19,
            20,
            "missing source information for device"),
        refused(
            d ->
                d.blockCopy(
                    "vda", DEST.replace("</disk>", "<driver type='foo'/></disk>"), List.of(), 0),
            67,
            20,
            "unsupported configuration: unknown driver format value 'foo'"),
        refused(
            d ->
                d.blockCopy(
                    "vda",
                    DEST.replace(
                        "</disk>",
                        "<backingStore><format type='qcow2'/><source file='/img/base.qcow2'/>"
                            + "</backingStore></disk>"),
                    List.of(),
                    0),
            8,
            10,
            "invalid argument: backingStore of mirror without VIR_DOMAIN_BLOCK_COPY_SHALLOW"
                + " doesn't make sense"),
        refused(
            d -> d.blockCopy("vda", DEST, List.of(), 16),
            8,
            10,
            "unsupported flags (0x10) in function qemuDomainBlockCopy"),
        param(
            new TypedParam.UInt("nosuch", 1),
            74,
            0,
            "argument unsupported: parameter 'nosuch' not supported"),
        param(
            new TypedParam.UInt("granularity", 1000),
            8,
            10,
            "invalid argument: granularity must be power of 2"),
        param(
            new TypedParam.ULLong("bandwidth", Long.MIN_VALUE),
            8,
            10,
            "invalid argument: bandwidth must be less than '9223372036854775807' bytes/s"
                + " (8796093022207 MiB/s)"),
        refused(
            d -> d.blockJobAbort("vda", 4),
            8,
            10,
            "unsupported flags (0x4) in function qemuDomainBlockJobAbort"),
        refused(
            d -> d.blockJobAbort("vda", 0),
            8,
            10,
            "invalid argument: disk vda does not have an active block job"),
        refused(
            d -> d.blockJobSetSpeed("vda", 1, 0),
            8,
            10,
            "invalid argument: disk vda does not have an active block job"),
        refused(
            d -> d.blockJobSetSpeed("vda", -1, 0),
            82,
            10,
            "numerical overflow: bandwidth must be less than 8796093022207"),
        refused(
            d -> d.blockJobSetSpeed("vda", 1, 2),
            8,
            10,
            "unsupported flags (0x2) in function qemuDomainBlockJobSetSpeed"),
        refused(
            d -> d.blockJobInfo("vda", 2),
            8,
            10,
            "unsupported flags (0x2) in function qemuDomainGetBlockJobInfo"));
  }

  private static Arguments refused(Verb verb, int code, int domain, String text) {
    return Arguments.of(verb, code, domain, text);
  }

  private static Arguments param(TypedParam param, int code, int domain, String text) {
    return refused(d -> d.blockCopy("vda", DEST, List.of(param), 0), code, domain, text);
  }

  @ParameterizedTest
  @MethodSource("refusals")
  void refusesInLibvirtsWordsAndChangesNothing(Verb verb, int code, int error, String text)
      throws LibvirtException {
    machine.image("/img/spare", "raw", 8 << 20);
    machine.others.put(
        Path.of("/folder"), new ImageService.FileStatus(ImageService.FileKind.DIRECTORY, 0));
    Domain domain = daemon.startTransient();
    String before = domain.xmlDesc(0);
    List<String> files = machine.files();
    assertRefused(() -> verb.on(domain), code, error, text);
    assertThat(domain.xmlDesc(0)).isEqualTo(before);
    assertThat(machine.files()).isEqualTo(files);
    assertThat(daemon.takeEvents()).isEmpty();
  }

  @Test
  void everyBlockVerbOnAStoppedDomainSaysSo() throws LibvirtException {
    Domain domain = daemon.domains.defineXml(Daemon.usualXml(), 0);
    String text = "Requested operation is not valid: domain is not running";
    assertRefused(() -> domain.blockRebase("vda", "/x", 0, 8), 55, 20, text);
    assertRefused(() -> domain.blockCopy("vda", DEST, List.of(), 4), 55, 20, text);
    assertRefused(() -> domain.blockJobAbort("vda", 0), 55, 20, text);
    assertRefused(() -> domain.blockJobInfo("vda", 0), 55, 20, text);
    assertRefused(() -> domain.blockJobSetSpeed("vda", 1, 0), 55, 20, text);
    assertRefused(() -> domain.blockStats("vda"), 55, 20, text);
    assertThat(domain.blockInfo("vda", 0).capacity()).isEqualTo(8 << 20);
  }

  @Test
  void diskWithACopyRefusesOtherJobs() throws LibvirtException {
    Domain domain = daemon.startTransient();
    domain.blockRebase("vda", "/img/copy", 0, Flags.REBASE_COPY);
    String text = "block copy still active: disk 'vda' already in active block job";
    assertRefused(() -> domain.blockRebase("vda", "/img/c2", 0, 8), 83, 10, text);
    assertRefused(() -> domain.blockCopy("vda", DEST, List.of(), 0), 83, 10, text);
    assertRefused(() -> domain.blockRebase("vda", null, 0, 0), 83, 10, text);
    assertRefused(
        () -> domain.backupBegin("<domainbackup/>", null, 0),
        1,
        10,
        "internal error: disk 'vda' has a blockjob assigned");
    assertThat(machine.has("/img/c2")).isFalse();
    domain.checkpointCreateXml("<domaincheckpoint><name>c</name></domaincheckpoint>", 0);
    // the other disk is free
    domain.blockRebase("vdb", "/img/c2", 0, Flags.REBASE_COPY);
  }

  @Test
  void emptyDriveAndTransientDiskCannotBeCopied() throws LibvirtException {
    String xml =
        Daemon.xml(
            Daemon.disk("/img/a.qcow2", "qcow2", "vda").replace("</disk>", "<transient/></disk>"),
            "<disk device='cdrom'><target dev='sda' bus='sata'/></disk>");
    Domain domain = daemon.domains.createXml(xml, 0, Daemon.CLIENT);
    assertRefused(
        () -> domain.blockRebase("vda", "/img/c", 0, 8),
        84,
        10,
        "Operation not supported: block jobs are not supported on transient disk 'vda'");
    assertThat(
            catchThrowableOfType(
                    LibvirtException.class, () -> domain.blockRebase("sda", "/img/c", 0, 8))
                .code())
        .isEqualTo(ErrorCode.INTERNAL_ERROR);
  }
}
