// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.Arrays;

/// Writes raw deflate whose matches reach back at most 4096 bytes.
///
/// A reader of qcow2 may unpack with a window of 2^12 bytes (QEMU opens its inflater with
/// `windowBits` -12), and `java.util.zip.Deflater` always uses 2^15. Rejected: that deflater with a
/// full flush every 4 KiB, which loses half of the window on average and pays for a new set of
/// codes each time.
///
/// Matches are looked for in chains of positions with the same three bytes, and taken one position
/// later when that gives a longer one. Each [#BLOCK_SYMBOLS] symbols become a block: stored, with
/// the fixed codes, or with codes of its own, whichever is shortest.
///
/// One thread at a time; kept for the next cluster, because its tables cost more than a small one.
///
/// Spec: RFC 1951; qcow2.rst, "Compressed Clusters Descriptor".
final class NarrowDeflate {
  /// How far back a match may reach.
  static final int WINDOW = 4096;

  private static final int BLOCK_SYMBOLS = 16 * 1024;
  private static final int MIN_MATCH = 3;
  private static final int MAX_MATCH = 258;

  /// Earlier positions that are looked at for one match.
  private static final int MAX_CHAIN = 16;

  /// A match of this length is good enough to look at a quarter of the chain for a better one.
  private static final int GOOD_MATCH = 8;

  /// A match of this length is taken without looking one position later.
  private static final int LAZY_MATCH = 16;

  /// A match of this length ends the search.
  private static final int NICE_MATCH = 128;

  /// Literals in a row after which fewer positions are tried: one more is left out for each so
  /// many.
  private static final int DULL = 256;

  private static final int HASH_BITS = 14;
  private static final int END_OF_BLOCK = 256;
  private static final int LITERALS = 286;
  private static final int DISTANCES = 30;
  private static final int CODE_LENGTHS = 19;
  private static final int MAX_CODE = 15;
  private static final int MAX_CODE_LENGTH_CODE = 7;
  private static final int[] CODE_LENGTH_ORDER = {
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15
  };

  private static final VarHandle INT =
      MethodHandles.byteArrayViewVarHandle(int[].class, LITTLE_ENDIAN);
  private static final VarHandle LONG =
      MethodHandles.byteArrayViewVarHandle(long[].class, LITTLE_ENDIAN);

  /// A set of codes: how often each symbol comes, and its code with the bits in writing order.
  private static final class Codes {
    final int[] frequency;
    final int[] length;
    final int[] code;

    Codes(int symbols) {
      frequency = new int[symbols];
      length = new int[symbols];
      code = new int[symbols];
    }
  }

  private static final Codes FIXED_LITERALS = fixedLiterals();
  private static final Codes FIXED_DISTANCES = fixedDistances();

  // Positions are counted on from cluster to cluster, so that the chains need not be cleared.
  private final int[] head = new int[1 << HASH_BITS];
  private final int[] chain = new int[WINDOW];
  private int base = 1; // position of the first byte of this cluster; 0 in head: none

  private final int[] symbols = new int[BLOCK_SYMBOLS]; // distance << 9 | literal or length
  private int symbolCount;
  private final Codes literals = new Codes(LITERALS);
  private final Codes distances = new Codes(DISTANCES);
  private final Codes lengths = new Codes(CODE_LENGTHS);
  private final int[] runs = new int[LITERALS + DISTANCES]; // extra << 8 | code length symbol
  private final int[] sorted = new int[LITERALS];
  private final int[] parents = new int[2 * LITERALS];
  private int runCount;

  private byte[] in = {};
  private byte[] out = {};
  private int outAt;
  private int most;
  private long bits;
  private int bitCount;

  private static Codes fixedLiterals() {
    var codes = new Codes(288);
    for (int s = 0; s < 288; s++) {
      codes.length[s] = s < 144 ? 8 : s < 256 ? 9 : s < 280 ? 7 : 8;
    }
    number(codes, 288, new int[MAX_CODE + 2]);
    return codes;
  }

