// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.DirtyBitmap;
import io.tidemark.block.ImageBusyException;
import io.tidemark.block.OutOfSpaceException;
import io.tidemark.block.ReadOnlyNodeException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

class ExportServerTest {
  private static final int SIZE = 40 << 20;

  @TempDir Path folder;
  private Path socket;
  private final MemoryNode node = new MemoryNode(SIZE);
  private final DirtyBitmap bitmap = new DirtyBitmap("b0", SIZE, 65536);
  private final ExportServer server = new ExportServer();

  @BeforeEach
  void listen() throws IOException {
    socket = folder.resolve("s.sock");
    server.listen(socket);
    server.addExport(new Export("vda", node, "the disk", false, List.of(bitmap)));
  }

  @AfterEach
  void close() {
    server.close();
  }

  private RawPeer peer() throws IOException {
    return new RawPeer(socket).greeted();
  }

  private RawPeer opened() throws IOException {
    return peer().structured().contexts("vda", "base:allocation", "qemu:dirty-bitmap:b0").go("vda");
  }

  private static byte[] random(int length, long seed) {
    byte[] bytes = new byte[length];
    new Random(seed).nextBytes(bytes);
    return bytes;
  }

  // ---- handshake

  @Test
  void opensByExportNameWithAndWithoutPadding() throws IOException {
    for (int flags : new int[] {0, 1, 3}) {
      try (RawPeer peer = new RawPeer(socket).greeted(flags)) {
        peer.send(Wire.Option.EXPORT_NAME, "vda".getBytes(UTF_8));
        assertThat(peer.in.readLong()).isEqualTo(SIZE);
        assertThat(peer.in.readUnsignedShort() & Wire.Flag.HAS_FLAGS).isEqualTo(1);
        if (flags != 3) {
          assertThat(peer.in.readNBytes(124)).containsOnly(0);
        }
        assertThat(peer.read(0, 512, 0)).hasSize(512);
      }
    }
  }

  @Test
  void endsTheConnectionForAnUnknownExportName() throws IOException {
    try (RawPeer peer = peer()) {
      peer.send(Wire.Option.EXPORT_NAME, "vdb".getBytes(UTF_8));
      assertThat(peer.closedByServer()).isTrue();
    }
  }

  @Test
  void endsTheConnectionForUnknownClientFlags() throws IOException {
    try (RawPeer peer = new RawPeer(socket).greeted(0x10)) {
      assertThat(peer.closedByServer()).isTrue();
    }
  }

  @Test
  void listsExportsWithTheirDescriptions() throws IOException {
    server.addExport(Export.of("", new MemoryNode(512)));
    try (RawPeer peer = peer()) {
      List<RawPeer.OptionReply> replies = peer.ask(Wire.Option.LIST, new byte[0]);
      assertThat(replies).hasSize(3);
      assertThat(ByteBuffer.wrap(replies.getFirst().data()).getInt()).isEqualTo(3);
      assertThat(replies.getFirst().text(4)).isEqualTo("vdathe disk");
      assertThat(replies.get(1).data()).containsExactly(0, 0, 0, 0);
      assertThat(peer.ask(Wire.Option.LIST, new byte[1]).getFirst().type())
          .isEqualTo(Wire.Rep.ERR_INVALID);
    }
  }

  @Test
  void informsAboutNameDescriptionAndBlockSizeWhenAsked() throws IOException {
    try (RawPeer peer = peer()) {
      List<RawPeer.OptionReply> all =
          peer.ask(Wire.Option.INFO, RawPeer.infoData("vda", 1, 2, 3, 3, 0, 999));
      List<RawPeer.OptionReply> none = peer.ask(Wire.Option.INFO, RawPeer.infoData("vda"));

      assertThat(all).hasSize(5);
      assertThat(all.get(1).text(2)).isEqualTo("vda");
      assertThat(all.get(2).text(2)).isEqualTo("the disk");
      ByteBuffer sizes = ByteBuffer.wrap(all.get(3).data());
      assertThat(sizes.getShort()).isEqualTo((short) Wire.Information.BLOCK_SIZE);
      assertThat(new int[] {sizes.getInt(), sizes.getInt(), sizes.getInt()})
          .containsExactly(1, 4096, 32 << 20);
      assertThat(none).hasSize(2);
    }
  }

