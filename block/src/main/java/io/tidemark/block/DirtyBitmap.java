// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.Optional;
import java.util.concurrent.atomic.AtomicLongArray;

/// One bit per `granularity` bytes of a disk: set when the range may have changed.
///
/// Any thread may call any method. Setting is a lock-free OR, so a set bit is never lost; a scan
/// that runs beside setters sees each bit before or after. Over-approximation is lawful,
/// under-approximation never (rule 2).
public final class DirtyBitmap {
  /// QEMU's range for bitmaps stored in qcow2. Spec: qcow2.rst, "Bitmap directory",
  /// granularity_bits.
  public static final int MIN_GRANULARITY = 512;

  public static final long MAX_GRANULARITY = 1L << 31;

  /// What QEMU and libvirt use for checkpoints and jobs unless told otherwise.
  public static final int DEFAULT_GRANULARITY = 64 * 1024;

  private final String name;
  private final long size;
  private final int shift;
  private final long bits;
  private final AtomicLongArray words;
  private volatile boolean enabled = true;

  /// A clean bitmap over `size` bytes; `granularity` is a power of two.
  public DirtyBitmap(String name, long size, long granularity) {
    if (Long.bitCount(granularity) != 1
        || granularity < MIN_GRANULARITY
        || granularity > MAX_GRANULARITY) {
      throw new IllegalArgumentException("bitmap " + name + ": granularity " + granularity);
    }
    this.name = name;
    this.size = size;
    this.shift = Long.numberOfTrailingZeros(granularity);
    this.bits = (size >>> shift) + ((size & (granularity - 1)) == 0 ? 0 : 1);
    long wordCount = (bits + 63) >>> 6;
    if (wordCount > Integer.MAX_VALUE - 8) {
      throw new IllegalArgumentException(
          "bitmap " + name + ": " + bits + " bits, at most 2^37 are handled");
    }
    this.words = new AtomicLongArray((int) wordCount);
  }

  public String name() {
    return name;
  }

  /// Bytes of the disk that the bitmap covers.
  public long size() {
    return size;
  }

  /// Bytes of a bit.
  public long granularity() {
    return 1L << shift;
  }

  /// Bits in the bitmap.
  public long bits() {
    return bits;
  }

  /// Whether writes are recorded (QEMU: enabled / disabled).
  public boolean enabled() {
    return enabled;
  }

  public void setEnabled(boolean value) {
    enabled = value;
  }

  /// A write to the range begins: marks it if the bitmap records writes.
  public void record(long offset, long length) {
    if (enabled) {
      set(offset, length);
    }
  }

  /// Marks every bit that the range touches.
  public void set(long offset, long length) {
    if (length > 0) {
      change(offset >>> shift, (offset + length - 1) >>> shift, true);
    }
  }

  public void setAll() {
    set(0, size);
  }

  /// Clears every bit that the range touches. The caller answers for a range that is not aligned to
  /// the granularity.
  public void clear(long offset, long length) {
    if (length > 0) {
      change(offset >>> shift, (offset + length - 1) >>> shift, false);
    }
  }

  private void change(long first, long last, boolean value) {
    if (first < 0 || last >= bits) {
      throw new IllegalArgumentException(
          "bitmap " + name + ": bits " + first + " to " + last + " of " + bits);
    }
    int firstWord = (int) (first >>> 6);
    int lastWord = (int) (last >>> 6);
    for (int w = firstWord; w <= lastWord; w++) {
      long mask = -1L;
      if (w == firstWord) {
        mask &= -1L << (first & 63);
      }
      if (w == lastWord) {
        mask &= -1L >>> (63 - (last & 63));
      }
      if (value) {
        if ((words.get(w) & mask) != mask) {
          long add = mask;
          words.getAndUpdate(w, old -> old | add);
        }
      } else {
        long keep = ~mask;
        words.getAndUpdate(w, old -> old & keep);
      }
    }
  }

  public boolean isDirty(long offset) {
    long bit = offset >>> shift;
    return (words.get((int) (bit >>> 6)) & (1L << (bit & 63))) != 0;
  }

