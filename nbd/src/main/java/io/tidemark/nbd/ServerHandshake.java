// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.block.DirtyBitmap;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// The server's side of the fixed newstyle handshake, up to the choice of an export.
///
/// Spec: proto.md, "Handshake phase", "Option types".
final class ServerHandshake {
  /// Options one client may send.
  static final int MAX_OPTIONS = 1024;

  /// Bytes of one option's data; a longer one up to [Wire#MAX_PAYLOAD] is skipped and refused.
  static final int MAX_OPTION_BYTES = 64 << 10;

  /// What the client chose.
  ///
  /// @param size of the export, as the client was told
  /// @param contexts in the order of their ids
  record Opened(Export export, long size, Framing framing, List<MetaContext> contexts) {}

  /// Where exports are found.
  interface Exports {
    List<Export> offered();

    Optional<Export> find(String name);

    /// Finds an export and counts this connection among its clients.
    Optional<Export> open(String name);

    /// Whether a second connection is let in beside the first: a client that is told of
    /// CAN_MULTI_CONN waits for it.
    boolean shared();
  }

  private final PeerStream stream;
  private final Exports exports;
  private final Optional<ServerTls> tls;
  private boolean secure; // TLS runs
  private boolean noZeroes;
  private Framing framing = Framing.SIMPLE;
  private String contextsOf = "";
  private List<MetaContext> contexts = List.of();

  ServerHandshake(PeerStream stream, Exports exports, Optional<ServerTls> tls) {
    this.stream = stream;
    this.exports = exports;
    this.tls = tls;
  }

  /// Speaks with the client until it opens an export; empty when it leaves without.
  ///
  /// @throws NbdProtocolException when it breaks the protocol or a limit
  Optional<Opened> run() throws IOException {
    stream.reserve(Wire.Size.GREETING);
    stream
        .out()
        .putLong(Wire.Magic.NBD)
        .putLong(Wire.Magic.OPTION)
        .putShort((short) (Wire.Handshake.FIXED_NEWSTYLE | Wire.Handshake.NO_ZEROES));
    if (!stream.fill(4)) {
      return Optional.empty();
    }
    int flags = stream.in().getInt();
    if ((flags & ~(Wire.Handshake.FIXED_NEWSTYLE | Wire.Handshake.NO_ZEROES)) != 0) {
      throw new NbdProtocolException("client flags " + hex(flags) + ", wanted none but 0x3");
    }
    noZeroes = (flags & Wire.Handshake.NO_ZEROES) != 0;
    for (int n = 0; n < MAX_OPTIONS; n++) {
      if (!stream.fill(Wire.Size.OPTION)) {
        return Optional.empty();
      }
      ByteBuffer in = stream.in();
      long magic = in.getLong();
      int option = in.getInt();
      long length = Integer.toUnsignedLong(in.getInt());
      if (magic != Wire.Magic.OPTION) {
        throw new NbdProtocolException("option magic " + Long.toHexString(magic));
      }
      Step step = answer(option, length);
      if (step instanceof Step.Transmission(Opened opened)) {
        return Optional.of(opened);
      }
      if (step instanceof Step.End) {
        stream.flush();
        return Optional.empty();
      }
    }
    stream.flush();
    throw new NbdProtocolException("more than " + MAX_OPTIONS + " options");
  }

  /// What follows an option.
  private sealed interface Step {
    record Next() implements Step {}

    record End() implements Step {}

    record Transmission(Opened opened) implements Step {}
  }

  private static final Step NEXT = new Step.Next();
  private static final Step END = new Step.End();