  @Test
  void refusesWhatItDoesNotSpeakAndGoesOn() throws IOException {
    try (RawPeer peer = peer()) {
      assertThat(type(peer, Wire.Option.STARTTLS)).isEqualTo(Wire.Rep.ERR_POLICY);
      assertThat(type(peer, 4)).isEqualTo(Wire.Rep.ERR_UNSUP);
      assertThat(type(peer, -1, new byte[4000])).isEqualTo(Wire.Rep.ERR_UNSUP);
      assertThat(type(peer, 12, new byte[100_000])).isEqualTo(Wire.Rep.ERR_TOO_BIG);
      assertThat(type(peer, Wire.Option.SET_META_CONTEXT, RawPeer.metaData("vda", "base:")))
          .as("before structured replies")
          .isEqualTo(Wire.Rep.ERR_INVALID);
      assertThat(type(peer, Wire.Option.GO, RawPeer.infoData("vdb")))
          .isEqualTo(Wire.Rep.ERR_UNKNOWN);
      assertThat(peer.go("vda").size).isEqualTo(SIZE);
    }
  }

  private static int type(RawPeer peer, int option, byte... data) throws IOException {
    return peer.ask(option, data).getLast().type();
  }

  static Stream<byte[]> malformedInfos() {
    return Stream.of(
        new byte[0],
        new byte[3],
        new byte[4],
        new byte[5],
        bytes(100, 'a', 'b', 'c'),
        bytes(-1, 0, 0),
        bytes(0, 0, 5, 0, 0),
        bytes(0, 0, 0, 'x'),
        bytes(0, 0, 1, 0));
  }

  /// A length and what follows.
  private static byte[] bytes(int length, int... rest) {
    ByteBuffer data = ByteBuffer.allocate(4 + rest.length).putInt(length);
    for (int b : rest) {
      data.put((byte) b);
    }
    return data.array();
  }

  @ParameterizedTest
  @MethodSource("malformedInfos")
  void answersMalformedOptionsAsInvalidAndGoesOn(byte[] data) throws IOException {
    try (RawPeer peer = peer().structured()) {
      for (int option : new int[] {Wire.Option.INFO, Wire.Option.GO}) {
        assertThat(type(peer, option, data)).isEqualTo(Wire.Rep.ERR_INVALID);
      }
      assertThat(type(peer, Wire.Option.LIST_META_CONTEXT, data)).isEqualTo(Wire.Rep.ERR_INVALID);
      assertThat(type(peer, Wire.Option.SET_META_CONTEXT, data)).isEqualTo(Wire.Rep.ERR_INVALID);
      peer.go("vda");
    }
  }

  @Test
  void endsTheConnectionPastTheNumberOfOptions() throws IOException {
    try (RawPeer peer = peer()) {
      for (int i = 0; i < ServerHandshake.MAX_OPTIONS; i++) {
        assertThat(type(peer, 4)).isEqualTo(Wire.Rep.ERR_UNSUP);
      }
      assertThat(peer.closedByServer()).isTrue();
    }
  }

  @Test
  void offersContextsByNameAndByNamespace() throws IOException {
    try (RawPeer peer = peer().structured()) {
      assertThat(contexts(peer, Wire.Option.LIST_META_CONTEXT))
          .containsExactly("base:allocation", "qemu:dirty-bitmap:b0");
      assertThat(contexts(peer, Wire.Option.LIST_META_CONTEXT, "base:", "base:allocation"))
          .containsExactly("base:allocation");
      assertThat(contexts(peer, Wire.Option.LIST_META_CONTEXT, "qemu:"))
          .containsExactly("qemu:dirty-bitmap:b0");
      assertThat(contexts(peer, Wire.Option.LIST_META_CONTEXT, "b", "base:x", "x:", "")).isEmpty();
      assertThat(contexts(peer, Wire.Option.SET_META_CONTEXT)).isEmpty();
      assertThat(contexts(peer, Wire.Option.SET_META_CONTEXT, "base:", "qemu:dirty-bitmap:"))
          .isEmpty();
      assertThat(
              contexts(
                  peer,
                  Wire.Option.SET_META_CONTEXT,
                  "qemu:dirty-bitmap:b0",
                  "qemu:dirty-bitmap:b1",
                  "base:allocation",
                  "base:allocation"))
          .containsExactly("qemu:dirty-bitmap:b0", "base:allocation");
    }
  }

