// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.BlockException;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import javax.net.ssl.SSLException;

/// The client's side of the fixed newstyle handshake. Everything the server says is checked.
///
/// A refusal is a [BlockException]; what contradicts the protocol an [NbdProtocolException].
///
/// Spec: proto.md, "Handshake phase".
final class ClientHandshake {
  /// Exports in a server's list, and contexts of one export.
  static final int MAX_LISTED = 10_000;

  private static final int MAX_MIN_BLOCK = 64 << 10;

  /// What was agreed on for an export.
  ///
  /// @param contexts ids of the metadata contexts that the server answers, by name
  record Terms(ExportInfo info, Framing framing, Map<String, Integer> contexts) {}

  private final PeerStream stream;
  private final String server; // for messages
  private boolean noZeroes;
  private Framing framing = Framing.SIMPLE;

  ClientHandshake(PeerStream stream, String server) {
    this.stream = stream;
    this.server = server;
  }

  /// Reads the greeting and answers it.
  private void greet() throws IOException {
    need(Wire.Size.GREETING);
    ByteBuffer in = stream.in();
    long magic = in.getLong();
    long style = in.getLong();
    int flags = Short.toUnsignedInt(in.getShort());
    if (magic != Wire.Magic.NBD) {
      throw new NbdProtocolException(server + ": greeting " + Long.toHexString(magic));
    }
    if (style != Wire.Magic.OPTION || (flags & Wire.Handshake.FIXED_NEWSTYLE) == 0) {
      throw new UnsupportedImageException(
          server + ": speaks an old handshake, wanted fixed newstyle");
    }
    noZeroes = (flags & Wire.Handshake.NO_ZEROES) != 0;
    stream.reserve(4);
    stream.out().putInt(Wire.Handshake.FIXED_NEWSTYLE | (noZeroes ? Wire.Handshake.NO_ZEROES : 0));
  }

  /// Does what comes before a choice of export: greeting, TLS where the URI wants it, framing.
  void begin(NbdUri uri) throws IOException {
    greet();
    if (uri.tls().isPresent()) {
      NbdUri.Tls tls = uri.tls().get();
      Optional<String> host = Optional.of(uri.host()).filter(name -> !name.isEmpty());
      startTls(
          TlsCredentials.client(tls.certificates(), tls.verifyPeer()),
          tls.hostname().or(() -> host));
    }
    chunkedReplies();
  }

  /// Starts TLS. Behind the greeting, before anything else is agreed on.
  private void startTls(TlsCredentials credentials, Optional<String> host) throws IOException {
    Optional<Reply> refusal = ask(Wire.Option.STARTTLS, ByteBuffer.allocate(0), Wire.Rep.ACK);
    if (refusal.isPresent()) {
      throw new TransportException(server + ": the server speaks no TLS, and the URI wants it");
    }
    try {
      stream.startTls(credentials.engine(host));
    } catch (SSLException e) {
      throw new TransportException(server + ": TLS: " + e.getMessage(), e);
    }
  }

  /// Asks for extended headers, and where the server has none for structured replies.
  private void chunkedReplies() throws IOException {
    if (ask(Wire.Option.EXTENDED_HEADERS, ByteBuffer.allocate(0), Wire.Rep.ACK).isEmpty()) {
      framing = Framing.EXTENDED;
    } else if (ask(Wire.Option.STRUCTURED_REPLY, ByteBuffer.allocate(0), Wire.Rep.ACK).isEmpty()) {
      framing = Framing.STRUCTURED;
    }
  }

  /// Opens an export for transmission.
  ///
  /// @param wanted metadata contexts to select; those that the server has not are left out
  Terms open(String export, List<String> wanted) throws IOException {
    var contexts = new HashMap<String, Integer>();
    if (framing.chunked()) {
      for (Context context : contexts(Wire.Option.SET_META_CONTEXT, export, wanted)) {
        contexts.put(context.name(), context.id());
      }
    }
    Optional<ExportInfo> info = info(Wire.Option.GO, export);
    if (info.isEmpty()) {
      return new Terms(exportName(export), framing, Map.of());
    }
    return new Terms(info.get(), framing, Map.copyOf(contexts));
  }

  /// Describes an export without opening it; empty when the server does not know how.
  Optional<ExportInfo> describe(String export) throws IOException {
    Optional<ExportInfo> info = info(Wire.Option.INFO, export);
    if (info.isEmpty() || !framing.chunked()) {
      return info;
    }
    List<String> names =
        contexts(Wire.Option.LIST_META_CONTEXT, export, List.of()).stream()
            .map(Context::name)
            .toList();
    ExportInfo i = info.get();
    return Optional.of(
        new ExportInfo(
            i.name(),
            i.description(),
            i.size(),
            i.transmissionFlags(),
            i.minBlock(),
            i.preferredBlock(),
            i.maxPayload(),
            names));
  }

