// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/// Something that is done to an image. What it does is decided by its numbers and by the image as
/// it is then, so that a list of operations still means something when some are taken out.
///
/// @param where picks a place on the disk
/// @param what picks a length, a name, a size
/// @param content of what is written
record ImageOperation(Kind kind, double where, double what, long content) {
  enum Kind {
    WRITE,
    COMPRESSED,
    ZERO,
    DISCARD,
    FLUSH,
    SNAPSHOT,
    DELETE,
    APPLY,
    ADD,
    REMOVE,
    CLEAR,
    ENABLE,
    DISABLE,
    MERGE,
    CLAIM,
    STORE,
    RESIZE,
    REOPEN
  }

  /// `count` operations; half of them are guest requests.
  static List<ImageOperation> random(Random random, int count) {
    var result = new ArrayList<ImageOperation>();
    Kind[] all = Kind.values();
    while (result.size() < count) {
      Kind kind = random.nextInt(3) == 0 ? Kind.WRITE : all[random.nextInt(all.length)];
      result.add(
          new ImageOperation(kind, random.nextDouble(), random.nextDouble(), random.nextLong()));
    }
    return result;
  }

  @Override
  public String toString() {
    return "%s(%.3f, %.3f, %d)".formatted(kind, where, what, content);
  }
}