  private static List<String> contexts(RawPeer peer, int option, String... queries)
      throws IOException {
    List<RawPeer.OptionReply> replies = peer.ask(option, RawPeer.metaData("vda", queries));
    assertThat(replies.getLast().type()).isEqualTo(Wire.Rep.ACK);
    return replies.stream()
        .filter(reply -> reply.type() == Wire.Rep.META_CONTEXT)
        .map(reply -> reply.text(4))
        .toList();
  }

  @Test
  void forgetsASelectionThatWasReplacedOrWasForAnotherExport() throws IOException {
    server.addExport(Export.of("vdb", node));
    try (RawPeer replaced = peer().structured().contexts("vda", "base:allocation").contexts("vda");
        RawPeer other = peer().structured().contexts("vdb", "base:allocation")) {
      assertThat(replaced.go("vda").error(Wire.Command.BLOCK_STATUS, 0, 0, 4096)).isEqualTo(22);
      assertThat(other.go("vda").error(Wire.Command.BLOCK_STATUS, 0, 0, 4096)).isEqualTo(22);
    }
  }

  @Test
  void dropsAClientThatDoesNotFinishItsHandshake() throws IOException {
    var slow = folder.resolve("slow.sock");
    try (var impatient =
        new ExportServer(
            ServerLimits.defaults().withHandshakeTime(java.time.Duration.ofSeconds(1)))) {
      impatient.addExport(Export.of("vda", node));
      impatient.listen(slow);
      try (RawPeer opened = new RawPeer(slow).greeted().go("vda");
          RawPeer idle = new RawPeer(slow).greeted()) {
        assertThat(idle.closedByServer()).isTrue();
        assertThat(opened.read(0, 16, 0)).hasSize(16);
      }
    }
  }

  // ---- commands

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void readsBackWhatWasWrittenInEverySize(boolean structured) throws IOException {
    try (RawPeer peer = structured ? peer().structured().go("vda") : peer().go("vda")) {
      int[] sizes = {1, 511, 4096, 65536, 300_001, 600_000, 1 << 20, (1 << 20) + 1, 5_000_003};
      for (int i = 0; i < sizes.length; i++) {
        byte[] data = random(sizes[i], i);
        assertThat(peer.error(Wire.Command.WRITE, 0, i * 3L, sizes[i], data)).isZero();
        assertThat(peer.read(i * 3L, sizes[i], 0)).isEqualTo(data);
        assertThat(node.copy(i * 3, sizes[i])).isEqualTo(data);
      }
    }
  }

  @Test
  void carriesTheLargestPayloadBothWays() throws IOException {
    byte[] data = random(32 << 20, 1);
    try (RawPeer peer = opened()) {
      assertThat(peer.error(Wire.Command.WRITE, 0, 7, data.length, data)).isZero();
      assertThat(peer.read(7, data.length, 0)).isEqualTo(data);
      assertThat(peer.read(7, data.length, Wire.CommandFlag.DF)).isEqualTo(data);
    }
    try (RawPeer peer = peer().go("vda")) {
      assertThat(peer.read(7, data.length, 0)).isEqualTo(data);
    }
  }