  private static Codes fixedDistances() {
    var codes = new Codes(32);
    Arrays.fill(codes.length, 5);
    number(codes, 32, new int[MAX_CODE + 2]);
    return codes;
  }

  /// Packs the first `length` bytes of `from` into `into`. Returns the bytes it took, or -1 when
  /// they are more than `limit`; `into` has 16 bytes more than that.
  int pack(byte[] from, int length, byte[] into, int limit) {
    in = from;
    out = into;
    outAt = 0;
    most = limit;
    bits = 0;
    bitCount = 0;
    if (base > Integer.MAX_VALUE - 2 * (length + WINDOW)) {
      Arrays.fill(head, 0);
      base = 1;
    }
    boolean fits = blocks(length);
    base += length;
    if (!fits) {
      return -1;
    }
    while (bitCount > 0) {
      out[outAt++] = (byte) bits;
      bits >>>= 8;
      bitCount -= 8;
    }
    return outAt <= most ? outAt : -1;
  }

  private boolean blocks(int length) {
    symbolCount = 0;
    int blockStart = 0;
    int at = 0;
    int dull = 0;
    int heldLength = 0; // match at at - 1, which waits for a better one at `at`
    int heldDistance = 0;
    boolean held = false; // whether the byte at at - 1 waits
    while (at < length) {
      if (symbolCount >= BLOCK_SYMBOLS - 2) {
        int end = held ? at - 1 : at;
        if (!block(blockStart, end, false)) {
          return false;
        }
        blockStart = end;
      }
      int found = 0;
      if (length - at >= 4) {
        int candidate = enter(at);
        if (heldLength < LAZY_MATCH && candidate >= base) {
          found = search(at, candidate, length, heldLength);
        }
      }
      int foundLength = found & 511;
      if (held && heldLength >= MIN_MATCH && heldLength >= foundLength) {
        symbol(heldLength, heldDistance);
        int end = at - 1 + heldLength;
        for (at++; at < end; at++) {
          if (length - at >= 4) {
            enter(at);
          }
        }
        held = false;
        heldLength = 0;
        dull = 0;
        continue;
      }
      if (held) {
        literal(in[at - 1] & 0xff);
        dull++;
      }
      held = true;
      heldLength = foundLength;
      heldDistance = found >>> 9;
      at++;
      if (dull > DULL && heldLength == 0) {
        int skip = Math.min(dull / DULL, length - at);
        for (int i = 0; i < skip && symbolCount < BLOCK_SYMBOLS - 2; i++) {
          literal(in[at - 1] & 0xff);
          dull++;
          at++;
        }
      }
    }
    if (held) {
      literal(in[length - 1] & 0xff);
    }
    return block(blockStart, length, true);
  }

  private static int hash(int fourBytes) {
    return ((fourBytes << 8) * 0x9E3779B1) >>> (32 - HASH_BITS);
  }

  /// Puts a position into its chain; returns the one before it there.
  private int enter(int at) {
    int h = hash((int) INT.get(in, at));
    int before = head[h];
    int position = base + at;
    head[h] = position;
    chain[position & (WINDOW - 1)] = before;
    return before;
  }

  /// The longest match longer than `least` and than two bytes, as distance << 9 | length; 0: none.
  private int search(int at, int candidate, int length, int least) {
    byte[] bytes = in;
    int longest = Math.max(least, MIN_MATCH - 1);
    int end = Math.min(length - at, MAX_MATCH);
    int tries = least >= GOOD_MATCH ? MAX_CHAIN / 4 : MAX_CHAIN;
    int distance = 0;
    int position = base + at;
    int oldest = Math.max(base, position - WINDOW);
    if (longest >= end) {
      return 0;
    }
    while (candidate >= oldest && tries-- > 0) {
      int there = candidate - base;
      // The last four bytes of a longer match, or the first four.
      int probe = Math.max(longest - 3, 0);
      boolean hopeful =
          longest >= 3
              ? (int) INT.get(bytes, there + probe) == (int) INT.get(bytes, at + probe)
              : (((int) INT.get(bytes, there) ^ (int) INT.get(bytes, at)) & 0xffffff) == 0;
      if (hopeful) {
        int same = same(bytes, there, at, end);
        if (same > longest) {
          longest = same;
          distance = position - candidate;
          if (same >= NICE_MATCH || same == end) {
            break;
          }
        }
      }
      int next = chain[candidate & (WINDOW - 1)];
      if (next >= candidate) {
        break; // overwritten by a newer position
      }
      candidate = next;
    }
    return distance == 0 ? 0 : distance << 9 | longest;
  }

