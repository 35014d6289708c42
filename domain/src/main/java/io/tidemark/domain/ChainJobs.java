// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.CommitSpec;
import io.tidemark.domain.spi.StreamSpec;
import java.util.List;
import java.util.Optional;

/// Starts the jobs that move data between the images of a chain: virDomainBlockPull,
/// virDomainBlockRebase without COPY, virDomainBlockCommit. Every method is called with the
/// domain's lock held.
///
/// What happens when they take effect, and the crash order, is with [BlockJobs].
final class ChainJobs {
  private final DomainLife domain;
  private final DomainContext context;

  ChainJobs(DomainLife domain, DomainContext context) {
    this.domain = domain;
    this.context = context;
  }

  /// A pull.
  ///
  /// @param base what the active layer is to stand on; absent: nothing
  /// @param relative keep the base's name relative
  record PullRequest(Optional<String> base, boolean relative, long bandwidthBytesPerSecond) {}

  void pull(Session session, String diskName, PullRequest request) throws LibvirtException {
    LiveDisk disk = session.live().disk(diskName);
    BlockJobs.checkSupported(disk);
    BlockJobs.checkIdle(disk, session.live());
    List<Layer> layers = disk.layers();
    ChainLookup lookup = new ChainLookup(context.images(), disk.target(), layers);
    Optional<ChainChange.Backing> base = Optional.empty();
    if (request.base().isPresent()) {
      int at = lookup.find(request.base(), 0);
      Optional<String> name =
          request.relative() ? Optional.of(lookup.relativeName(1, at)) : Optional.empty();
      base = Optional.of(new ChainChange.Backing(layers.get(at), name));
    }
    if (!disk.hasMedium()) {
      throw ErrorCode.INTERNAL_ERROR.in(
          ErrorDomain.NONE, "disk '%s' has no medium to pull into".formatted(disk.target()));
    }
    Layer active = disk.active();
    BlockJob job =
        new BlockJob(
            "pull-%s-%s".formatted(disk.target(), active.nodeName()),
            new ChainChange.Pull(active, base),
            active.file());
    StreamSpec spec =
        new StreamSpec(
            job.id(),
            disk.target(),
            base.map(kept -> kept.layer().nodeName()),
            base.flatMap(ChainChange.Backing::name),
            request.bandwidthBytesPerSecond());
    domain.jobs().begin(session, disk, job, "block pull", () -> session.driver().startStream(spec));
  }

  /// A commit.
  ///
  /// @param base where the data goes; absent: the chain's end, or with `shallow` the image beneath
  ///   the top
  /// @param top the uppermost image to commit; absent: the active layer
  /// @param shallow the base is to be directly beneath the top
  /// @param delete remove the committed files in the end
  /// @param active the active layer is meant
  /// @param relative keep the base's name relative in the image above the top
  record CommitRequest(
      Optional<String> base,
      Optional<String> top,
      boolean shallow,
      boolean delete,
      boolean active,
      boolean relative,
      long bandwidthBytesPerSecond) {
    static CommitRequest of(Optional<String> base, Optional<String> top, long bandwidth, int flags)
        throws LibvirtException {
      Flags.check(
          flags,
          Flags.COMMIT_SHALLOW
              | Flags.COMMIT_DELETE
              | Flags.COMMIT_ACTIVE
              | Flags.COMMIT_RELATIVE
              | Flags.COMMIT_BANDWIDTH_BYTES,
          "qemuDomainBlockCommit");
      return new CommitRequest(
          base,
          top,
          Flags.has(flags, Flags.COMMIT_SHALLOW),
          Flags.has(flags, Flags.COMMIT_DELETE),
          Flags.has(flags, Flags.COMMIT_ACTIVE),
          Flags.has(flags, Flags.COMMIT_RELATIVE),
          BlockCopyRequest.bytesPerSecond(
              bandwidth, Flags.has(flags, Flags.COMMIT_BANDWIDTH_BYTES)));
    }
  }

  /// virDomainBlockCommit of a domain that does not run: its chain is not known, so nothing is
  /// found in it, as with libvirt.
  LibvirtException notRunning(String target, CommitRequest request) throws LibvirtException {
    if (request.base().isPresent() || !request.shallow()) {
      int unused = new ChainLookup(context.images(), target, List.of()).find(request.base(), 0);
      assert unused > 0;
    }
    return DomainLife.notRunning();
  }

  /// @return the job that was started
  BlockJob commit(Session session, String diskName, CommitRequest request) throws LibvirtException {
    LiveDisk disk = session.live().disk(diskName);
    BlockJobs.checkSupported(disk);
    List<Layer> layers = disk.layers();
    ChainLookup lookup = new ChainLookup(context.images(), disk.target(), layers);
    int top =
        request.top().filter(name -> !name.equals(disk.target())).isEmpty()
            ? 0
            : lookup.find(request.top(), -1);
    int base;
    if (request.base().isEmpty() && request.shallow()) {
      base = top + 1;
    } else {
      base = lookup.find(request.base(), top);
    }
    BlockJobs.checkIdle(disk, session.live());
    checkPlaces(disk, request, top, base);
    Layer kept = layers.get(base);
    List<Layer> committed = layers.subList(top, base);
    Optional<String> name =
        request.relative() && top > 0
            ? Optional.of(lookup.relativeName(top, base))
            : Optional.empty();
    ChainChange change =
        top == 0
            ? new ChainChange.ActiveCommit(committed, kept, request.delete())
            : new ChainChange.Commit(
                layers.get(top - 1),
                committed,
                new ChainChange.Backing(kept, name),
                request.delete());
    BlockJob job =
        new BlockJob(
            "commit-%s-%s".formatted(disk.target(), layers.get(top).nodeName()),
            change,
            disk.active().file());
    CommitSpec spec =
        new CommitSpec(
            job.id(),
            disk.target(),
            layers.get(top).nodeName(),
            kept.nodeName(),
            name,
            request.bandwidthBytesPerSecond());
    domain
        .jobs()
        .begin(session, disk, job, "block commit", () -> session.driver().startCommit(spec));
    return job;
  }

  private static void checkPlaces(LiveDisk disk, CommitRequest request, int top, int base)
      throws LibvirtException {
    List<Layer> layers = disk.layers();
    if (!disk.hasMedium()) {
      throw ErrorCode.CONFIG_UNSUPPORTED.because(
          "disk %s has no source file to be committed".formatted(disk.target()));
    }
    if (top == 0 && !request.active()) {
      throw ErrorCode.INVALID_ARG.because(
          "commit of '%s' active layer requires active flag".formatted(disk.target()));
    }
    String path = layers.get(top).file();
    if (top > 0 && request.active()) {
      throw ErrorCode.INVALID_ARG.because(
          "active commit requested but '%s' is not active".formatted(path));
    }
    if (top == layers.size() - 1) {
      throw ErrorCode.INVALID_ARG.because(
          "top '%s' in chain for '%s' has no backing file".formatted(path, disk.active().file()));
    }
    if (request.shallow() && base != top + 1) {
      throw ErrorCode.INVALID_ARG.because(
          "base '%s' is not immediately below '%s' in chain for '%s'"
              .formatted(layers.get(base).file(), path, disk.active().file()));
    }
  }
}