  @Test
  void worksWithSmallBuffersWhenThePoolHasNoOthers() throws IOException {
    Path small = folder.resolve("small.sock");
    var limits =
        new ServerLimits(
            4, ServerLimits.defaults().handshakeTime(), ServerLimits.defaults().closeTime(), 0, 0);
    try (var frugal = new ExportServer(limits)) {
      frugal.addExport(Export.of("vda", node));
      frugal.listen(small);
      byte[] data = random(3_000_001, 9);
      for (boolean structured : new boolean[] {false, true}) {
        try (RawPeer peer = new RawPeer(small).greeted()) {
          if (structured) {
            peer.structured().contexts("vda", "base:allocation");
          }
          peer.go("vda");
          assertThat(peer.error(Wire.Command.WRITE, 0, 5, data.length, data)).isZero();
          assertThat(peer.read(5, data.length, 0)).isEqualTo(data);
          if (structured) {
            assertThat(peer.read(5, data.length, Wire.CommandFlag.DF)).isEqualTo(data);
            assertThat(peer.error(Wire.Command.BLOCK_STATUS, 0, 0, SIZE)).isZero();
          }
        }
      }
    }
  }

  @Test
  void sendsHolesAsHolesUnlessToldNotToFragment() throws IOException {
    byte[] data = random(4096, 3);
    try (RawPeer peer = opened()) {
      peer.error(Wire.Command.WRITE, 0, 1 << 20, 4096, data);
      peer.request(Wire.Command.READ, 0, 1, 0, 2 << 20);
      RawPeer.Reply before = peer.next(0);
      RawPeer.Reply middle = peer.next(0);
      RawPeer.Reply after = peer.next(0);
      RawPeer.Reply end = peer.next(0);

      assertThat(before.chunk()).isEqualTo(Wire.Chunk.OFFSET_HOLE);
      assertThat(before.data().getInt(8)).isEqualTo(1 << 20);
      assertThat(middle.chunk()).isEqualTo(Wire.Chunk.OFFSET_DATA);
      assertThat(Arrays.copyOfRange(middle.payload(), 8, 4104)).isEqualTo(data);
      assertThat(after.chunk()).isEqualTo(Wire.Chunk.OFFSET_HOLE);
      assertThat(after.data().getLong(0)).isEqualTo((1 << 20) + 4096);
      assertThat(end.done()).isTrue();

      peer.request(Wire.Command.READ, Wire.CommandFlag.DF, 2, 0, 2 << 20);
      assertThat(peer.next(0).payload()).hasSize((2 << 20) + 8);
    }
  }

  @Test
  void answersPipelinedRequestsInOneBurst() throws IOException {
    try (RawPeer peer = opened()) {
      ByteBuffer all = ByteBuffer.allocate(1000 * (28 + 512) + 1000 * 28);
      for (int i = 0; i < 1000; i++) {
        all.putInt(Wire.Magic.REQUEST).putShort((short) 0).putShort((short) Wire.Command.WRITE);
        all.putLong(i).putLong(i * 512L).putInt(512).put(random(512, i));
      }
      for (int i = 0; i < 1000; i++) {
        all.putInt(Wire.Magic.REQUEST).putShort((short) 0).putShort((short) Wire.Command.READ);
        all.putLong(i).putLong(i * 512L).putInt(512);
      }
      Thread sender =
          Thread.ofVirtual()
              .start(() -> {
                try {
                  peer.out.write(all.array());
                } catch (IOException e) {
                  throw new java.io.UncheckedIOException(e);
                }
              });
      for (int i = 0; i < 1000; i++) {
        assertThat(peer.next(0).cookie()).isEqualTo(i);
      }
      for (int i = 0; i < 1000; i++) {
        RawPeer.Reply reply = peer.next(0);
        assertThat(reply.cookie()).isEqualTo(i);
        assertThat(Arrays.copyOfRange(reply.payload(), 8, 520)).isEqualTo(random(512, i));
      }
      assertThat(sender.isInterrupted()).isFalse();
    }
  }

