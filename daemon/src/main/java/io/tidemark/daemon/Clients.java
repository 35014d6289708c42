// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.DomainEvent;
import io.tidemark.domain.DomainEventListener;
import io.tidemark.domain.Domains;
import io.tidemark.domain.spi.RequestFailure;
import io.tidemark.rpc.Calls;
import io.tidemark.rpc.EventKind;
import io.tidemark.rpc.Messages;
import io.tidemark.rpc.ProcedureRow;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.RpcConnection;
import io.tidemark.rpc.RpcException;
import io.tidemark.rpc.RpcService;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/// Every client: who it is, what it may, and which events reach it.
final class Clients implements RpcService<Client>, DomainEventListener {
  private static final Set<ProcedureRow> BEFORE_AUTHENTICATION = Set.of(Remote.AUTH_LIST.row());

  /// What a client may ask before it opens the hypervisor connection, and after it closed it.
  private static final Set<ProcedureRow> BEFORE_OPEN =
      Set.of(
          Remote.AUTH_LIST.row(),
          Remote.CONNECT_OPEN.row(),
          Remote.CONNECT_CLOSE.row(),
          Remote.CONNECT_SUPPORTS_FEATURE.row());

  private final Domains domains;
  private final Set<Client> all = ConcurrentHashMap.newKeySet();

  Clients(Domains domains) {
    this.domains = domains;
  }

  @Override
  public Client opened(RpcConnection connection) {
    Client client = new Client(connection);
    all.add(client);
    return client;
  }

  @Override
  public void closed(Client client) {
    all.remove(client);
    client.leave();
    domains.connectionClosed(client);
  }

  @Override
  public void admit(Client client, ProcedureRow procedure, Record arguments) throws RpcException {
    if (!client.authenticated() && !BEFORE_AUTHENTICATION.contains(procedure)) {
      throw RpcException.protocol("authentication required");
    }
    if (client.name().isEmpty() && !BEFORE_OPEN.contains(procedure)) {
      throw RpcException.connection("hypervisor connection not open");
    }
    if (client.readOnly()) {
      if (procedure.access() != ProcedureRow.Access.READ) {
        throw Failures.readOnly(procedure);
      }
      if (arguments instanceof Calls.Flagged flagged
          && (flagged.flags() & procedure.writableFlags()) != 0) {
        throw Failures.secureFlag(procedure);
      }
    }
  }

  @Override
  public RpcException unsupported(ProcedureRow procedure) {
    return Failures.unsupported(procedure);
  }

  @Override
  public RpcException failure(ProcedureRow procedure, Throwable failure) {
    return Failures.of(procedure, failure);
  }

  /// Comes under the lock of the event's domain, so that each client has the events of a domain in
  /// their order; queues and returns.
  @Override
  public void happened(DomainEvent event) {
    switch (event) {
      case DomainEvent.LifecycleChanged(var dom, var change) ->
          deliver(
              EventKind.LIFECYCLE,
              new Messages.Lifecycle(Convert.wire(dom), change.event(), change.detail()));
      case DomainEvent.BlockJob(var dom, var path, var type, var status) ->
          deliver(
              EventKind.BLOCK_JOB,
              new Messages.BlockJob(Convert.wire(dom), path, type.number(), status.number()));
      case DomainEvent.BlockJob2(var dom, var target, var type, var status) ->
          deliver(
              EventKind.BLOCK_JOB_2,
              new Messages.BlockJob(Convert.wire(dom), target, type.number(), status.number()));
      case DomainEvent.Rebooted(var dom) ->
          deliver(EventKind.REBOOT, new Messages.Plain(Convert.wire(dom)));
      case DomainEvent.IoError(var dom, var path, var alias, var action, var noSpace) -> {
        int number = number(action);
        deliver(EventKind.IO_ERROR, new Messages.IoError(Convert.wire(dom), path, alias, number));
        deliver(
            EventKind.IO_ERROR_REASON,
            new Messages.IoErrorReason(
                Convert.wire(dom), path, alias, number, noSpace ? "enospc" : ""));
      }
      case DomainEvent.DiskChanged(var dom, var path, var alias, var reason) ->
          deliver(
              EventKind.DISK_CHANGE,
              new Messages.DiskChange(
                  Convert.wire(dom), Optional.of(path), Optional.empty(), alias, reason));
      case DomainEvent.TrayChanged(var dom, var alias, var reason) ->
          deliver(EventKind.TRAY_CHANGE, new Messages.TrayChange(Convert.wire(dom), alias, reason));
      case DomainEvent.DeviceRemoved(var dom, var alias) ->
          deliver(EventKind.DEVICE_REMOVED, new Messages.Device(Convert.wire(dom), alias));
      case DomainEvent.MetadataChanged(var dom, var type, var uri) ->
          deliver(
              EventKind.METADATA_CHANGE, new Messages.MetadataChange(Convert.wire(dom), type, uri));
      case DomainEvent.DeviceAdded(var dom, var alias) ->
          deliver(EventKind.DEVICE_ADDED, new Messages.Device(Convert.wire(dom), alias));
      case DomainEvent.Tunable(var dom, var params) ->
          deliver(EventKind.TUNABLE, new Messages.Tunable(Convert.wire(dom), Convert.wire(params)));
      case DomainEvent.BlockThreshold(var dom, var device, var path, var threshold, var excess) ->
          deliver(
              EventKind.BLOCK_THRESHOLD,
              new Messages.BlockThreshold(
                  Convert.wire(dom), device, Optional.of(path), threshold, excess));
      case DomainEvent.JobCompleted(var dom, var params) ->
          deliver(
              EventKind.JOB_COMPLETED,
              new Messages.JobCompleted(Convert.wire(dom), Convert.wire(params)));
    }
  }

  private static int number(RequestFailure.Action action) {
    return switch (action) { // virDomainEventIOErrorAction
      case IGNORED -> 0;
      case HELD -> 1;
      case REPORTED -> 2;
    };
  }

  private <M extends Record & Messages.About> void deliver(EventKind kind, M message) {
    for (Client client : all) {
      client.deliver(kind, message);
    }
  }
}
