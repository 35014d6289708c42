// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.rpc.Calls;
import io.tidemark.rpc.EventKind;
import io.tidemark.rpc.Messages;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.Replies;
import io.tidemark.rpc.RpcClient;
import io.tidemark.rpc.RpcException;
import io.tidemark.rpc.TypedValue;
import io.tidemark.rpc.Wire;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/// The demo's domain, spoken to as any libvirt client would: over the daemon's socket.
final class DemoDomain implements AutoCloseable {
  static final String DISK = "vda";
  private static final int COPY_TRANSIENT_JOB = 4; // VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
  private static final int ABORT_PIVOT = 2; // VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT

  /// virConnectDomainEventBlockJobStatus.
  private static final int JOB_COMPLETED = 0;

  private static final int JOB_READY = 3;

  private final RpcClient client;
  private final BlockingQueue<RpcClient.Event> events;
  private final Wire.Domain domain;

  private DemoDomain(RpcClient client, BlockingQueue<RpcClient.Event> events, Wire.Domain domain) {
    this.client = client;
    this.events = events;
    this.domain = domain;
  }

  /// Connects, creates the domain, and listens to its events.
  static DemoDomain create(Path socket, String xml) throws IOException, RpcException {
    var events = new LinkedBlockingQueue<RpcClient.Event>();
    RpcClient client = RpcClient.open(socket, "qemu:///system", events::add);
    try {
      Wire.Domain domain = client.call(Remote.DOMAIN_CREATE_XML, new Calls.XmlFlags(xml, 0)).dom();
      for (EventKind kind : List.of(EventKind.BLOCK_JOB_2, EventKind.JOB_COMPLETED)) {
        client.call(
            Remote.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
            new Calls.RegisterEvent(kind.id(), Optional.of(domain)));
      }
      return new DemoDomain(client, events, domain);
    } catch (IOException | RpcException e) {
      client.close();
      throw e;
    }
  }

  String xml() throws IOException, RpcException {
    return client.call(Remote.DOMAIN_GET_XML_DESC, new Calls.DomainFlags(domain, 0)).text();
  }

  void blockCopy(String destination) throws IOException, RpcException {
    client.call(
        Remote.DOMAIN_BLOCK_COPY,
        new Calls.BlockCopy(domain, DISK, destination, List.of(), COPY_TRANSIENT_JOB));
  }

  Replies.BlockJobInfo blockJob() throws IOException, RpcException {
    return client.call(
        Remote.DOMAIN_GET_BLOCK_JOB_INFO, new Calls.DomainTextFlags(domain, DISK, 0));
  }

  void pivot() throws IOException, RpcException {
    client.call(
        Remote.DOMAIN_BLOCK_JOB_ABORT, new Calls.DomainTextFlags(domain, DISK, ABORT_PIVOT));
  }

  void backup(String backupXml, String checkpointXml) throws IOException, RpcException {
    client.call(
        Remote.DOMAIN_BACKUP_BEGIN,
        new Calls.BackupBegin(domain, backupXml, Optional.of(checkpointXml), 0));
  }

  void abortJob() throws IOException, RpcException {
    client.call(Remote.DOMAIN_ABORT_JOB, new Calls.Domain(domain));
  }

  /// Bytes of the running backup: done, and in all.
  record Progress(long done, long total) {}

  Progress backupProgress() throws IOException, RpcException {
    Replies.JobStats stats =
        client.call(Remote.DOMAIN_GET_JOB_STATS, new Calls.DomainFlags(domain, 0));
    return new Progress(
        number(stats.params(), "disk_processed"), number(stats.params(), "disk_total"));
  }

  private static long number(List<Wire.TypedParameter> params, String field) {
    for (Wire.TypedParameter param : params) {
      if (param.field().equals(field) && param.value() instanceof TypedValue.ULLong(long value)) {
        return value;
      }
    }
    return 0;
  }

  /// How a block job or backup stands.
  enum Outcome {
    RUNNING,
    READY,
    DONE,
    FAILED
  }

  /// What the next event says, waiting for it at most so long.
  Outcome await(long millis) {
    try {
      RpcClient.Event event = events.poll(millis, TimeUnit.MILLISECONDS);
      return event == null ? Outcome.RUNNING : outcome(event.message());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      return Outcome.FAILED;
    }
  }

  private static Outcome outcome(Record message) {
    return switch (message) {
      // A backup's end is told by JOB_COMPLETED; the event of its disk is not waited for.
      case Messages.BlockJob job when job.type() == BACKUP -> Outcome.RUNNING;
      case Messages.BlockJob job when job.status() == JOB_READY -> Outcome.READY;
      case Messages.BlockJob job when job.status() == JOB_COMPLETED -> Outcome.DONE;
      case Messages.JobCompleted completed when success(completed.params()) -> Outcome.DONE;
      default -> Outcome.FAILED;
    };
  }

  private static final int BACKUP = 5; // VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP

  private static boolean success(List<Wire.TypedParameter> params) {
    return params.stream()
        .anyMatch(p -> p.field().equals("success") && p.value().equals(new TypedValue.Bool(true)));
  }

  void destroy() throws IOException, RpcException {
    client.call(Remote.DOMAIN_DESTROY, new Calls.Domain(domain));
  }

  @Override
  public void close() {
    client.close();
  }
}