  @Test
  void flushesZeroesTrimsAndCaches() throws IOException {
    byte[] data = random(65536, 4);
    try (RawPeer peer = opened()) {
      assertThat(peer.error(Wire.Command.WRITE, Wire.CommandFlag.FUA, 0, data.length, data))
          .isZero();
      assertThat(node.flushes).hasValue(1);
      assertThat(peer.error(Wire.Command.FLUSH, 0, 0, 0)).isZero();
      assertThat(node.flushes).hasValue(2);
      assertThat(peer.error(Wire.Command.WRITE_ZEROES, 0, 4096, 4096)).isZero();
      assertThat(peer.error(Wire.Command.TRIM, Wire.CommandFlag.FUA, 8192, 4096)).isZero();
      assertThat(node.flushes).hasValue(3);
      assertThat(peer.error(Wire.Command.CACHE, 0, 0, SIZE)).isZero();
      Arrays.fill(data, 4096, 12288, (byte) 0);
      assertThat(peer.read(0, data.length, 0)).isEqualTo(data);
    }
  }

  @Test
  void zeroesFastOnlyWhereNothingIsToDo() throws IOException {
    byte[] data = random(4096, 5);
    try (RawPeer peer = opened()) {
      peer.error(Wire.Command.WRITE, 0, 0, 4096, data);
      int fast = Wire.CommandFlag.FAST_ZERO;

      assertThat(peer.error(Wire.Command.WRITE_ZEROES, fast, 0, 65536)).isEqualTo(95);
      assertThat(peer.read(0, 4096, 0)).isEqualTo(data);
      assertThat(peer.error(Wire.Command.WRITE_ZEROES, fast, 4096, 65536)).isZero();
      assertThat(peer.error(Wire.Command.WRITE_ZEROES, fast | Wire.CommandFlag.NO_HOLE, 4096, 4096))
          .isEqualTo(95);
    }
  }

  @Test
  void answersBlockStatusOfBothContexts() throws IOException {
    bitmap.set(65536, 65536);
    try (RawPeer peer = opened()) {
      peer.error(Wire.Command.WRITE, 0, 0, 4096, new byte[4096]);
      peer.request(Wire.Command.BLOCK_STATUS, 0, 1, 0, 262144);
      ByteBuffer allocation = peer.next(0).data();
      ByteBuffer dirty = peer.next(0).data();
      peer.request(Wire.Command.BLOCK_STATUS, Wire.CommandFlag.REQ_ONE, 2, 0, 262144);
      ByteBuffer one = peer.next(0).data();

      assertThat(ints(allocation)).containsExactly(0, 4096, 0, 262144 - 4096, 3);
      assertThat(ints(dirty)).containsExactly(1, 65536, 0, 65536, 1, 131072, 0);
      assertThat(ints(one)).containsExactly(0, 4096, 0);
      assertThat(peer.next(0).done()).isTrue();
    }
  }

