// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.file.Path;
import java.util.Optional;

/// How an image is opened.
///
/// @param readOnly nothing is ever written, not even a dirty flag
/// @param lock take QEMU's image locks (rule 12); false only for `--force-share` reads
/// @param runDir where a format keeps the log of acknowledged metadata (rule 1); absent: the format
///   orders its writes with syncs instead, slower and as safe
/// @param durability what a write and a flush promise
/// @param access how the bytes of host files are reached, backing files too
/// @param judging only to check or repair the image: it may be so broken that nothing else is
///   allowed
public record OpenOptions(
    boolean readOnly,
    boolean lock,
    Optional<Path> runDir,
    Durability durability,
    HostAccess access,
    boolean judging) {
  /// With [Durability#ACKNOWLEDGED], by the page cache.
  public OpenOptions(boolean readOnly, boolean lock, Optional<Path> runDir) {
    this(readOnly, lock, runDir, Durability.ACKNOWLEDGED, HostAccess.CACHED, false);
  }

  public static OpenOptions readWrite() {
    return new OpenOptions(false, true, Optional.empty());
  }

  public static OpenOptions reading() {
    return new OpenOptions(true, true, Optional.empty());
  }

  /// A reader that takes no locks and tolerates a writer beside it.
  public static OpenOptions forceShare() {
    return new OpenOptions(true, false, Optional.empty());
  }

  public OpenOptions withReadOnly(boolean value) {
    return new OpenOptions(value, lock, runDir, durability, access, judging);
  }

  public OpenOptions toJudge() {
    return new OpenOptions(readOnly, lock, runDir, durability, access, true);
  }

  public OpenOptions withoutLocks() {
    return new OpenOptions(readOnly, false, runDir, durability, access, judging);
  }

  public OpenOptions withRunDir(Path dir) {
    return new OpenOptions(readOnly, lock, Optional.of(dir), durability, access, judging);
  }

  public OpenOptions with(Durability other) {
    return new OpenOptions(readOnly, lock, runDir, other, access, judging);
  }

  public OpenOptions with(HostAccess other) {
    return new OpenOptions(readOnly, lock, runDir, durability, other, judging);
  }
}