  /// An export as a server lists it.
  record Listed(String name, String description) {}

  List<Listed> list() throws IOException {
    send(Wire.Option.LIST, ByteBuffer.allocate(0));
    var listed = new ArrayList<Listed>();
    while (true) {
      Reply reply = reply(Wire.Option.LIST);
      if (reply.type == Wire.Rep.ACK) {
        return listed;
      }
      refuse(reply, "list of exports");
      if (reply.type != Wire.Rep.SERVER || listed.size() == MAX_LISTED) {
        throw new NbdProtocolException(
            server + ": list of exports: reply " + reply.type + " after " + listed.size());
      }
      String name = string(reply.data);
      listed.add(new Listed(name, UTF_8.decode(reply.data).toString()));
    }
  }

  /// Takes leave instead of opening an export.
  void abort() throws IOException {
    send(Wire.Option.ABORT, ByteBuffer.allocate(0));
    stream.flush();
  }

  // ---- options

  private record Context(int id, String name) {}

  /// Selects or lists contexts; none when the server does not know the option.
  private List<Context> contexts(int option, String export, List<String> queries)
      throws IOException {
    byte[] name = export.getBytes(UTF_8);
    int bytes = 8 + name.length;
    for (String query : queries) {
      bytes += 4 + query.getBytes(UTF_8).length;
    }
    ByteBuffer data = ByteBuffer.allocate(bytes);
    data.putInt(name.length).put(name).putInt(queries.size());
    for (String query : queries) {
      byte[] text = query.getBytes(UTF_8);
      data.putInt(text.length).put(text);
    }
    send(option, data.flip());
    var contexts = new ArrayList<Context>();
    while (true) {
      Reply reply = reply(option);
      if (reply.type == Wire.Rep.ACK) {
        return contexts;
      }
      if (reply.isError()) {
        return List.of(); // then extents are not known
      }
      if (reply.type != Wire.Rep.META_CONTEXT
          || reply.data.remaining() < 5
          || contexts.size() == MAX_LISTED) {
        throw new NbdProtocolException(server + ": metadata contexts: reply " + reply.type);
      }
      int id = reply.data.getInt();
      contexts.add(new Context(id, UTF_8.decode(reply.data).toString()));
    }
  }

  private Optional<ExportInfo> info(int option, String export) throws IOException {
    byte[] name = export.getBytes(UTF_8);
    ByteBuffer data = ByteBuffer.allocate(4 + name.length + 2 + 4);
    data.putInt(name.length).put(name).putShort((short) 2);
    data.putShort((short) Wire.Information.DESCRIPTION)
        .putShort((short) Wire.Information.BLOCK_SIZE);
    send(option, data.flip());
    var builder = new InfoBuilder(export);
    for (int n = 0; n < MAX_LISTED; n++) {
      Reply reply = reply(option);
      if (reply.type == Wire.Rep.ACK) {
        return Optional.of(builder.build());
      }
      if (reply.type == Wire.Rep.ERR_UNSUP) {
        return Optional.empty();
      }
      refuse(reply, "export " + ServerHandshake.quote(export));
      if (reply.type != Wire.Rep.INFO || reply.data.remaining() < 2) {
        throw new NbdProtocolException(server + ": export information: reply " + reply.type);
      }
      builder.take(reply.data);
    }
    throw new NbdProtocolException(server + ": endless export information");
  }

  private final class InfoBuilder {
    private final String export;
    private String description = "";
    private long size = -1;
    private int flags;
    private int minBlock = 1;
    private int preferredBlock = ServerTransmission.PREFERRED_BLOCK;
    private int maxPayload = Wire.MAX_PAYLOAD;

    InfoBuilder(String export) {
      this.export = export;
    }

    void take(ByteBuffer data) throws IOException {
      int kind = Short.toUnsignedInt(data.getShort());
      switch (kind) {
        case Wire.Information.EXPORT -> {
          wanted(kind, data, 10);
          size = data.getLong();
          flags = Short.toUnsignedInt(data.getShort());
        }
        case Wire.Information.DESCRIPTION -> description = UTF_8.decode(data).toString();
        case Wire.Information.BLOCK_SIZE -> {
          wanted(kind, data, 12);
          minBlock = data.getInt();
          preferredBlock = data.getInt();
          long max = Integer.toUnsignedLong(data.getInt());
          maxPayload = (int) Math.min(max, Wire.MAX_PAYLOAD);
        }
        default -> {} // unknown kinds are ignored. Spec: NBD_REP_INFO
      }
    }

    private void wanted(int kind, ByteBuffer data, int bytes) throws IOException {
      if (data.remaining() != bytes) {
        throw new NbdProtocolException(
            server + ": information " + kind + " of " + data.remaining() + " bytes");
      }
    }