  private static int same(byte[] bytes, int a, int b, int most) {
    int n = 0;
    while (n + 8 <= most) {
      long difference = (long) LONG.get(bytes, a + n) ^ (long) LONG.get(bytes, b + n);
      if (difference != 0) {
        return n + (Long.numberOfTrailingZeros(difference) >>> 3);
      }
      n += 8;
    }
    while (n < most && bytes[a + n] == bytes[b + n]) {
      n++;
    }
    return n;
  }

  private void literal(int value) {
    symbols[symbolCount++] = value;
    literals.frequency[value]++;
  }

  private void symbol(int length, int distance) {
    symbols[symbolCount++] = distance << 9 | length;
    literals.frequency[lengthSymbol(length)]++;
    distances.frequency[distanceSymbol(distance)]++;
  }

  private static int lengthSymbol(int length) {
    int l = length - MIN_MATCH;
    if (l < 8) {
      return 257 + l;
    }
    if (length == MAX_MATCH) {
      return 285;
    }
    int high = 31 - Integer.numberOfLeadingZeros(l);
    return 257 + (high - 1) * 4 + ((l >>> (high - 2)) & 3);
  }

  private static int lengthExtra(int length) {
    int l = length - MIN_MATCH;
    return l < 8 || length == MAX_MATCH ? 0 : 29 - Integer.numberOfLeadingZeros(l);
  }

  private static int distanceSymbol(int distance) {
    int d = distance - 1;
    if (d < 4) {
      return d;
    }
    int high = 31 - Integer.numberOfLeadingZeros(d);
    return high * 2 + ((d >>> (high - 1)) & 1);
  }

  private static int distanceExtra(int distance) {
    int d = distance - 1;
    return d < 4 ? 0 : 30 - Integer.numberOfLeadingZeros(d);
  }

  /// Writes the symbols collected, which stand for the input's bytes `[start, end)`. False when the
  /// limit is passed.
  private boolean block(int start, int end, boolean last) {
    literals.frequency[END_OF_BLOCK]++;
    build(literals, LITERALS, MAX_CODE);
    build(distances, DISTANCES, MAX_CODE);
    int literalCount = used(literals, LITERALS, 257);
    int distanceCount = used(distances, DISTANCES, 1);
    collectRuns(literalCount, distanceCount);
    build(lengths, CODE_LENGTHS, MAX_CODE_LENGTH_CODE);
    int lengthCount = CODE_LENGTHS;
    while (lengthCount > 4 && lengths.length[CODE_LENGTH_ORDER[lengthCount - 1]] == 0) {
      lengthCount--;
    }
    long extra = extraBits();
    long own = 17 + 3L * lengthCount + runBits() + cost(literals, distances) + extra;
    long fixed = 3 + cost(FIXED_LITERALS, FIXED_DISTANCES) + extra;
    long stored = end - start > 0xffff ? Long.MAX_VALUE : 42 + 8L * (end - start);
    long least = Math.min(stored, Math.min(own, fixed));
    boolean fits = outAt + ((bitCount + least) >>> 3) <= most;
    if (fits) {
      if (least == stored) {
        store(start, end, last);
      } else if (least == fixed) {
        put(2 | (last ? 1 : 0), 3);
        write(FIXED_LITERALS, FIXED_DISTANCES);
      } else {
        put(4 | (last ? 1 : 0), 3);
        header(literalCount, distanceCount, lengthCount);
        write(literals, distances);
      }
    }
    Arrays.fill(literals.frequency, 0);
    Arrays.fill(distances.frequency, 0);
    symbolCount = 0;
    return fits;
  }

