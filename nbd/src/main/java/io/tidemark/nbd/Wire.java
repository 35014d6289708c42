// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

/// Numbers of the protocol, by their names there. All fields on the wire are big-endian.
///
/// Spec: doc/proto.md of the NBD project, "Values".
final class Wire {
  private Wire() {}

  /// The largest payload of a read or write, and the maximum block size we announce.
  static final int MAX_PAYLOAD = 32 << 20;

  /// Padding after the reply to EXPORT_NAME, unless NO_ZEROES was agreed on.
  static final int EXPORT_NAME_PADDING = 124;

  static final class Magic {
    static final long NBD = 0x4e42444d41474943L; // "NBDMAGIC"
    static final long OPTION = 0x49484156454F5054L; // "IHAVEOPT"
    static final long OPTION_REPLY = 0x3e889045565a9L;
    static final int REQUEST = 0x25609513;
    static final int SIMPLE_REPLY = 0x67446698;
    static final int STRUCTURED_REPLY = 0x668e33ef;
    static final int EXTENDED_REQUEST = 0x21e41c71;
    static final int EXTENDED_REPLY = 0x6e8a278c;

    private Magic() {}
  }

  /// Bytes of fixed parts.
  static final class Size {
    static final int GREETING = 18; // NBDMAGIC, IHAVEOPT, u16 flags
    static final int OPTION = 16; // IHAVEOPT, u32 option, u32 length
    static final int OPTION_REPLY = 20; // magic, u32 option, u32 type, u32 length
    static final int REQUEST = 28; // magic, u16 flags, u16 type, u64 cookie, u64 offset, u32 length
    static final int SIMPLE_REPLY = 16; // magic, u32 error, u64 cookie
    static final int CHUNK = 20; // magic, u16 flags, u16 type, u64 cookie, u32 length
    static final int OFFSET = 8; // before the bytes of an OFFSET_DATA chunk
    static final int HOLE = 12; // u64 offset, u32 length
    static final int ERROR = 6; // u32 error, u16 length of the message
    static final int STATUS = 4; // u32 context
    static final int EXTENT = 8; // u32 length, u32 flags
    static final int EXTENDED_REQUEST = 32; // as REQUEST, length u64
    static final int EXTENDED_CHUNK = 32; // magic, u16 flags, u16 type, u64 cookie, offset, length
    static final int EXTENDED_STATUS = 8; // u32 context, u32 number of extents
    static final int EXTENDED_EXTENT = 16; // u64 length, u64 flags

    private Size() {}
  }

  /// Handshake flags; the client's have the same values.
  static final class Handshake {
    static final int FIXED_NEWSTYLE = 1;
    static final int NO_ZEROES = 2;

    private Handshake() {}
  }

  static final class Option {
    static final int EXPORT_NAME = 1;
    static final int ABORT = 2;
    static final int LIST = 3;
    static final int STARTTLS = 5;
    static final int INFO = 6;
    static final int GO = 7;
    static final int STRUCTURED_REPLY = 8;
    static final int LIST_META_CONTEXT = 9;
    static final int SET_META_CONTEXT = 10;
    static final int EXTENDED_HEADERS = 11;

    private Option() {}
  }

  /// Types of option replies; errors have the highest bit set.
  static final class Rep {
    static final int ACK = 1;
    static final int SERVER = 2;
    static final int INFO = 3;
    static final int META_CONTEXT = 4;
    static final int ERR_UNSUP = 0x80000001;
    static final int ERR_POLICY = 0x80000002;
    static final int ERR_INVALID = 0x80000003;
    static final int ERR_PLATFORM = 0x80000004;
    static final int ERR_TLS_REQD = 0x80000005;
    static final int ERR_UNKNOWN = 0x80000006;
    static final int ERR_SHUTDOWN = 0x80000007;
    static final int ERR_BLOCK_SIZE_REQD = 0x80000008;
    static final int ERR_TOO_BIG = 0x80000009;
    static final int ERR_EXT_HEADER_REQD = 0x8000000a;

    private Rep() {}
  }

  static final class Information {
    static final int EXPORT = 0;
    static final int NAME = 1;
    static final int DESCRIPTION = 2;
    static final int BLOCK_SIZE = 3;

    private Information() {}
  }

  /// Transmission flags.
  static final class Flag {
    static final int HAS_FLAGS = 1;
    static final int READ_ONLY = 1 << 1;
    static final int SEND_FLUSH = 1 << 2;
    static final int SEND_FUA = 1 << 3;
    static final int ROTATIONAL = 1 << 4;
    static final int SEND_TRIM = 1 << 5;
    static final int SEND_WRITE_ZEROES = 1 << 6;
    static final int SEND_DF = 1 << 7;
    static final int CAN_MULTI_CONN = 1 << 8;
    static final int SEND_RESIZE = 1 << 9;
    static final int SEND_CACHE = 1 << 10;
    static final int SEND_FAST_ZERO = 1 << 11;
    static final int BLOCK_STATUS_PAYLOAD = 1 << 12;

    private Flag() {}
  }

  static final class Command {
    static final int READ = 0;
    static final int WRITE = 1;
    static final int DISC = 2;
    static final int FLUSH = 3;
    static final int TRIM = 4;
    static final int CACHE = 5;
    static final int WRITE_ZEROES = 6;
    static final int BLOCK_STATUS = 7;

    private Command() {}
  }

  static final class CommandFlag {
    static final int FUA = 1;
    static final int NO_HOLE = 2;
    static final int DF = 4;
    static final int REQ_ONE = 8;
    static final int FAST_ZERO = 16;
    static final int PAYLOAD_LENGTH = 32;

    private CommandFlag() {}
  }

  /// Structured reply chunks.
  static final class Chunk {
    static final int FLAG_DONE = 1;
    static final int NONE = 0;
    static final int OFFSET_DATA = 1;
    static final int OFFSET_HOLE = 2;
    static final int BLOCK_STATUS = 5;
    static final int EXTENDED_BLOCK_STATUS = 6;
    static final int ERROR_BIT = 0x8000;
    static final int ERROR = ERROR_BIT + 1;
    static final int ERROR_OFFSET = ERROR_BIT + 2;

    private Chunk() {}
  }

  /// Flags of an extent in `base:allocation`, and of one in `qemu:dirty-bitmap`.
  static final class State {
    static final int HOLE = 1;
    static final int ZERO = 2;
    static final int DIRTY = 1;

    private State() {}
  }
}
