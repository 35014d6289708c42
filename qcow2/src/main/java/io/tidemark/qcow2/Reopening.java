// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.Gate;
import io.tidemark.block.TransportException;
import io.tidemark.block.UnsupportedImageException;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Changes of what an open image is, while guest requests wait at its gate: between reading and
/// writing, of its tables, and repairs. Each ends with the image being read again.
///
/// One at a time; any thread may call any method.
final class Reopening {
  private final Qcow2Image image;
  private final Gate gate;
  private final OpenImage.Lasting lasting;

  Reopening(Qcow2Image image, Gate gate, OpenImage.Lasting lasting) {
    this.image = image;
    this.gate = gate;
    this.lasting = lasting;
  }

  @FunctionalInterface
  private interface Work<T> {
    T run(OpenImage now) throws BlockException;
  }

  private synchronized <T> T whileRequestsWait(Work<T> work) throws BlockException {
    gate.shut();
    try {
      return work.run(image.now());
    } finally {
      gate.open();
    }
  }

  /// Changes the tables of an image.
  @FunctionalInterface
  interface Reorganisation {
    /// @param now what nobody else uses meanwhile
    /// @return clusters that nothing names any more, counted once each
    List<Freed> run(OpenImage now) throws BlockException;
  }

  /// Runs `work` on the image's file: guest requests wait, all metadata is in the file and synced,
  /// and nothing is counted ahead. Afterwards the image is read again, whether `work` succeeded or
  /// not; the bitmaps stay who they are.
  ///
  /// @param changesGuestData whether bitmaps that record writes and that nobody claimed are to be
  ///   given up first
  void reorganise(boolean changesGuestData, Reorganisation work) throws BlockException {
    whileRequestsWait(now -> {
      image.requireOpen();
      now.requireWritable();
      now.clearForeignAutoclear();
      if (changesGuestData) {
        now.bitmaps().claimUntracked();
      }
      synchronized (now.bitmaps()) {
        now.settle();
        now.file.sync();
        reorganise(now, work);
      }
      image.now().writeBack.run(false); // what nothing names any more is given back
      return now;
    });
  }

  private void reorganise(OpenImage now, Reorganisation work) throws BlockException {
    List<Freed> free;
    try {
      free = work.run(now);
    } catch (BlockException | RuntimeException e) {
      try {
        now.file.check(); // else nobody knows what the file says
        readAgain(now);
      } catch (BlockException left) {
        now.file.fail(left);
        e.addSuppressed(left);
      }
      throw e;
    }
    try {
      readAgain(now);
    } catch (BlockException e) {
      now.file.fail(e);
      throw e;
    }
    lasting.inFlight().retire(free);
  }

  private void readAgain(OpenImage now) throws BlockException {
    OpenImage fresh = OpenImage.read(now.file.node(), now.dataNode(), lasting.withReadOnly(false));
    now.deleteLog();
    now.leaveLog();
    fresh.keepBitmaps(now);
    image.become(fresh);
  }

  /// Puts right what a check finds; see [Qcow2Image#repair].
  RepairResult repair(Repair what) throws BlockException {
    if (image.readOnly()) {
      return whileRequestsWait(now -> repairReadOnly(now, what));
    }
    var results = new ArrayList<RepairResult>();
    reorganise(
        false,
        now -> {
          results.add(new ImageRepair(now.file, what).run());
          return List.of();
        });
    return results.getFirst();
  }

  private RepairResult repairReadOnly(OpenImage now, Repair what) throws BlockException {
    if (now.tables.dirty()) {
      throw new UnsupportedImageException(
          image.name() + ": a log holds changes of it: open it for writing before it is repaired");
    }
    BlockNode node = now.file.node();
    node.reopen(false);
    try {
      now.clearForeignAutoclear(); // as whoever opens it for writing; qemu: check -r, too
      RepairResult result = new ImageRepair(new HostFile(node), what).run();
      image.become(OpenImage.read(node, now.dataNode(), lasting.withReadOnly(true)));
      return result;
    } finally {
      node.reopen(true);
    }
  }

  /// Between reading and writing; see [Qcow2Image#reopen].
  void reopen(boolean wantReadOnly) throws BlockException {
    whileRequestsWait(now -> {
      image.requireOpen();
      if (wantReadOnly && !now.readOnly) {
        endWriting(now);
      } else if (!wantReadOnly && now.readOnly) {
        beginWriting(now);
      }
      return now;
    });
  }

  private void beginWriting(OpenImage now) throws BlockException {
    BlockNode node = now.file.node();
    Optional<BlockNode> dataNode = now.dataNode();
    node.reopen(false);
    try {
      if (dataNode.isPresent()) {
        dataNode.get().reopen(false);
      }
      image.become(OpenImage.open(node, dataNode, lasting.withReadOnly(false)));
    } catch (BlockException | RuntimeException e) {
      try {
        if (dataNode.isPresent()) {
          dataNode.get().reopen(true);
        }
        node.reopen(true);
      } catch (BlockException left) {
        e.addSuppressed(left);
      }
      throw e;
    }
  }

  private void endWriting(OpenImage now) throws BlockException {
    now.settle();
    now.file.sync();
    BlockNode node = now.file.node();
    Optional<BlockNode> dataNode = now.dataNode();
    OpenImage fresh = OpenImage.read(node, dataNode, lasting.withReadOnly(true));
    now.deleteLog();
    try {
      if (dataNode.isPresent()) {
        dataNode.get().reopen(true);
      }
      node.reopen(true);
    } catch (BlockException | RuntimeException e) {
      now.file.fail(new TransportException(image.name() + ": could not be reopened read-only", e));
      throw e;
    }
    now.leaveLog();
    image.become(fresh);
  }
}
