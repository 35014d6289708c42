// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import io.tidemark.testkit.Tool;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// Backups of one domain through virsh: their documents, their end, and what a client makes of
/// them.
final class DomainBackups {
  private static final Duration LIMIT = Duration.ofMinutes(2);
  private static final int STEP = 1 << 20;

  private final Virsh virsh;
  private final String domain;
  private final Path folder;

  /// @param folder for documents and the sockets of pull backups
  DomainBackups(Virsh virsh, String domain, Path folder) {
    this.virsh = virsh;
    this.domain = domain;
    this.folder = folder;
  }

  /// What is asked for.
  ///
  /// @param since checkpoint it counts from; absent: full
  /// @param checkpoint that is made at its instant
  /// @param files targets or scratches by disk
  record Request(
      boolean pull,
      Optional<String> since,
      Optional<String> checkpoint,
      String format,
      Map<String, Path> files,
      boolean reuse) {
    static Request push(Map<String, Path> targets) {
      return new Request(false, Optional.empty(), Optional.empty(), "qcow2", targets, false);
    }

    static Request pull(Map<String, Path> scratches) {
      return new Request(true, Optional.empty(), Optional.empty(), "qcow2", scratches, false);
    }

    Request since(String name) {
      return new Request(pull, Optional.of(name), checkpoint, format, files, reuse);
    }

    Request checkpoint(String name) {
      return new Request(pull, since, Optional.of(name), format, files, reuse);
    }

    /// Onto images of this format that are there.
    Request reuse(String imageFormat) {
      return new Request(pull, since, checkpoint, imageFormat, files, true);
    }
  }

  /// Where a pull backup is served.
  Path socket() {
    return folder.resolve("pull.sock");
  }

  NbdUri uri(String disk) {
    return NbdUri.unix(socket(), disk);
  }

  /// Asks for it, whatever the answer. What is known of an earlier one is forgotten first.
  Tool.Result ask(Request request) throws IOException {
    var words = words(request);
    virsh.ok("domjobinfo", domain, "--completed");
    return virsh.run(words);
  }

  /// Starts it.
  void begin(Request request) throws IOException {
    Tool.Result begun = ask(request);
    assertThat(begun.exit()).as(begun.text()).isZero();
  }

  /// The words of the call for virsh, the documents being written.
  Object[] words(Request request) throws IOException {
    List<Object> words = new ArrayList<>(List.of("backup-begin", domain));
    words.add(Files.writeString(folder.resolve("backup.xml"), document(request)));
    if (request.checkpoint().isPresent()) {
      words.add(
          Files.writeString(
              folder.resolve("checkpoint.xml"),
              "<domaincheckpoint><name>%s</name></domaincheckpoint>%n"
                  .formatted(request.checkpoint().get())));
    }
    if (request.reuse()) {
      words.add("--reuse-external");
    }
    return words.toArray();
  }

  private String document(Request request) {
    var text = new StringBuilder();
    text.append("<domainbackup mode='%s'>".formatted(request.pull() ? "pull" : "push"));
    request.since().ifPresent(name -> text.append("<incremental>" + name + "</incremental>"));
    if (request.pull()) {
      text.append("<server transport='unix' socket='" + socket() + "'/>");
    }
    text.append("<disks>");
    request
        .files()
        .forEach((disk, file) ->
            text.append(
                "<disk name='%s' backup='yes' type='file'><driver type='%s'/><%s file='%s'/></disk>"
                    .formatted(
                        disk, request.format(), request.pull() ? "scratch" : "target", file)));
    return text.append("</disks></domainbackup>\n").toString();
  }

  /// Waits for the end of the one that was started last.
  ///
  /// @return what virsh says of it
  String awaitEnd() {
    return Patience.await()
        .atMost(LIMIT)
        .pollInterval(Duration.ofMillis(20))
        .until(this::ended, said -> said.contains("Completed") || said.contains("Failed"));
  }

  /// What virsh says of the last one that ended.
  String ended() {
    return virsh.ok("domjobinfo", domain, "--completed", "--keep-completed", "--anystats");
  }

  void awaitCompleted() {
    assertThat(awaitEnd()).contains("Completed");
  }

  /// Ends a pull backup.
  void end() {
    virsh.ok("domjobabort", domain);
    virsh.ok("domjobinfo", domain);
  }

  /// A pull backup's disk as a raw image, by nbdcopy.
  void copy(String disk, Path raw) {
    Tool.require("nbdcopy").ok("nbd+unix:///" + disk + "?socket=" + socket(), raw);
  }

  /// Puts what a pull backup says has changed over a copy of the earlier moment.
  ///
  /// @return bytes that had changed
  long copyChanges(String disk, Path raw) throws IOException {
    String context = "qemu:dirty-bitmap:backup-" + disk;
    long[] changed = {0};
    var options = ClientOptions.defaults().withContexts(List.of(context));
    try (var export = NbdClient.connect(uri(disk), options);
        var file = FileChannel.open(raw, StandardOpenOption.WRITE)) {
      ByteBuffer buffer = ByteBuffer.allocateDirect(STEP);
      boolean told =
          export.status(
              context,
              0,
              export.virtualSize(),
              (offset, length, flags) -> {
                if ((flags & 1) == 1) {
                  changed[0] += length;
                  copy(export, file, buffer, offset, offset + length);
                }
                return true;
              });
      assertThat(told).as("the export has " + context).isTrue();
    }
    return changed[0];
  }

  private static void copy(
      NbdClient export, FileChannel file, ByteBuffer buffer, long from, long to) {
    try {
      for (long at = from; at < to; at += buffer.limit()) {
        buffer.clear().limit((int) Math.min(STEP, to - at));
        export.read(at, buffer);
        buffer.flip();
        while (buffer.hasRemaining()) {
          file.write(buffer, at + buffer.position());
        }
      }
    } catch (IOException e) {
      throw new AssertionError("copy of changes at " + from, e);
    }
  }

  /// The disk that a pushed increment makes of a raw copy of the earlier moment.
  static void restore(Path increment, Path earlier, Path raw) {
    Tool img = Tool.require("qemu-img");
    img.ok("rebase", "-u", "-f", "qcow2", "-b", earlier, "-F", "raw", increment);
    img.ok("check", "-q", increment);
    img.ok("convert", "-f", "qcow2", "-O", "raw", increment, raw);
  }

  /// The disk that a pushed full backup holds.
  static void restore(Path full, Path raw) {
    Tool img = Tool.require("qemu-img");
    img.ok("check", "-q", full);
    img.ok("convert", "-f", "qcow2", "-O", "raw", full, raw);
  }
}
