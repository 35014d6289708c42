// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import java.util.Random;

/// Random requests of one client that get in the way of other clients': most of them near a few hot
/// places that all clients of a seed share, of any length from one word to some clusters.
public final class RacingRequests {
  private static final int WORD = Long.BYTES;
  private static final int[] ALIGNMENTS = {WORD, 512, 512, 4096, 4096, 65536};
  private static final int HOT = 3;

  private final Random random;
  private final BlockHistory history;
  private final long[] hot = new long[HOT];
  private final int maxLength;
  private final int reach;

  /// @param seed of the race
  /// @param client which of the race's clients
  /// @param maxLength of one request, in bytes
  public RacingRequests(long seed, int client, BlockHistory history, int maxLength) {
    this.history = history;
    this.maxLength = (int) Math.min(maxLength, history.size()) / WORD * WORD;
    this.reach = Math.max(4096, maxLength);
    var places = new Random(seed);
    for (int i = 0; i < hot.length; i++) {
      hot[i] = places.nextLong(history.size());
    }
    this.random = new Random(seed * 31 + client);
  }

  /// The next request, begun; it is to be sent now.
  public BlockHistory.Request next() {
    int alignment = ALIGNMENTS[random.nextInt(ALIGNMENTS.length)];
    long length = 1 + (long) (maxLength * Math.pow(random.nextDouble(), 3));
    length = Math.min(maxLength, (length + alignment - 1) / alignment * alignment);
    long offset =
        random.nextInt(6) == 0
            ? random.nextLong(history.size())
            : hot[random.nextInt(HOT)] + random.nextInt(reach);
    offset = Math.clamp(offset / alignment * alignment, 0, history.size() - length);
    return history.begin(kind(), offset, (int) length);
  }

  /// Now and then, as a guest asks for what was written to be kept.
  public boolean forced() {
    return random.nextInt(12) == 0;
  }

  /// How many requests to send at once.
  public int burst(int most) {
    return 1 + random.nextInt(most);
  }

  private BlockHistory.Kind kind() {
    return switch (random.nextInt(20)) {
      case 0, 1 -> BlockHistory.Kind.ZERO;
      case 2, 3 -> BlockHistory.Kind.TRIM;
      case 4, 5, 6, 7, 8, 9, 10 -> BlockHistory.Kind.WRITE;
      default -> BlockHistory.Kind.READ;
    };
  }
}