  private Step answer(int option, long length) throws IOException {
    if (length > Wire.MAX_PAYLOAD) {
      throw new NbdProtocolException(
          "option " + option + " of " + length + " bytes, at most " + Wire.MAX_PAYLOAD);
    }
    if (length > MAX_OPTION_BYTES || !stream.room((int) length)) {
      if (option == Wire.Option.EXPORT_NAME) {
        throw new NbdProtocolException("export name of " + length + " bytes");
      }
      if (!stream.skip(length)) {
        return END;
      }
      return refuse(
          option, Wire.Rep.ERR_TOO_BIG, "option data passes " + MAX_OPTION_BYTES + " bytes");
    }
    if (!stream.fill((int) length)) {
      return END;
    }
    byte[] bytes = new byte[(int) length];
    stream.in().get(bytes);
    ByteBuffer data = ByteBuffer.wrap(bytes);
    if (tls.isPresent()
        && tls.get().required()
        && !secure
        && option != Wire.Option.STARTTLS
        && option != Wire.Option.ABORT) {
      if (option == Wire.Option.EXPORT_NAME) {
        throw new NbdProtocolException("NBD_OPT_EXPORT_NAME without TLS, which is required");
      }
      return refuse(option, Wire.Rep.ERR_TLS_REQD, "TLS is required");
    }
    return switch (option) {
      case Wire.Option.EXPORT_NAME -> exportName(data);
      case Wire.Option.ABORT -> {
        reply(option, Wire.Rep.ACK, 0);
        yield END;
      }
      case Wire.Option.LIST -> list(data);
      case Wire.Option.INFO, Wire.Option.GO -> info(option, data);
      case Wire.Option.STRUCTURED_REPLY -> structuredReply(data);
      case Wire.Option.LIST_META_CONTEXT, Wire.Option.SET_META_CONTEXT -> meta(option, data);
      case Wire.Option.STARTTLS -> startTls(data);
      case Wire.Option.EXTENDED_HEADERS -> extendedHeaders(data);
      default -> refuse(option, Wire.Rep.ERR_UNSUP, "unknown option");
    };
  }

  /// Starts TLS; what was agreed on in the clear is forgotten.
  ///
  /// Spec: proto.md, NBD_OPT_STARTTLS, "TLS support".
  private Step startTls(ByteBuffer data) throws IOException {
    if (data.hasRemaining()) {
      return refuse(Wire.Option.STARTTLS, Wire.Rep.ERR_INVALID, "option takes no data");
    }
    if (secure) {
      return refuse(Wire.Option.STARTTLS, Wire.Rep.ERR_INVALID, "TLS runs already");
    }
    if (tls.isEmpty()) {
      return refuse(Wire.Option.STARTTLS, Wire.Rep.ERR_POLICY, "no TLS here");
    }
    reply(Wire.Option.STARTTLS, Wire.Rep.ACK, 0);
    stream.startTls(tls.get().credentials().engine(Optional.empty()));
    secure = true;
    framing = Framing.SIMPLE;
    contexts = List.of();
    return NEXT;
  }

  private Step exportName(ByteBuffer data) throws IOException {
    if (framing == Framing.EXTENDED) {
      throw new NbdProtocolException("NBD_OPT_EXPORT_NAME although extended headers are agreed on");
    }
    if (data.remaining() > Export.MAX_NAME_BYTES) {
      throw new NbdProtocolException("export name of " + data.remaining() + " bytes");
    }
    String name = UTF_8.decode(data).toString();
    Optional<Export> found = exports.open(name);
    if (found.isEmpty()) {
      throw new NbdProtocolException("no export named " + quote(name));
    }
    Opened opened = opened(found.get(), name);
    stream.reserve(10 + Wire.EXPORT_NAME_PADDING);
    stream.out().putLong(opened.size()).putShort((short) flags(opened.export()));
    if (!noZeroes) {
      stream.out().put(new byte[Wire.EXPORT_NAME_PADDING]);
    }
    stream.flush();
    return new Step.Transmission(opened);
  }

  private Step list(ByteBuffer data) throws IOException {
    if (data.hasRemaining()) {
      return refuse(Wire.Option.LIST, Wire.Rep.ERR_INVALID, "option takes no data");
    }
    for (Export export : exports.offered()) {
      byte[] name = export.name().getBytes(UTF_8);
      byte[] description = export.description().getBytes(UTF_8);
      reply(Wire.Option.LIST, Wire.Rep.SERVER, 4 + name.length + description.length);
      stream.out().putInt(name.length).put(name).put(description);
    }
    reply(Wire.Option.LIST, Wire.Rep.ACK, 0);
    return NEXT;
  }

  private Step structuredReply(ByteBuffer data) throws IOException {
    if (data.hasRemaining()) {
      return refuse(Wire.Option.STRUCTURED_REPLY, Wire.Rep.ERR_INVALID, "option takes no data");
    }
    if (framing == Framing.EXTENDED) {
      return refuse(
          Wire.Option.STRUCTURED_REPLY,
          Wire.Rep.ERR_EXT_HEADER_REQD,
          "extended headers are agreed on");
    }
    framing = Framing.STRUCTURED;
    reply(Wire.Option.STRUCTURED_REPLY, Wire.Rep.ACK, 0);
    return NEXT;
  }

