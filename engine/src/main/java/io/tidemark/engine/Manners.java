// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import io.tidemark.block.BlockNode;
import io.tidemark.block.Drive;
import io.tidemark.block.FailurePolicy;
import io.tidemark.block.ServedNode;
import io.tidemark.block.ZeroMode;
import io.tidemark.domain.spi.DriveManners;
import io.tidemark.domain.spi.DriveSpec;
import io.tidemark.domain.spi.RequestFailure;
import java.util.Optional;
import java.util.function.Consumer;

/// A drive's manners in the block room's words.
final class Manners {
  private Manners() {}

  static FailurePolicy failurePolicy(DriveSpec spec, Consumer<RequestFailure> listener) {
    return new FailurePolicy(
        choice(spec.manners().onReadError()),
        choice(spec.manners().onWriteError()),
        (outcome, noSpace) ->
            listener.accept(new RequestFailure(spec.target(), action(outcome), noSpace)));
  }

  private static FailurePolicy.Choice choice(DriveManners.OnError onError) {
    return switch (onError) {
      case REPORT -> FailurePolicy.Choice.REPORT;
      case IGNORE -> FailurePolicy.Choice.IGNORE;
      case STOP -> FailurePolicy.Choice.HOLD;
      case STOP_WITHOUT_SPACE -> FailurePolicy.Choice.HOLD_WITHOUT_SPACE;
    };
  }

  private static RequestFailure.Action action(FailurePolicy.Outcome outcome) {
    return switch (outcome) {
      case REPORTED -> RequestFailure.Action.REPORTED;
      case IGNORED -> RequestFailure.Action.IGNORED;
      case HELD -> RequestFailure.Action.HELD;
    };
  }

  /// What the guest sees of its drive. The drive keeps the same manners through every change of
  /// what is beneath it.
  static BlockNode served(Drive drive, DriveManners manners) {
    var served =
        new ServedNode.Manners(ServedNode.Cache.WRITEBACK, manners.discard(), zeroes(manners));
    return served.plain() ? drive : new ServedNode(drive, served);
  }

  private static Optional<ZeroMode> zeroes(DriveManners manners) {
    return switch (manners.zeroes()) {
      case DATA -> Optional.empty();
      case ZEROES -> Optional.of(ZeroMode.NO_UNMAP);
      case UNMAP -> Optional.of(ZeroMode.MAY_UNMAP);
    };
  }
}