  /// The first dirty range at or after `from`, at most `maxLength` bytes long, clipped to the disk;
  /// starts and ends at multiples of the granularity, but for the disk's end. Empty when nothing at
  /// or after `from` is dirty.
  public Optional<ByteRange> nextDirty(long from, long maxLength) {
    long first = nextBit(from >>> shift, true);
    if (first >= bits) {
      return Optional.empty();
    }
    long most = Math.max(1, maxLength >>> shift);
    long last = Math.min(nextBit(first, false), first + Math.min(most, bits - first));
    long offset = first << shift;
    return Optional.of(new ByteRange(offset, Math.min(last << shift, size) - offset));
  }

  private long nextBit(long from, boolean value) {
    if (from >= bits) {
      return bits;
    }
    int w = (int) (from >>> 6);
    long word = (value ? words.get(w) : ~words.get(w)) & (-1L << (from & 63));
    while (word == 0) {
      if (++w >= words.length()) {
        return bits;
      }
      word = value ? words.get(w) : ~words.get(w);
    }
    return Math.min(bits, ((long) w << 6) + Long.numberOfTrailingZeros(word));
  }

  /// Number of set bits.
  public long dirtyBits() {
    long count = 0;
    for (int w = 0; w < words.length(); w++) {
      count += Long.bitCount(words.get(w));
    }
    return count;
  }

  /// Set bits in bytes, the last one clipped to the disk's end.
  public long dirtyBytes() {
    long bytes = dirtyBits() << shift;
    if (bits > 0 && isDirty(size - 1) && (size & (granularity() - 1)) != 0) {
      bytes -= granularity() - (size & (granularity() - 1));
    }
    return bytes;
  }

  /// Sets here whatever is set in `other`; granularities may differ, sizes may not.
  public void merge(DirtyBitmap other) {
    if (other.size != size) {
      throw new IllegalArgumentException(
          "bitmap " + name + " of " + size + " bytes, " + other.name + " of " + other.size);
    }
    if (other.shift == shift) {
      for (int w = 0; w < words.length(); w++) {
        long add = other.words.get(w);
        if (add != 0) {
          words.getAndUpdate(w, old -> old | add);
        }
      }
      return;
    }
    long from = 0;
    Optional<ByteRange> dirty = other.nextDirty(from, Long.MAX_VALUE);
    while (dirty.isPresent()) {
      set(dirty.get().offset(), dirty.get().length());
      from = dirty.get().end();
      dirty = from < size ? other.nextDirty(from, Long.MAX_VALUE) : Optional.empty();
    }
  }

  /// A copy under another name; enabled as this one is. Exact when no setter runs beside it.
  public DirtyBitmap copy(String newName) {
    var copy = new DirtyBitmap(newName, size, granularity());
    copy.merge(this);
    copy.enabled = enabled;
    return copy;
  }

  /// A copy for the disk at another size; enabled as this one is. What the disk gained is set: an
  /// earlier, longer life of the disk may have left something else there in a copy. Exact when no
  /// setter runs beside it.
  public DirtyBitmap resized(long newSize) {
    var copy = new DirtyBitmap(name, newSize, granularity());
    int shared = Math.min(wordCount(), copy.wordCount());
    for (int w = 0; w < shared; w++) {
      copy.orWord(w, word(w));
    }
    if (newSize > size) {
      copy.set(size, newSize - size);
    }
    copy.enabled = enabled;
    return copy;
  }

  /// Bits `64 * index` to `64 * index + 63`, the lowest in the least significant place: written out
  /// little-endian, the words are the serialised form of QEMU's bitmaps. Spec: qcow2.rst, "Bitmap
  /// data".
  public long word(int index) {
    return words.get(index);
  }

  public int wordCount() {
    return words.length();
  }

  /// Sets the bits of a word as [#word] gives them; bits past the end are ignored.
  public void orWord(int index, long value) {
    long known =
        index == words.length() - 1 && (bits & 63) != 0
            ? value & (-1L >>> (64 - (bits & 63)))
            : value;
    words.getAndUpdate(index, old -> old | known);
  }
}
