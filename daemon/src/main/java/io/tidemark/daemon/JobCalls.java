// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.BlockJobInfo;
import io.tidemark.domain.Checkpoint;
import io.tidemark.domain.Domain;
import io.tidemark.domain.Domains;
import io.tidemark.domain.ErrorCode;
import io.tidemark.domain.ErrorDomain;
import io.tidemark.domain.JobInfo;
import io.tidemark.domain.JobStats;
import io.tidemark.domain.LibvirtException;
import io.tidemark.rpc.CallTable;
import io.tidemark.rpc.Calls;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.Replies;
import io.tidemark.rpc.Wire;
import java.util.List;
import java.util.Optional;

/// Calls about block jobs, checkpoints, backups, and the guest agent that a backup tool asks for.
final class JobCalls {
  private final Domains domains;

  JobCalls(Domains domains) {
    this.domains = domains;
  }

  void addTo(CallTable<Client> table) {
    addBlockJobsTo(table);
    addCheckpointsTo(table);
    addBackupTo(table);
    addAgentTo(table);
  }

  private Domain domain(Wire.Domain dom) throws LibvirtException {
    return domains.resolve(Convert.ref(dom));
  }

  private void addBlockJobsTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_BLOCK_COPY,
            (_, call) ->
                DomainCalls.done(() ->
                    domain(call.dom())
                        .blockCopy(
                            call.path(),
                            call.destXml(),
                            Convert.params(call.params()),
                            call.flags())))
        .on(
            Remote.DOMAIN_BLOCK_REBASE,
            (_, call) ->
                DomainCalls.done(() ->
                    domain(call.dom())
                        .blockRebase(
                            call.path(), call.base().orElse(null), call.bandwidth(), call.flags())))
        .on(
            Remote.DOMAIN_BLOCK_PULL,
            (_, call) ->
                DomainCalls.done(() ->
                    domain(call.dom()).blockPull(call.path(), call.bandwidth(), call.flags())))
        .on(
            Remote.DOMAIN_BLOCK_COMMIT,
            (_, call) ->
                DomainCalls.done(() ->
                    domain(call.dom())
                        .blockCommit(
                            call.disk(),
                            call.base().orElse(null),
                            call.top().orElse(null),
                            call.bandwidth(),
                            call.flags())))
        .on(
            Remote.DOMAIN_BLOCK_RESIZE,
            (_, call) ->
                DomainCalls.done(
                    () -> domain(call.dom()).blockResize(call.disk(), call.size(), call.flags())))
        .on(
            Remote.DOMAIN_BLOCK_PEEK,
            (_, call) ->
                new Replies.BlockPeek(
                    domain(call.dom())
                        .blockPeek(call.path(), call.offset(), call.size(), call.flags())))
        .on(
            Remote.DOMAIN_BLOCK_JOB_ABORT,
            (_, call) ->
                DomainCalls.done(() -> domain(call.dom()).blockJobAbort(call.text(), call.flags())))
        .on(
            Remote.DOMAIN_BLOCK_JOB_SET_SPEED,
            (_, call) ->
                DomainCalls.done(() ->
                    domain(call.dom())
                        .blockJobSetSpeed(call.path(), call.bandwidth(), call.flags())))
        .on(
            Remote.DOMAIN_GET_BLOCK_JOB_INFO,
            (_, call) -> {
              Optional<BlockJobInfo> info =
                  domain(call.dom()).blockJobInfo(call.text(), call.flags());
              return info.map(job ->
                      new Replies.BlockJobInfo(
                          1, job.type().number(), job.bandwidth(), job.current(), job.end()))
                  .orElse(new Replies.BlockJobInfo(0, 0, 0, 0, 0));
            });
  }

  private void addCheckpointsTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_CHECKPOINT_CREATE_XML,
            (_, call) -> reply(domain(call.dom()).checkpointCreateXml(call.text(), call.flags())))
        .on(
            Remote.DOMAIN_CHECKPOINT_LOOKUP_BY_NAME,
            (_, call) ->
                reply(domain(call.dom()).checkpointLookupByName(call.text(), call.flags())))
        .on(
            Remote.DOMAIN_LIST_ALL_CHECKPOINTS,
            (_, call) -> list(domain(call.dom()).checkpoints(call.flags()), call.needResults()))
        .on(
            Remote.DOMAIN_CHECKPOINT_LIST_ALL_CHILDREN,
            (_, call) ->
                list(checkpoint(call.checkpoint()).children(call.flags()), call.needResults()))
        .on(
            Remote.DOMAIN_CHECKPOINT_GET_PARENT,
            (_, call) -> reply(checkpoint(call.checkpoint()).parent(call.flags())))
        .on(
            Remote.DOMAIN_CHECKPOINT_GET_XML_DESC,
            (_, call) -> new Replies.Text(checkpoint(call.checkpoint()).xmlDesc(call.flags())))
        .on(
            Remote.DOMAIN_CHECKPOINT_DELETE,
            (_, call) ->
                DomainCalls.done(() -> checkpoint(call.checkpoint()).delete(call.flags())));
  }

  private Checkpoint checkpoint(Wire.Checkpoint checkpoint) throws LibvirtException {
    return domain(checkpoint.dom()).checkpointLookupByName(checkpoint.name(), 0);
  }

  private static Replies.Checkpoint reply(Checkpoint checkpoint) {
    return new Replies.Checkpoint(Convert.wire(checkpoint));
  }

  private static Replies.Checkpoints list(List<Checkpoint> found, int needResults) {
    return new Replies.Checkpoints(
        needResults == 0 ? List.of() : found.stream().map(Convert::wire).toList(), found.size());
  }

  private void addBackupTo(CallTable<Client> table) {
    table
        .on(
            Remote.DOMAIN_BACKUP_BEGIN,
            (_, call) ->
                DomainCalls.done(() ->
                    domain(call.dom())
                        .backupBegin(
                            call.backupXml(), call.checkpointXml().orElse(null), call.flags())))
        .on(
            Remote.DOMAIN_BACKUP_GET_XML_DESC,
            (_, call) -> new Replies.Text(domain(call.dom()).backupXmlDesc(call.flags())))
        .on(Remote.DOMAIN_GET_JOB_INFO, (_, call) -> info(domain(call.dom()).jobInfo()))
        .on(
            Remote.DOMAIN_GET_JOB_STATS,
            (_, call) -> {
              JobStats stats = domain(call.dom()).jobStats(call.flags());
              return new Replies.JobStats(stats.type(), Convert.wire(stats.params()));
            })
        .on(
            Remote.DOMAIN_ABORT_JOB,
            (_, call) -> DomainCalls.done(() -> domain(call.dom()).abortJob(0)))
        .on(
            Remote.DOMAIN_ABORT_JOB_FLAGS,
            (_, call) -> DomainCalls.done(() -> domain(call.dom()).abortJob(call.flags())));
  }

  private static Replies.JobInfo info(JobInfo info) {
    return new Replies.JobInfo(
        info.type(),
        info.timeElapsedMillis(),
        0,
        info.dataTotal(),
        info.dataProcessed(),
        info.dataRemaining(),
        0,
        0,
        0,
        info.fileTotal(),
        info.fileProcessed(),
        info.fileRemaining());
  }

  /// No guest here has an agent: backup tools take this answer and go on without freezing.
  private void addAgentTo(CallTable<Client> table) {
    table
        .on(Remote.DOMAIN_FSFREEZE, (_, call) -> freeze(call, "qemuDomainFSFreeze", false))
        .on(Remote.DOMAIN_FSTHAW, (_, call) -> freeze(call, "qemuDomainFSThaw", true))
        .on(
            Remote.DOMAIN_FSTRIM,
            (_, call) -> {
              throw noAgent(call.dom());
            })
        .on(
            Remote.DOMAIN_GET_FSINFO,
            (_, call) -> {
              throw noAgent(call.dom());
            })
        .on(
            Remote.DOMAIN_GET_GUEST_INFO,
            (_, call) -> {
              throw noAgent(call.dom());
            })
        .on(
            Remote.QEMU_DOMAIN_AGENT_COMMAND,
            (_, call) -> {
              throw noAgent(call.dom());
            });
  }

  private Replies.Int freeze(Calls.Freeze call, String function, boolean thaw)
      throws LibvirtException {
    if (thaw && !call.mountpoints().isEmpty()) {
      throw new LibvirtException(
          ErrorCode.ARGUMENT_UNSUPPORTED,
          ErrorDomain.HYPERVISOR,
          "argument unsupported: specifying mountpoints is not supported");
    }
    if (call.flags() != 0) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          ErrorDomain.HYPERVISOR,
          "unsupported flags (0x"
              + Integer.toHexString(call.flags())
              + ") in function "
              + function);
    }
    throw noAgent(call.dom());
  }

  private LibvirtException noAgent(Wire.Domain dom) throws LibvirtException {
    return domain(dom).noAgent();
  }
}
