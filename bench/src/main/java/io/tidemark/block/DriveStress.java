// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.nio.ByteBuffer;
import org.openjdk.jcstress.annotations.Actor;
import org.openjdk.jcstress.annotations.Arbiter;
import org.openjdk.jcstress.annotations.Expect;
import org.openjdk.jcstress.annotations.JCStressTest;
import org.openjdk.jcstress.annotations.Outcome;
import org.openjdk.jcstress.annotations.State;
import org.openjdk.jcstress.infra.results.III_Result;

/// A pivot amid a guest's writes to one place: each write goes to one of the two nodes, whole, and
/// writes that overlap come one after the other.
@JCStressTest
@Outcome(id = "[0-3], [0-3], 3", expect = Expect.ACCEPTABLE, desc = "each on one node")
@Outcome(expect = Expect.FORBIDDEN, desc = "lost, or in the middle of the pivot")
@State
public class DriveStress {
  private final Counting before = new Counting();
  private final Counting after = new Counting();
  private final Drive drive = new Drive("vda", before);
  private int copied; // writes that the new node took over, plain

  @Actor
  public void write() {
    writeAt(0);
    writeAt(512);
  }

  @Actor
  public void overlapAndPivot() {
    writeAt(256);
    try (var _ = drive.drain()) {
      copied = before.writes;
      drive.repoint(after);
    }
  }

  private void writeAt(long offset) {
    try {
      drive.write(offset, ByteBuffer.allocate(512));
    } catch (BlockException e) {
      throw new IllegalStateException(e);
    }
  }

  @Arbiter
  public void look(III_Result seen) {
    seen.r1 = copied;
    seen.r2 = after.writes;
    seen.r3 = copied + after.writes;
  }

  /// Counts writes, plainly: only one may come at a time.
  private static final class Counting implements BlockNode {
    private int writes;

    @Override
    public String name() {
      return "counting";
    }

    @Override
    public long virtualSize() {
      return 1 << 20;
    }

    @Override
    public boolean readOnly() {
      return false;
    }

    @Override
    public void read(long offset, ByteBuffer into) {
      into.position(into.limit());
    }

    @Override
    public void write(long offset, ByteBuffer from) {
      writes++;
      from.position(from.limit());
    }

    @Override
    public void writeZeroes(long offset, long length, ZeroMode mode) {}

    @Override
    public void discard(long offset, long length) {}

    @Override
    public void flush() {}

    @Override
    public void extents(long offset, long length, ExtentVisitor visitor) {}

    @Override
    public void close() {}
  }
}
