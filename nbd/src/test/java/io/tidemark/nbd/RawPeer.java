// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.LongToIntFunction;

/// A client that says what a test tells it to, byte for byte.
final class RawPeer implements AutoCloseable {
  /// An option's reply.
  @SuppressWarnings("ArrayRecordComponent") // never compared
  record OptionReply(int type, byte[] data) {
    String text(int skip) {
      return new String(data, skip, data.length - skip, UTF_8);
    }
  }

  /// A simple reply (`chunk` is -1) or a chunk.
  @SuppressWarnings("ArrayRecordComponent") // never compared
  record Reply(int chunk, boolean done, long cookie, int error, byte[] payload) {
    ByteBuffer data() {
      return ByteBuffer.wrap(payload);
    }
  }

  final SocketChannel channel;
  final DataInputStream in;
  final DataOutputStream out;
  private Framing framing = Framing.SIMPLE;
  long size;
  int flags;

  RawPeer(Path socket) throws IOException {
    channel = SocketChannel.open(StandardProtocolFamily.UNIX);
    channel.connect(UnixDomainSocketAddress.of(socket));
    in = new DataInputStream(Channels.newInputStream(channel));
    out = new DataOutputStream(Channels.newOutputStream(channel));
  }

  /// Reads the greeting and sends the usual client flags.
  RawPeer greeted() throws IOException {
    return greeted(Wire.Handshake.FIXED_NEWSTYLE | Wire.Handshake.NO_ZEROES);
  }

  RawPeer greeted(int clientFlags) throws IOException {
    if (in.readLong() != Wire.Magic.NBD
        || in.readLong() != Wire.Magic.OPTION
        || in.readShort() != 3) {
      throw new IOException("greeting");
    }
    out.writeInt(clientFlags);
    return this;
  }

  /// All replies to one option.
  List<OptionReply> ask(int option, byte[] data) throws IOException {
    send(option, data);
    var replies = new ArrayList<OptionReply>();
    while (true) {
      OptionReply reply = reply(option);
      replies.add(reply);
      if (reply.type() == Wire.Rep.ACK || reply.type() < 0) {
        return replies;
      }
    }
  }

  void send(int option, byte[] data) throws IOException {
    ByteBuffer all = ByteBuffer.allocate(16 + data.length);
    all.putLong(Wire.Magic.OPTION).putInt(option).putInt(data.length).put(data);
    out.write(all.array());
  }

  OptionReply reply(int option) throws IOException {
    if (in.readLong() != Wire.Magic.OPTION_REPLY || in.readInt() != option) {
      throw new IOException("option reply");
    }
    int type = in.readInt();
    return new OptionReply(type, in.readNBytes(in.readInt()));
  }

  static byte[] infoData(String export, int... requests) {
    byte[] name = export.getBytes(UTF_8);
    ByteBuffer data = ByteBuffer.allocate(6 + name.length + 2 * requests.length);
    data.putInt(name.length).put(name).putShort((short) requests.length);
    for (int request : requests) {
      data.putShort((short) request);
    }
    return data.array();
  }

  static byte[] metaData(String export, String... queries) {
    ByteBuffer data = ByteBuffer.allocate(65536);
    byte[] name = export.getBytes(UTF_8);
    data.putInt(name.length).put(name).putInt(queries.length);
    for (String query : queries) {
      byte[] text = query.getBytes(UTF_8);
      data.putInt(text.length).put(text);
    }
    byte[] bytes = new byte[data.position()];
    data.flip().get(bytes);
    return bytes;
  }

  RawPeer structured() throws IOException {
    ask(Wire.Option.STRUCTURED_REPLY, new byte[0]);
    framing = Framing.STRUCTURED;
    return this;
  }

  RawPeer extended() throws IOException {
    if (ask(Wire.Option.EXTENDED_HEADERS, new byte[0]).getLast().type() != Wire.Rep.ACK) {
      throw new IOException("extended headers refused");
    }
    framing = Framing.EXTENDED;
    return this;
  }

  RawPeer contexts(String export, String... names) throws IOException {
    ask(Wire.Option.SET_META_CONTEXT, metaData(export, names));
    return this;
  }