  private Step extendedHeaders(ByteBuffer data) throws IOException {
    if (data.hasRemaining()) {
      return refuse(Wire.Option.EXTENDED_HEADERS, Wire.Rep.ERR_INVALID, "option takes no data");
    }
    if (framing == Framing.EXTENDED) {
      return refuse(Wire.Option.EXTENDED_HEADERS, Wire.Rep.ERR_INVALID, "agreed on already");
    }
    framing = Framing.EXTENDED;
    contexts = List.of();
    reply(Wire.Option.EXTENDED_HEADERS, Wire.Rep.ACK, 0);
    return NEXT;
  }

  private Step info(int option, ByteBuffer data) throws IOException {
    Optional<String> name = name(data);
    if (name.isEmpty() || data.remaining() < 2) {
      return refuse(option, Wire.Rep.ERR_INVALID, "malformed export name");
    }
    int requests = Short.toUnsignedInt(data.getShort());
    if (data.remaining() != 2 * requests) {
      return refuse(
          option,
          Wire.Rep.ERR_INVALID,
          data.remaining() + " bytes for " + requests + " information requests");
    }
    boolean go = option == Wire.Option.GO;
    Optional<Export> found = go ? exports.open(name.get()) : exports.find(name.get());
    if (found.isEmpty()) {
      return refuse(option, Wire.Rep.ERR_UNKNOWN, "no export named " + quote(name.get()));
    }
    Opened opened = opened(found.get(), name.get());
    reply(option, Wire.Rep.INFO, 12);
    stream
        .out()
        .putShort((short) Wire.Information.EXPORT)
        .putLong(opened.size())
        .putShort((short) flags(opened.export()));
    boolean[] given = new boolean[4];
    while (data.hasRemaining()) {
      int request = Short.toUnsignedInt(data.getShort());
      if (request > 0 && request < given.length && !given[request]) {
        given[request] = true;
        inform(option, request, opened.export());
      }
    }
    reply(option, Wire.Rep.ACK, 0);
    if (!go) {
      return NEXT;
    }
    stream.flush();
    return new Step.Transmission(opened);
  }

  private void inform(int option, int request, Export export) throws IOException {
    switch (request) {
      case Wire.Information.NAME -> informText(option, request, export.name());
      case Wire.Information.DESCRIPTION -> {
        if (!export.description().isEmpty()) {
          informText(option, request, export.description());
        }
      }
      case Wire.Information.BLOCK_SIZE -> {
        reply(option, Wire.Rep.INFO, 14);
        stream
            .out()
            .putShort((short) request)
            .putInt(ServerTransmission.MIN_BLOCK)
            .putInt(ServerTransmission.PREFERRED_BLOCK)
            .putInt(Wire.MAX_PAYLOAD);
      }
      default -> {} // unknown requests are ignored. Spec: NBD_OPT_INFO
    }
  }

  private void informText(int option, int request, String text) throws IOException {
    byte[] bytes = text.getBytes(UTF_8);
    reply(option, Wire.Rep.INFO, 2 + bytes.length);
    stream.out().putShort((short) request).put(bytes);
  }

  private Opened opened(Export export, String name) {
    return new Opened(
        export,
        export.node().virtualSize(),
        framing,
        contextsOf.equals(name) ? contexts : List.of());
  }

  /// Transmission flags.
  private int flags(Export export) {
    int flags =
        Wire.Flag.HAS_FLAGS | Wire.Flag.SEND_FLUSH | Wire.Flag.SEND_FUA | Wire.Flag.SEND_CACHE;
    if (exports.shared()) {
      flags |= Wire.Flag.CAN_MULTI_CONN;
    }
    if (framing.chunked()) {
      flags |= Wire.Flag.SEND_DF;
    }
    if (framing == Framing.EXTENDED) {
      flags |= Wire.Flag.BLOCK_STATUS_PAYLOAD;
    }
    return export.writable()
        ? flags | Wire.Flag.SEND_TRIM | Wire.Flag.SEND_WRITE_ZEROES | Wire.Flag.SEND_FAST_ZERO
        : flags | Wire.Flag.READ_ONLY;
  }

