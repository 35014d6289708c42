// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.UnsupportedImageException;
import java.nio.ByteBuffer;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.jspecify.annotations.Nullable;

/// Reads of compressed clusters.
///
/// The last clusters unpacked are kept, at most [#KEPT_CLUSTERS] and [#KEPT_BYTES], so that a
/// reader of small pieces does not unpack one cluster again and again; a read of a whole cluster is
/// not kept. A kept cluster is known by its L2 entry. Once its place was given back, another
/// cluster may get an entry with the same bits: so everything kept counts for nothing from the
/// moment when any cluster is given back ([#forget]). A thread that unpacks meanwhile still holds
/// its [InFlight] ticket, so nothing it looked at is given back before it has noted, by the age it
/// took first, that what it keeps is old.
///
/// Any thread may call any method.
///
/// Spec: qcow2.rst, "Compressed Clusters Descriptor".
final class CompressedReads {
  static final int KEPT_CLUSTERS = 16;
  static final int KEPT_BYTES = 8 << 20;

  /// Codecs kept for the next cluster.
  private static final int KEPT_CODECS = 16;

  private record Kept(long entry, long age, ByteBuffer bytes) {}

  private final HostFile file;
  private final Geometry geometry;
  private final int type;
  private final ArrayBlockingQueue<Codec> codecs = new ArrayBlockingQueue<>(KEPT_CODECS);
  private final ArrayBlockingQueue<byte[]> inputs;
  private final AtomicReferenceArray<@Nullable Kept> kept;
  private volatile long age; // written under this

  CompressedReads(HostFile file, Header header) {
    this.file = file;
    this.geometry = header.geometry();
    this.type = header.compressionType();
    this.inputs =
        new ArrayBlockingQueue<>(
            Math.min(KEPT_CODECS, KEPT_BYTES >>> (geometry.clusterBits() + 1)));
    this.kept =
        new AtomicReferenceArray<>(Math.min(KEPT_CLUSTERS, KEPT_BYTES >>> geometry.clusterBits()));
  }

  /// Fills `into` from the compressed cluster of `entry`, from `offset` on, inside that cluster.
  void read(long entry, long offset, ByteBuffer into) throws BlockException {
    int within = geometry.within(offset);
    int slot = (int) Long.remainderUnsigned(offset >>> geometry.clusterBits(), kept.length());
    long now = age;
    Kept there = kept.get(slot);
    if (there != null && there.entry() == entry && there.age() == now) {
      into.put(there.bytes().slice(within, into.remaining()));
      return;
    }
    if (into.remaining() == geometry.clusterSize() && into.hasArray()) {
      unpack(entry, offset, into.array(), into.arrayOffset() + into.position());
      into.position(into.limit());
      return;
    }
    byte[] bytes = new byte[geometry.clusterSize()];
    unpack(entry, offset, bytes, 0);
    if (into.remaining() < geometry.clusterSize()) {
      kept.set(slot, new Kept(entry, now, ByteBuffer.wrap(bytes)));
    }
    into.put(bytes, within, into.remaining());
  }

  /// Host clusters are about to be given back.
  synchronized void forget() {
    age++;
  }

  private void unpack(long entry, long offset, byte[] into, int at) throws BlockException {
    long host = L2Entry.compressedOffset(entry, geometry);
    int length = L2Entry.compressedLength(entry, geometry);
    if (host < geometry.clusterSize() || host >= file.length()) {
      throw new CorruptImageException(
          place(offset, host) + " lies outside the file of " + file.length() + " bytes");
    }
    // The entry can say up to two clusters; a codec takes what it needs.
    byte[] packed = inputs.poll();
    if (packed == null) {
      packed = new byte[2 * geometry.clusterSize() + 512];
    }
    length = Math.min(length, packed.length);
    Codec codec = takeCodec();
    try {
      file.read(host, ByteBuffer.wrap(packed, 0, length));
      codec.unpack(packed, length, into, at, geometry.clusterSize());
    } catch (Codec.BadData e) {
      throw new CorruptImageException(place(offset, host) + " " + e.getMessage(), e);
    } finally {
      boolean _ = inputs.offer(packed);
      giveCodec(codec);
    }
  }

  private String place(long offset, long host) {
    return file.name()
        + ": guest offset 0x"
        + Long.toHexString(offset)
        + ": compressed data at 0x"
        + Long.toHexString(host);
  }

  /// @throws UnsupportedImageException when the library of a zstd image cannot be loaded here
  Codec takeCodec() throws UnsupportedImageException {
    Codec codec = codecs.poll();
    try {
      return codec == null ? Codec.of(type) : codec;
    } catch (LinkageError e) {
      throw new UnsupportedImageException(
          file.name() + ": the library for " + Codec.name(type) + " cannot be loaded here", e);
    }
  }

  void giveCodec(Codec codec) {
    if (!codecs.offer(codec)) {
      codec.close();
    }
  }

  /// Frees what the codecs hold outside the heap. No request runs.
  void close() {
    for (Codec codec = codecs.poll(); codec != null; codec = codecs.poll()) {
      codec.close();
    }
  }
}
