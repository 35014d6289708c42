// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.ZeroMode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// 64-bit headers, by a peer that speaks the bytes and by our own client.
class ExtendedHeadersTest {
  private static final int SIZE = 8 << 20;
  private static final String BITMAP = "qemu:dirty-bitmap:b0";

  @TempDir Path folder;
  private Path socket;
  private final MemoryNode node = new MemoryNode(SIZE);
  private final DirtyBitmap bitmap = new DirtyBitmap("b0", SIZE, 65536);
  private final ExportServer server = new ExportServer();

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    server.listen(socket);
    server.addExport(new Export("vda", node, "", false, List.of(bitmap), true));
  }

  @AfterEach
  void close() {
    server.close();
  }

  private RawPeer extended() throws IOException {
    return new RawPeer(socket).greeted().extended();
  }

  @Test
  void servesEveryCommandWithoutASimpleReply() throws IOException {
    byte[] data = new byte[100_000];
    new Random(3).nextBytes(data);
    try (RawPeer peer = extended().go("vda")) {
      int payload = Wire.CommandFlag.PAYLOAD_LENGTH;
      assertThat(peer.error(Wire.Command.WRITE, payload, 4097, data.length, data)).isZero();
      assertThat(peer.read(4097, data.length, 0)).isEqualTo(data);
      assertThat(peer.read(4097, data.length, Wire.CommandFlag.DF)).isEqualTo(data);
      assertThat(peer.error(Wire.Command.FLUSH, 0, 0, 0)).isZero();
      assertThat(peer.error(Wire.Command.TRIM, 0, 0, SIZE)).isZero();
      assertThat(peer.error(Wire.Command.WRITE_ZEROES, 0, 0, SIZE)).isZero();
      assertThat(peer.error(Wire.Command.CACHE, 0, 0, SIZE)).isZero();
      assertThat(peer.read(0, 4096, 0)).containsOnly(0);
    }
  }

  @Test
  void refusesLengthsBeyondTheExportAtFullWidth() throws IOException {
    try (RawPeer peer = extended().contexts("vda", "base:allocation").go("vda")) {
      for (long length : new long[] {1L << 32, (1L << 32) + 512, Long.MAX_VALUE, -1, -SIZE}) {
        assertThat(peer.error(Wire.Command.WRITE_ZEROES, 0, 0, length))
            .as("zeroes of %s", Long.toUnsignedString(length))
            .isEqualTo(NbdErrno.ENOSPC.number());
        assertThat(peer.error(Wire.Command.TRIM, 0, 512, length))
            .isEqualTo(NbdErrno.EINVAL.number());
        assertThat(peer.error(Wire.Command.BLOCK_STATUS, 0, 0, length))
            .isEqualTo(NbdErrno.EINVAL.number());
      }
      assertThat(peer.read(0, 512, 0)).containsOnly(0);
    }
  }

  @Test
  void dropsAClientThatSendsCompactRequestsOrAnEndlessPayload() throws IOException {
    try (RawPeer peer = extended().go("vda")) {
      ByteBuffer compact = ByteBuffer.allocate(Wire.Size.REQUEST).putInt(Wire.Magic.REQUEST);
      peer.out.write(compact.array());
      assertThat(peer.closedByServer()).isTrue();
    }
    try (RawPeer peer = extended().go("vda")) {
      peer.request(Wire.Command.WRITE, Wire.CommandFlag.PAYLOAD_LENGTH, 1, 0, 1L << 40);
      assertThat(peer.closedByServer()).isTrue();
    }
    try (RawPeer peer = extended().go("vda")) {
      peer.request(Wire.Command.TRIM, Wire.CommandFlag.PAYLOAD_LENGTH, 1, 0, 1L << 40);
      assertThat(peer.closedByServer()).isTrue();
    }
  }

  @Test
  void passesOverAPayloadThatACommandHasNoUseFor() throws IOException {
    try (RawPeer peer = extended().contexts("vda", "base:allocation").go("vda")) {
      int flag = Wire.CommandFlag.PAYLOAD_LENGTH;
      byte[] junk = new byte[70_000];
      for (int type :
          new int[] {
            Wire.Command.READ, Wire.Command.TRIM, Wire.Command.FLUSH, Wire.Command.BLOCK_STATUS
          }) {
        assertThat(peer.error(type, flag, 0, junk.length, junk))
            .as("command %s", type)
            .isEqualTo(NbdErrno.EINVAL.number());
      }
      assertThat(peer.read(0, 512, 0)).containsOnly(0);
    }
  }

  @Test
  void answersOnlyTheContextsThatAPayloadNames() throws IOException {
    bitmap.set(65536, 1);
    try (RawPeer peer =
        extended().contexts("vda", "base:allocation", "qemu:allocation-depth", BITMAP).go("vda")) {
      assertThat(peer.flags & Wire.Flag.BLOCK_STATUS_PAYLOAD).isNotZero();
      assertThat(status(peer, SIZE, 2)).containsExactly("2:65536/0,65536/1,8257536/0");
      assertThat(status(peer, SIZE, 1, 0)).containsExactly("1:8388608/0", "0:8388608/3");
      int flag = Wire.CommandFlag.PAYLOAD_LENGTH;
      for (byte[] bad : List.of(ids(SIZE), ids(SIZE, 3), ids(SIZE, 1, 1), ids(SIZE, -1))) {
        assertThat(peer.error(Wire.Command.BLOCK_STATUS, flag, 0, bad.length, bad))
            .isEqualTo(NbdErrno.EINVAL.number());
      }
      byte[] far = ids(SIZE + 1L, 0);
      assertThat(peer.error(Wire.Command.BLOCK_STATUS, flag, 0, far.length, far))
          .isEqualTo(NbdErrno.EINVAL.number());
      assertThat(peer.error(Wire.Command.BLOCK_STATUS, 0, 0, SIZE)).isZero();
    }
  }

  private static byte[] ids(long length, int... ids) {
    ByteBuffer payload = ByteBuffer.allocate(8 + 4 * ids.length).putLong(length);
    for (int id : ids) {
      payload.putInt(id);
    }
    return payload.array();
  }

  private static List<String> status(RawPeer peer, long length, int... ids) throws IOException {
    byte[] payload = ids(length, ids);
    peer.request(
        Wire.Command.BLOCK_STATUS, Wire.CommandFlag.PAYLOAD_LENGTH, 9, 0, payload.length, payload);
    var found = new ArrayList<String>();
    RawPeer.Reply reply;
    do {
      reply = peer.next(0);
      assertThat(reply.chunk()).isEqualTo(Wire.Chunk.EXTENDED_BLOCK_STATUS);
      ByteBuffer data = reply.data();
      int id = data.getInt();
      int count = data.getInt();
      var extents = new ArrayList<String>();
      for (int i = 0; i < count; i++) {
        extents.add(data.getLong() + "/" + data.getLong());
      }
      assertThat(data.hasRemaining()).isFalse();
      found.add(id + ":" + String.join(",", extents));
    } while (!reply.done());
    return found;
  }

  @Test
  void keepsToWhatWasAgreedOn() throws IOException {
    try (RawPeer peer = extended()) {
      assertThat(peer.ask(Wire.Option.STRUCTURED_REPLY, new byte[0]).getLast().type())
          .isEqualTo(Wire.Rep.ERR_EXT_HEADER_REQD);
      assertThat(peer.ask(Wire.Option.EXTENDED_HEADERS, new byte[0]).getLast().type())
          .isEqualTo(Wire.Rep.ERR_INVALID);
      peer.send(Wire.Option.EXPORT_NAME, "vda".getBytes(UTF_8));
      assertThat(peer.closedByServer()).isTrue();
    }
  }

  @Test
  void ourClientZeroesAndAsksAcrossFourGibibytesInOneRequest() throws IOException {
    long size = 6L << 30;
    var large = new SparseNode(size);
    server.addExport(new Export("large", large, "", false, List.of(), true));
    var options = ClientOptions.defaults().withContexts(List.of("qemu:allocation-depth"));
    try (NbdClient client = NbdClient.connect(NbdUri.unix(socket, "large"), options)) {
      client.writeZeroes(0, size, ZeroMode.MAY_UNMAP);
      var seen = new ArrayList<String>();
      assertThat(
              client.status(
                  "qemu:allocation-depth",
                  0,
                  size,
                  (offset, length, flags) -> seen.add(offset + "+" + length + ":" + flags)))
          .isTrue();
      assertThat(seen).containsExactly("0+" + size + ":0");
      assertThat(client.status("no:such", 0, 512, (_, _, _) -> true)).isFalse();
    }
    assertThat(large.zeroed).containsExactly(size);
  }
}