    ExportInfo build() throws IOException {
      String what = server + ": export " + ServerHandshake.quote(export) + ": ";
      if (size < 0) {
        throw new NbdProtocolException(what + "size " + Long.toUnsignedString(size));
      }
      if (minBlock < 1
          || Integer.bitCount(minBlock) != 1
          || minBlock > MAX_MIN_BLOCK
          || preferredBlock < minBlock
          || maxPayload < minBlock) {
        throw new NbdProtocolException(
            what + "block sizes " + minBlock + ", " + preferredBlock + ", " + maxPayload);
      }
      if (size % minBlock != 0) {
        throw new UnsupportedImageException(
            what + "size " + size + " is no multiple of its minimum block " + minBlock);
      }
      return new ExportInfo(
          export,
          description,
          size,
          flags,
          minBlock,
          preferredBlock,
          maxPayload - maxPayload % minBlock,
          List.of());
    }
  }

  /// For servers without GO: no way to learn why an export is refused, the connection just ends.
  private ExportInfo exportName(String export) throws IOException {
    if (framing == Framing.EXTENDED) {
      throw new NbdProtocolException(server + ": has extended headers and no NBD_OPT_GO");
    }
    send(Wire.Option.EXPORT_NAME, ByteBuffer.wrap(export.getBytes(UTF_8)));
    int bytes = 10 + (noZeroes ? 0 : Wire.EXPORT_NAME_PADDING);
    if (!stream.fill(bytes)) {
      throw new TransportException(server + ": no export named " + ServerHandshake.quote(export));
    }
    var builder = new InfoBuilder(export);
    builder.size = stream.in().getLong();
    builder.flags = Short.toUnsignedInt(stream.in().getShort());
    stream.skip(bytes - 10L);
    return builder.build();
  }

  // ---- framing

  private record Reply(int type, ByteBuffer data) {
    boolean isError() {
      return type < 0;
    }
  }

  /// Sends an option whose only good answer is `wanted`; the error where the server refused.
  private Optional<Reply> ask(int option, ByteBuffer data, int wanted) throws IOException {
    send(option, data);
    Reply reply = reply(option);
    if (reply.type == wanted) {
      return Optional.empty();
    }
    if (!reply.isError()) {
      throw new NbdProtocolException(server + ": option " + option + ": reply " + reply.type);
    }
    return Optional.of(reply);
  }

  private void send(int option, ByteBuffer data) throws IOException {
    stream.reserve(Wire.Size.OPTION + data.remaining());
    stream.out().putLong(Wire.Magic.OPTION).putInt(option).putInt(data.remaining()).put(data);
  }

  private Reply reply(int option) throws IOException {
    stream.flush(); // also when a server answers what was not asked yet
    need(Wire.Size.OPTION_REPLY);
    ByteBuffer in = stream.in();
    long magic = in.getLong();
    int answered = in.getInt();
    int type = in.getInt();
    long length = Integer.toUnsignedLong(in.getInt());
    if (magic != Wire.Magic.OPTION_REPLY || answered != option) {
      throw new NbdProtocolException(
          server + ": reply " + Long.toHexString(magic) + " to option " + answered);
    }
    if (length > BufferPool.SMALL) {
      throw new NbdProtocolException(server + ": option reply of " + length + " bytes");
    }
    need((int) length);
    byte[] bytes = new byte[(int) length];
    stream.in().get(bytes);
    return new Reply(type, ByteBuffer.wrap(bytes));
  }

  private void need(int bytes) throws IOException {
    if (!stream.fill(bytes)) {
      throw new TransportException(server + ": closed the connection in the handshake");
    }
  }

  private String string(ByteBuffer data) throws IOException {
    long length = data.remaining() < 4 ? -1 : Integer.toUnsignedLong(data.getInt());
    if (length < 0 || length > data.remaining()) {
      throw new NbdProtocolException(server + ": export name does not fit its reply");
    }
    ByteBuffer text = data.slice(data.position(), (int) length);
    data.position(data.position() + (int) length);
    return UTF_8.decode(text).toString();
  }

  private void refuse(Reply reply, String what) throws BlockException {
    if (!reply.isError()) {
      return;
    }
    String why = ServerHandshake.quote(UTF_8.decode(reply.data.duplicate()).toString());
    String text = server + ": " + what + ": ";
    switch (reply.type) {
      case Wire.Rep.ERR_UNKNOWN -> throw new TransportException(text + "not offered: " + why);
      case Wire.Rep.ERR_TLS_REQD ->
          throw new UnsupportedImageException(text + "the server wants TLS");
      case Wire.Rep.ERR_POLICY -> throw new TransportException(text + "not allowed: " + why);
      default ->
          throw new TransportException(
              text + "refused with 0x" + Integer.toHexString(reply.type) + ": " + why);
    }
  }
}