  /// Opens an export for transmission.
  RawPeer go(String export) throws IOException {
    List<OptionReply> replies = ask(Wire.Option.GO, infoData(export));
    if (replies.getLast().type() != Wire.Rep.ACK) {
      throw new IOException("GO: " + Integer.toHexString(replies.getLast().type()));
    }
    ByteBuffer info = ByteBuffer.wrap(replies.getFirst().data());
    info.getShort();
    size = info.getLong();
    flags = Short.toUnsignedInt(info.getShort());
    return this;
  }

  void request(int type, int commandFlags, long cookie, long offset, long length, byte... data)
      throws IOException {
    out.write(bytesOf(type, commandFlags, cookie, offset, length, data));
  }

  /// A request as it is sent.
  byte[] bytesOf(int type, int commandFlags, long cookie, long offset, long length, byte... data) {
    ByteBuffer all = ByteBuffer.allocate(framing.requestBytes() + data.length);
    all.putInt(framing.requestMagic()).putShort((short) commandFlags).putShort((short) type);
    all.putLong(cookie).putLong(offset);
    if (framing == Framing.EXTENDED) {
      all.putLong(length);
    } else {
      all.putInt((int) length);
    }
    return all.put(data).array();
  }

  /// The next reply; `readLength` bytes follow a simple one without error.
  Reply next(int readLength) throws IOException {
    return next(_ -> readLength);
  }

  /// The next reply to any request under way; `readLength` says by the cookie how many bytes follow
  /// a simple one without error.
  Reply next(LongToIntFunction readLength) throws IOException {
    int magic = in.readInt();
    if (magic == Wire.Magic.SIMPLE_REPLY && framing != Framing.EXTENDED) {
      int error = in.readInt();
      long cookie = in.readLong();
      return new Reply(
          -1, true, cookie, error, in.readNBytes(error == 0 ? readLength.applyAsInt(cookie) : 0));
    }
    boolean wide = framing == Framing.EXTENDED;
    if (!framing.chunked()
        || magic != (wide ? Wire.Magic.EXTENDED_REPLY : Wire.Magic.STRUCTURED_REPLY)) {
      throw new IOException("reply magic " + Integer.toHexString(magic));
    }
    boolean done = in.readShort() == Wire.Chunk.FLAG_DONE;
    int chunk = in.readUnsignedShort();
    long cookie = in.readLong();
    if (wide) {
      in.readLong(); // the request's offset
    }
    byte[] payload = in.readNBytes(wide ? (int) in.readLong() : in.readInt());
    boolean bad = (chunk & Wire.Chunk.ERROR_BIT) != 0;
    return new Reply(chunk, done, cookie, bad ? ByteBuffer.wrap(payload).getInt() : 0, payload);
  }

  /// Sends a request and returns its error.
  int error(int type, int commandFlags, long offset, long length, byte... data) throws IOException {
    request(type, commandFlags, 77, offset, length, data);
    Reply reply;
    int error = 0;
    do {
      reply = next(type == Wire.Command.READ ? (int) length : 0);
      if (reply.cookie() != 77) {
        throw new IOException("cookie " + reply.cookie());
      }
      error = error == 0 ? reply.error() : error;
    } while (!reply.done());
    return error;
  }

  /// Reads a range, whatever the shape of the reply.
  byte[] read(long offset, int length, int commandFlags) throws IOException {
    request(Wire.Command.READ, commandFlags, 5, offset, length);
    byte[] bytes = new byte[length];
    Reply reply;
    do {
      reply = next(length);
      if (reply.error() != 0) {
        throw new IOException("error " + reply.error());
      }
      if (reply.chunk() == -1) {
        return reply.payload();
      }
      if (reply.chunk() == Wire.Chunk.OFFSET_DATA) {
        ByteBuffer data = reply.data();
        int at = (int) (data.getLong() - offset);
        data.get(bytes, at, data.remaining());
      }
    } while (!reply.done());
    return bytes;
  }

  /// Whether the server ends the connection; what it still says is passed over.
  boolean closedByServer() {
    try {
      int read;
      do {
        read = in.read(new byte[65536]);
      } while (read >= 0);
      return true;
    } catch (IOException _) {
      return true; // reset
    }
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