  private static int[] ints(ByteBuffer data) {
    int[] values = new int[data.remaining() / 4];
    data.asIntBuffer().get(values);
    return values;
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void refusesRequestsThatPassTheEndAndKeepsInStep(boolean structured) throws IOException {
    byte[] data = random(512, 6);
    try (RawPeer peer = structured ? opened() : peer().go("vda")) {
      long[] offsets = {SIZE, SIZE - 511L, SIZE + (1L << 40), -1, -512, Long.MAX_VALUE - 511};
      for (long offset : offsets) {
        assertThat(peer.error(Wire.Command.READ, 0, offset, 512)).isEqualTo(22);
        assertThat(peer.error(Wire.Command.WRITE, 0, offset, 512, data)).isEqualTo(28);
        assertThat(peer.error(Wire.Command.TRIM, 0, offset, 512)).isEqualTo(22);
        assertThat(peer.error(Wire.Command.WRITE_ZEROES, 0, offset, 512)).isEqualTo(28);
        assertThat(peer.error(Wire.Command.CACHE, 0, offset, 512)).isEqualTo(22);
        assertThat(peer.error(Wire.Command.BLOCK_STATUS, 0, offset, 512)).isEqualTo(22);
      }
      assertThat(peer.error(Wire.Command.READ, 0, 0, 0xffff_ffffL)).isEqualTo(22);
      assertThat(peer.error(Wire.Command.READ, 0, 0, (32 << 20) + 1)).isEqualTo(75);
      assertThat(peer.read(0, 512, 0)).containsOnly(0);
    }
  }

  @Test
  void refusesUnknownCommandsAndFlagsAndKeepsInStep() throws IOException {
    byte[] data = random(2000, 7);
    try (RawPeer peer = opened()) {
      for (int command : new int[] {8, 9, 100, 0xffff}) {
        assertThat(peer.error(command, 0, 0, 0)).isEqualTo(22);
      }
      for (int bit = 5; bit < 16; bit++) {
        for (int command = 0; command < 8; command++) {
          if (command != Wire.Command.DISC) {
            byte[] payload = command == Wire.Command.WRITE ? data : new byte[0];
            assertThat(peer.error(command, 1 << bit, 0, 2000, payload)).isEqualTo(22);
          }
        }
      }
      assertThat(peer.error(Wire.Command.WRITE, Wire.CommandFlag.NO_HOLE, 0, 2000, data))
          .isEqualTo(22);
      assertThat(peer.error(Wire.Command.BLOCK_STATUS, 0, 0, 0)).isEqualTo(22);
      assertThat(node.copy(0, 2000)).containsOnly(0);
    }
    try (RawPeer peer = peer().go("vda")) {
      assertThat(peer.error(Wire.Command.READ, Wire.CommandFlag.DF, 0, 512)).isEqualTo(22);
    }
  }

  @Test
  void acceptsRequestsOfNoLength() throws IOException {
    for (boolean structured : new boolean[] {false, true}) {
      try (RawPeer peer = structured ? opened() : peer().go("vda")) {
        for (int command : new int[] {0, 1, 4, 5, 6}) {
          assertThat(peer.error(command, 0, SIZE, 0)).isZero();
        }
        assertThat(peer.read(0, 16, 0)).hasSize(16);
      }
    }
  }

  @Test
  void refusesChangesOfAReadOnlyExport() throws IOException {
    server.addExport(new Export("ro", node, "", true, List.of()));
    try (RawPeer peer = peer().structured().go("ro")) {
      assertThat(peer.flags & Wire.Flag.READ_ONLY).isNotZero();
      assertThat(peer.flags & Wire.Flag.SEND_WRITE_ZEROES).isZero();
      assertThat(peer.error(Wire.Command.WRITE, 0, 0, 512, random(512, 8))).isEqualTo(1);
      assertThat(peer.error(Wire.Command.WRITE_ZEROES, 0, 0, 512)).isEqualTo(1);
      assertThat(peer.error(Wire.Command.TRIM, 0, 0, 512)).isEqualTo(1);
      assertThat(peer.error(Wire.Command.FLUSH, 0, 0, 0)).isZero();
      assertThat(node.copy(0, 512)).containsOnly(0);
    }
  }

  static Stream<BlockException> failures() {
    return Stream.of(
        new OutOfSpaceException("x"),
        new ReadOnlyNodeException("x"),
        new UnsupportedImageException("x"),
        new CorruptImageException("x"),
        new ImageBusyException("x"),
        new TransportException("x"));
  }

  @ParameterizedTest
  @MethodSource("failures")
  void passesFailuresOfTheNodeOnAndGoesOn(BlockException failure) throws IOException {
    int wanted = NbdErrno.of(failure).number();
    byte[] data = random(3 << 20, 8);
    for (boolean structured : new boolean[] {false, true}) {
      try (RawPeer peer = structured ? opened() : peer().go("vda")) {
        node.failure = failure;
        for (int length : new int[] {1, 4096, 3 << 20}) {
          byte[] payload = Arrays.copyOf(data, length);
          assertThat(peer.error(Wire.Command.READ, 0, 0, length)).isEqualTo(wanted);
          assertThat(peer.error(Wire.Command.WRITE, 0, 0, length, payload)).isEqualTo(wanted);
          assertThat(peer.error(Wire.Command.WRITE_ZEROES, 0, 0, length)).isEqualTo(wanted);
          assertThat(peer.error(Wire.Command.TRIM, 0, 0, length)).isEqualTo(wanted);
        }
        assertThat(peer.error(Wire.Command.FLUSH, 0, 0, 0)).isEqualTo(wanted);
        if (structured) {
          assertThat(peer.error(Wire.Command.BLOCK_STATUS, 0, 0, 4096)).isEqualTo(wanted);
          assertThat(peer.error(Wire.Command.READ, Wire.CommandFlag.DF, 0, 3 << 20))
              .isEqualTo(wanted);
        }
        node.failure = null;
        assertThat(peer.error(Wire.Command.READ, 0, 0, 512)).isZero();
      }
    }
  }

  @Test
  void tellsThePeerTheKindOfAFailureAndNothingOfTheHost() throws IOException {
    node.failure = new TransportException("/secret/path: lost");
    try (RawPeer peer = opened()) {
      peer.request(Wire.Command.READ, 0, 1, 0, 512);
      RawPeer.Reply reply = peer.next(0);
      assertThat(reply.chunk()).isEqualTo(Wire.Chunk.ERROR_OFFSET);
      int text = reply.payload().length - Wire.Size.ERROR - Wire.Size.OFFSET;
      assertThat(new String(reply.payload(), 6, text, UTF_8)).isEqualTo("input/output error");
      assertThat(reply.data().getLong(Wire.Size.ERROR + text)).isZero();
    }
  }

  // ---- sockets and exports

  @Test
  void makesItsSocketForTheOwnerOnlyAndRemovesIt() throws IOException {
    assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(socket)))
        .isEqualTo("rw-------");
    server.close();
    assertThat(socket).doesNotExist();
    try (Stream<Path> left = Files.list(folder)) {
      assertThat(left).isEmpty();
    }
  }

  @Test
  void replacesAStaleSocketAndNothingElse() throws IOException {
    Path stale = folder.resolve("stale.sock");
    try (var dead = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      dead.bind(UnixDomainSocketAddress.of(stale));
    }
    server.listen(stale);
    try (RawPeer peer = new RawPeer(stale).greeted().go("vda")) {
      assertThat(peer.size).isEqualTo(SIZE);
    }
    Path file = Files.createFile(folder.resolve("file"));
    assertThatThrownBy(() -> server.listen(file)).hasMessageContaining("no socket");
    try (var second = new ExportServer()) {
      assertThatThrownBy(() -> second.listen(socket)).hasMessageContaining("another server");
    }
    try (RawPeer peer = peer()) {
      assertThat(peer.go("vda").size).isEqualTo(SIZE);
    }
  }

  @Test
  void refusesASocketPathThatNoClientCouldName() {
    Path tooLong = folder.resolve("x".repeat(108 - folder.toString().length() - 1));
    assertThatThrownBy(() -> server.listen(tooLong)).hasMessageContaining("at most 107");
    assertThat(tooLong).doesNotExist();
  }

  @Test
  void leavesAFileThatTookThePlaceOfItsSocket() throws IOException {
    Files.delete(socket);
    Files.writeString(socket, "mine");

    server.close();

    assertThat(socket).hasContent("mine");
  }

  @Test
  void servesTcpOnLoopbackOnly() throws Exception {
    InetSocketAddress address =
        server.listen(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
    try (NbdClient client = NbdClient.connect(NbdUri.tcp("127.0.0.1", address.getPort(), "vda"))) {
      assertThat(client.virtualSize()).isEqualTo(SIZE);
    }
    assertThatThrownBy(() -> server.listen(new InetSocketAddress(0))).hasMessageContaining("TLS");
  }

  @Test
  void addsAndRemovesExportsWhileItServes() throws IOException {
    var other = new MemoryNode(512);
    try (RawPeer user = opened();
        RawPeer bystander = peer()) {
      server.addExport(Export.of("vdb", other));
      assertThatThrownBy(() -> server.addExport(Export.of("vdb", other)))
          .isInstanceOf(IllegalArgumentException.class);
      assertThat(bystander.go("vdb").size).isEqualTo(512);

      assertThat(server.removeExport("vda")).isTrue();

      assertThat(user.closedByServer()).isTrue();
      assertThat(bystander.read(0, 512, 0)).hasSize(512);
      assertThat(server.exports()).extracting(Export::name).containsExactly("vdb");
      assertThat(server.removeExport("vda")).isTrue();
    }
  }
}
