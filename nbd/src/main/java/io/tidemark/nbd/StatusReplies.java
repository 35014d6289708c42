// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.DirtyBitmap;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/// Answers block status: one chunk for each context that the request wants. Used by the
/// connection's thread.
///
/// Spec: proto.md, NBD_CMD_BLOCK_STATUS, NBD_REPLY_TYPE_BLOCK_STATUS and
/// NBD_REPLY_TYPE_BLOCK_STATUS_EXT.
final class StatusReplies {
  /// Extents of one context in one reply.
  static final int MAX_EXTENTS = 16 << 10;

  private final PeerStream stream;
  private final Framing framing;
  private final ReplyFrames frames;
  private final BlockNode node;
  private final List<MetaContext> selected;
  private List<MetaContext> wanted;

  StatusReplies(PeerStream stream, ServerHandshake.Opened opened, ReplyFrames frames) {
    this.stream = stream;
    this.framing = opened.framing();
    this.frames = frames;
    this.node = opened.export().node();
    this.selected = opened.contexts();
    this.wanted = selected;
  }

  /// Whether any context was selected.
  boolean possible() {
    return !selected.isEmpty();
  }

  /// The next request wants all contexts that were selected.
  void wantAll() {
    wanted = selected;
  }

  /// The next request wants the contexts whose ids remain in `ids`; false when one was not selected
  /// or is there twice, or when there is none.
  boolean want(ByteBuffer ids) {
    var chosen = new ArrayList<MetaContext>();
    while (ids.hasRemaining()) {
      int id = ids.getInt();
      if (id < 0 || id >= selected.size() || chosen.contains(selected.get(id))) {
        return false;
      }
      chosen.add(selected.get(id));
    }
    wanted = chosen;
    return !chosen.isEmpty();
  }

  /// Bytes of ids that a request can have at most.
  int maxIdBytes() {
    return selected.size() * Integer.BYTES;
  }

  /// Appends the reply for a range that is not empty.
  ///
  /// @param one an extent for each context is enough, and none passes the range
  /// @throws BlockException when the node failed; chunks of earlier contexts are appended then
  void answer(long offset, long length, boolean one) throws IOException {
    int header = framing.chunkBytes() + framing.statusBytes();
    for (int i = 0; i < wanted.size(); i++) {
      MetaContext context = wanted.get(i);
      stream.reserve(header + (one ? 1 : MAX_EXTENTS) * framing.extentBytes());
      ByteBuffer out = stream.out();
      int at = out.position();
      int room = (out.remaining() - header) / framing.extentBytes();
      out.position(at + header);
      var extents = new ExtentList(out, one ? 1 : Math.min(room, MAX_EXTENTS), framing);
      try {
        describe(context, extents, offset, length);
      } catch (BlockException e) {
        out.position(at);
        throw e;
      }
      if (extents.count() == 0) {
        throw new IllegalStateException(node.name() + ": no extent at " + offset);
      }
      int payload = framing.statusBytes() + extents.count() * framing.extentBytes();
      frames.putChunk(at, i == wanted.size() - 1, framing.statusChunk(), payload);
      out.putInt(at + framing.chunkBytes(), context.id());
      if (framing == Framing.EXTENDED) {
        out.putInt(at + framing.chunkBytes() + Integer.BYTES, extents.count());
      }
    }
  }

  private void describe(MetaContext context, ExtentList extents, long offset, long length)
      throws BlockException {
    DirtyBitmap bitmap = context.bitmap();
    if (bitmap != null) {
      extents.dirty(bitmap, offset, length);
    } else if (context.name().equals(MetaContext.DEPTH)) {
      extents.depth(node, offset, length);
    } else {
      extents.allocation(node, offset, length);
    }
  }
}