  private static int used(Codes codes, int symbols, int least) {
    int count = symbols;
    while (count > least && codes.length[count - 1] == 0) {
      count--;
    }
    return count;
  }

  private long cost(Codes literalCodes, Codes distanceCodes) {
    long sum = 0;
    for (int s = 0; s < LITERALS; s++) {
      sum += (long) literals.frequency[s] * literalCodes.length[s];
    }
    for (int s = 0; s < DISTANCES; s++) {
      sum += (long) distances.frequency[s] * distanceCodes.length[s];
    }
    return sum;
  }

  private long extraBits() {
    long sum = 0;
    for (int s = 265; s < 285; s++) {
      sum += (long) literals.frequency[s] * ((s - 261) >>> 2);
    }
    for (int s = 4; s < DISTANCES; s++) {
      sum += (long) distances.frequency[s] * ((s >>> 1) - 1);
    }
    return sum;
  }

  /// The code lengths of both sets in a row, with repeats taken together.
  private void collectRuns(int literalCount, int distanceCount) {
    runCount = 0;
    Arrays.fill(lengths.frequency, 0);
    int all = literalCount + distanceCount;
    for (int i = 0; i < all; ) {
      int length = lengthAt(i, literalCount);
      int same = 1;
      while (i + same < all && lengthAt(i + same, literalCount) == length) {
        same++;
      }
      i += same;
      if (length == 0) {
        for (; same >= 11; same -= Math.min(same, 138)) {
          run(18, Math.min(same, 138) - 11);
        }
        if (same >= 3) {
          run(17, same - 3);
          same = 0;
        }
      } else {
        run(length, 0);
        same--;
        for (; same >= 3; same -= Math.min(same, 6)) {
          run(16, Math.min(same, 6) - 3);
        }
      }
      for (; same > 0; same--) {
        run(length, 0);
      }
    }
  }

  private int lengthAt(int i, int literalCount) {
    return i < literalCount ? literals.length[i] : distances.length[i - literalCount];
  }

  private void run(int symbol, int extra) {
    runs[runCount++] = extra << 8 | symbol;
    lengths.frequency[symbol]++;
  }

  private static int runExtra(int symbol) {
    return switch (symbol) {
      case 16 -> 2;
      case 17 -> 3;
      case 18 -> 7;
      default -> 0;
    };
  }

  private long runBits() {
    long sum = 0;
    for (int i = 0; i < runCount; i++) {
      int symbol = runs[i] & 0xff;
      sum += lengths.length[symbol] + runExtra(symbol);
    }
    return sum;
  }

  private void header(int literalCount, int distanceCount, int lengthCount) {
    put(literalCount - 257, 5);
    put(distanceCount - 1, 5);
    put(lengthCount - 4, 4);
    for (int i = 0; i < lengthCount; i++) {
      put(lengths.length[CODE_LENGTH_ORDER[i]], 3);
    }
    for (int i = 0; i < runCount; i++) {
      int symbol = runs[i] & 0xff;
      put(lengths.code[symbol], lengths.length[symbol]);
      put(runs[i] >>> 8, runExtra(symbol));
    }
  }

  private void store(int start, int end, boolean last) {
    put(last ? 1 : 0, 3);
    put(0, -bitCount & 7);
    put(end - start, 16);
    put(~(end - start) & 0xffff, 16);
    while (bitCount > 0) {
      out[outAt++] = (byte) bits;
      bits >>>= 8;
      bitCount -= 8;
    }
    System.arraycopy(in, start, out, outAt, end - start);
    outAt += end - start;
  }

  private void write(Codes literalCodes, Codes distanceCodes) {
    for (int i = 0; i < symbolCount; i++) {
      int symbol = symbols[i];
      int value = symbol & 511;
      int distance = symbol >>> 9;
      if (distance == 0) {
        put(literalCodes.code[value], literalCodes.length[value]);
        continue;
      }
      int length = lengthSymbol(value);
      int more = lengthExtra(value);
      put(literalCodes.code[length], literalCodes.length[length]);
      put((value - MIN_MATCH) & ((1 << more) - 1), more);
      int far = distanceSymbol(distance);
      more = distanceExtra(distance);
      put(distanceCodes.code[far], distanceCodes.length[far]);
      put((distance - 1) & ((1 << more) - 1), more);
    }
    put(literalCodes.code[END_OF_BLOCK], literalCodes.length[END_OF_BLOCK]);
  }