  private Step meta(int option, ByteBuffer data) throws IOException {
    boolean set = option == Wire.Option.SET_META_CONTEXT;
    if (set) { // an earlier selection is gone, also when this one fails
      contexts = List.of();
    }
    if (!framing.chunked()) {
      return refuse(option, Wire.Rep.ERR_INVALID, "structured replies come first");
    }
    Optional<String> name = name(data);
    if (name.isEmpty() || data.remaining() < 4) {
      return refuse(option, Wire.Rep.ERR_INVALID, "malformed export name");
    }
    long count = Integer.toUnsignedLong(data.getInt());
    if (count > data.remaining() / 4) {
      return refuse(option, Wire.Rep.ERR_INVALID, count + " queries do not fit the option");
    }
    var queries = new ArrayList<String>();
    for (int i = 0; i < count; i++) {
      Optional<String> query = name(data);
      if (query.isEmpty()) {
        return refuse(option, Wire.Rep.ERR_INVALID, "malformed query " + i);
      }
      queries.add(query.get());
    }
    if (data.hasRemaining()) {
      return refuse(option, Wire.Rep.ERR_INVALID, data.remaining() + " bytes after the queries");
    }
    Optional<Export> export = exports.find(name.get());
    if (export.isEmpty()) {
      return refuse(option, Wire.Rep.ERR_UNKNOWN, "no export named " + quote(name.get()));
    }
    List<MetaContext> matching = matching(export.get(), queries, set);
    for (MetaContext context : matching) {
      byte[] text = context.name().getBytes(UTF_8);
      reply(option, Wire.Rep.META_CONTEXT, 4 + text.length);
      stream.out().putInt(set ? context.id() : 0).put(text);
    }
    reply(option, Wire.Rep.ACK, 0);
    if (set) {
      contexts = matching;
      contextsOf = name.get();
    }
    return NEXT;
  }

  /// The contexts that queries name: no query lists all and selects none; a namespace or a prefix
  /// that ends in a colon lists what is in it and selects none.
  private static List<MetaContext> matching(Export export, List<String> queries, boolean set) {
    Map<String, MetaContext> all = new LinkedHashMap<>();
    all.put(MetaContext.ALLOCATION, new MetaContext(0, MetaContext.ALLOCATION, null));
    if (export.allocationDepth()) {
      all.put(MetaContext.DEPTH, new MetaContext(all.size(), MetaContext.DEPTH, null));
    }
    for (DirtyBitmap bitmap : export.bitmaps()) {
      String name = MetaContext.BITMAP_PREFIX + bitmap.name();
      all.put(name, new MetaContext(all.size(), name, bitmap));
    }
    if (queries.isEmpty()) {
      return set ? List.of() : List.copyOf(all.values());
    }
    Map<String, MetaContext> found = new LinkedHashMap<>();
    for (String query : queries) {
      MetaContext exact = all.get(query);
      if (exact != null) {
        found.put(query, exact);
      } else if (!set && isNamespace(query)) {
        all.forEach((name, context) -> {
          if (name.startsWith(query)) {
            found.put(name, context);
          }
        });
      }
    }
    return List.copyOf(found.values());
  }

  private static boolean isNamespace(String query) {
    return query.equals("base:")
        || query.equals("qemu:")
        || query.equals(MetaContext.BITMAP_PREFIX);
  }

  /// A counted string; empty when it does not fit the data or passes the limit.
  private static Optional<String> name(ByteBuffer data) {
    if (data.remaining() < 4) {
      return Optional.empty();
    }
    long length = Integer.toUnsignedLong(data.getInt());
    if (length > data.remaining() || length > Export.MAX_NAME_BYTES) {
      return Optional.empty();
    }
    byte[] bytes = new byte[(int) length];
    data.get(bytes);
    return Optional.of(new String(bytes, UTF_8));
  }

  /// Appends the head of an option reply, and leaves room for its data.
  private void reply(int option, int type, int length) throws IOException {
    stream.reserve(Wire.Size.OPTION_REPLY + length);
    stream.out().putLong(Wire.Magic.OPTION_REPLY).putInt(option).putInt(type).putInt(length);
  }

  private Step refuse(int option, int type, String why) throws IOException {
    byte[] text = why.getBytes(UTF_8);
    reply(option, type, text.length);
    stream.out().put(text);
    return NEXT;
  }

  /// A name from outside, fit for a message: escaped and cut short.
  static String quote(String name) {
    var text = new StringBuilder("\"");
    name.codePoints()
        .limit(80)
        .forEach(c -> {
          if (c < ' ' || c == 0x7f || c == '"' || !Character.isDefined(c)) {
            text.append(String.format("\\u%04x", c));
          } else {
            text.appendCodePoint(c);
          }
        });
    return text.append('"').toString();
  }

  private static String hex(int value) {
    return "0x" + Integer.toHexString(value);
  }
}
