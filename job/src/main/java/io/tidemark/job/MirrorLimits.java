// SPDX-License-Identifier: Apache-2.0
package io.tidemark.job;

import java.time.Duration;

/// How long a guest waits for a mirror's target, and a job for what does not answer.
///
/// @param answer a guest write waits no longer than this for the target: its extent is marked
///   dirty, it is acknowledged, and the job leaves synchronous mode
/// @param stall a target request that is out for longer than this fails the job
/// @param held while a job completes, the guest is held no longer than this: past it the drive goes
///   on with its source and the job fails. Also how long a job that ends waits for requests that
///   are still out on its target, before it leaves them behind
/// @param decision how long a pending job waits, with the guest held, to be finalized: past it the
///   job is undone and fails
public record MirrorLimits(Duration answer, Duration stall, Duration held, Duration decision) {
  public static final MirrorLimits DEFAULT =
      new MirrorLimits(
          Duration.ofSeconds(5),
          Duration.ofSeconds(60),
          Duration.ofSeconds(10),
          Duration.ofSeconds(30));
}