  /// Adds up to 16 bits. Safe because a block begins only where all of it and 8 bytes more fit.
  private void put(int value, int count) {
    bits |= (long) value << bitCount;
    bitCount += count;
    if (bitCount >= 32) {
      INT.set(out, outAt, (int) bits);
      outAt += 4;
      bits >>>= 32;
      bitCount -= 32;
    }
  }

  /// Gives each symbol that comes a code length of at most `longest`, and all of them codes.
  private void build(Codes codes, int symbolsThere, int longest) {
    int count = 0;
    Arrays.fill(codes.length, 0, symbolsThere, 0);
    for (int s = 0; s < symbolsThere; s++) {
      if (codes.frequency[s] != 0) {
        sorted[count++] = codes.frequency[s] << 9 | s;
      }
    }
    // Two codes at least: a set of one would not be complete.
    for (int s = 0; count < 2; s++) {
      if (codes.frequency[s] == 0) {
        sorted[count++] = 1 << 9 | s;
      }
    }
    Arrays.sort(sorted, 0, count);
    int[] perLength = countLengths(count, longest);
    int next = 0; // the rarest symbols have the longest codes
    for (int length = longest; length > 0; length--) {
      for (int i = 0; i < perLength[length]; i++) {
        codes.length[sorted[next++] & 511] = length;
      }
    }
    number(codes, symbolsThere, perLength);
  }

  /// How many of the `count` sorted symbols have a code of each length: Huffman's tree, whose inner
  /// nodes come in the order of their weight, then cut to `longest`.
  private int[] countLengths(int count, int longest) {
    long[] weights = new long[2 * count];
    for (int i = 0; i < count; i++) {
      weights[i] = (long) sorted[i] >>> 9;
    }
    int leaf = 0;
    int inner = count;
    for (int node = count; node < 2 * count - 1; node++) {
      for (int child = 0; child < 2; child++) {
        boolean fromLeaves = leaf < count && (inner >= node || weights[leaf] <= weights[inner]);
        int taken = fromLeaves ? leaf++ : inner++;
        weights[node] += weights[taken];
        parents[taken] = node;
      }
    }
    int[] depth = new int[2 * count];
    int[] perLength = new int[Math.max(longest, MAX_CODE) + 2];
    for (int node = 2 * count - 3; node >= 0; node--) {
      depth[node] = depth[parents[node]] + 1;
      if (node < count) {
        perLength[Math.min(depth[node], longest)]++;
      }
    }
    // Codes cut short take too much of the space of codes; each step frees one unit of it: a code
    // of the full length goes under a shorter one, which becomes longer by a bit.
    long taken = 0;
    for (int length = 1; length <= longest; length++) {
      taken += (long) perLength[length] << (longest - length);
    }
    for (; taken > 1L << longest; taken--) {
      perLength[longest]--;
      int length = longest - 1;
      while (perLength[length] == 0) {
        length--;
      }
      perLength[length]--;
      perLength[length + 1] += 2;
    }
    return perLength;
  }

  /// Codes in the order of length and symbol. Spec: RFC 1951, 3.2.2; bits turned round, because
  /// codes are written highest bit first.
  private static void number(Codes codes, int symbolsThere, int[] perLength) {
    Arrays.fill(perLength, 0);
    for (int s = 0; s < symbolsThere; s++) {
      perLength[codes.length[s]]++;
    }
    perLength[0] = 0;
    int[] next = new int[MAX_CODE + 2];
    for (int length = 1; length <= MAX_CODE; length++) {
      next[length] = (next[length - 1] + perLength[length - 1]) << 1;
    }
    for (int s = 0; s < symbolsThere; s++) {
      int length = codes.length[s];
      if (length != 0) {
        codes.code[s] = Integer.reverse(next[length]++) >>> (32 - length);
      }
    }
  }
}
