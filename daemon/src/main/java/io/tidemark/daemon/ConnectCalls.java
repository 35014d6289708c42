// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import io.tidemark.domain.Domains;
import io.tidemark.domain.ErrorCode;
import io.tidemark.domain.ErrorDomain;
import io.tidemark.rpc.CallTable;
import io.tidemark.rpc.Calls;
import io.tidemark.rpc.Calls.Nothing;
import io.tidemark.rpc.EventKind;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.Replies;
import io.tidemark.rpc.RpcException;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;

/// Calls about the connection, the host and the registration of events.
final class ConnectCalls {
  private static final int AUTH_NONE = 0;
  private static final int OPEN_READ_ONLY = 1;
  private static final int FEATURE_KEEPALIVE = 10;

  /// What a client can build on: string parameters, keepalive, event callbacks, close callbacks;
  /// and that migration is asked of this side with parameters, so that the refusal is ours. No
  /// passing of descriptors.
  private static final Set<Integer> FEATURES = Set.of(4, 9, FEATURE_KEEPALIVE, 13, 14, 15);

  /// virVersion of the library whose calls and texts these are. Clients choose features by it.
  private static final long LIBRARY_VERSION = 9_000_000;

  /// What the clients' own drivers call the hypervisor.
  private static final String TYPE = "Tidemark";

  private static final String DEFAULT_NAME = "qemu:///system";
  private static final Set<String> NAMES =
      Set.of("", DEFAULT_NAME, "qemu:///session", "tidemark:///system", "tidemark:///session");

  private final Domains domains;
  private final HostInfo host;
  private final long version;
  private final AtomicInteger callbackIds = new AtomicInteger();

  ConnectCalls(Domains domains, HostInfo host, long version) {
    this.domains = domains;
    this.host = host;
    this.version = version;
  }

  void addTo(CallTable<Client> table) {
    table
        .inOrder(Remote.AUTH_LIST, (client, _) -> authenticate(client))
        .inOrder(Remote.CONNECT_OPEN, ConnectCalls::open)
        .inOrder(Remote.CONNECT_CLOSE, (client, _) -> close(client))
        .inOrder(Remote.CONNECT_SUPPORTS_FEATURE, (client, call) -> feature(client, call.feature()))
        .inOrder(
            Remote.CONNECT_GET_URI,
            (client, _) ->
                new Replies.Text(
                    client.name().filter(name -> !name.isEmpty()).orElse(DEFAULT_NAME)))
        .on(Remote.CONNECT_GET_TYPE, (_, _) -> new Replies.Text(TYPE))
        .on(Remote.CONNECT_GET_VERSION, (_, _) -> new Replies.Hyper(version))
        .on(Remote.CONNECT_GET_LIB_VERSION, (_, _) -> new Replies.Hyper(LIBRARY_VERSION))
        // A unix socket of this machine: nobody listens in.
        .on(Remote.CONNECT_IS_SECURE, (_, _) -> new Replies.Int(1))
        .on(Remote.CONNECT_GET_HOSTNAME, (_, _) -> new Replies.Text(host.hostname()))
        .on(Remote.NODE_GET_INFO, (_, _) -> host.node())
        .on(Remote.CONNECT_GET_CAPABILITIES, (_, _) -> new Replies.Text(domains.capabilities()));
    addEventsTo(table);
  }

  private static Replies.AuthTypes authenticate(Client client) {
    client.authenticate();
    return new Replies.AuthTypes(List.of(AUTH_NONE));
  }

  private static Nothing open(Client client, Calls.Open call) throws RpcException {
    if (client.name().isPresent()) {
      throw RpcException.connection("connection already open");
    }
    if ((call.flags() & ~OPEN_READ_ONLY) != 0) {
      throw Failures.error(
          ErrorCode.INVALID_ARG,
          ErrorDomain.NONE,
          "unsupported flags (0x"
              + Integer.toHexString(call.flags() & ~OPEN_READ_ONLY)
              + ") in function virConnectOpen");
    }
    String given = call.name().orElse("");
    // Clients pass on what they do not know of a URI's parameters.
    String name = given.contains("?") ? given.substring(0, given.indexOf('?')) : given;
    if (!NAMES.contains(name)) {
      throw Failures.error(
          ErrorCode.NO_CONNECT, ErrorDomain.NONE, "no connection driver available for " + given);
    }
    client.open(name, (call.flags() & OPEN_READ_ONLY) != 0);
    return new Nothing();
  }

  private static Nothing close(Client client) {
    client.shut();
    return new Nothing();
  }

  private static Replies.Int feature(Client client, int feature) throws RpcException {
    if (feature == FEATURE_KEEPALIVE) {
      client.connection().keepAlive();
    } else if (client.name().isEmpty()) {
      throw RpcException.connection("hypervisor connection not open");
    }
    return new Replies.Int(FEATURES.contains(feature) ? 1 : 0);
  }

  // ---- events

  private void addEventsTo(CallTable<Client> table) {
    table
        .inOrder(
            Remote.CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
            (client, call) -> {
              EventKind kind = kind(call.eventId());
              int id = callbackIds.incrementAndGet();
              client.register(id, kind, call.dom().map(dom -> dom.uuid()));
              return new Replies.Int(id);
            })
        .inOrder(
            Remote.CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY,
            (client, call) -> {
              client.deregister(call.callbackId());
              return new Nothing();
            })
        .inOrder(
            Remote.CONNECT_DOMAIN_EVENT_REGISTER_ANY,
            (client, call) -> {
              client.registerOld(oldKind(call.id()));
              return new Nothing();
            })
        .inOrder(
            Remote.CONNECT_DOMAIN_EVENT_DEREGISTER_ANY,
            (client, call) -> {
              client.deregisterOld(oldKind(call.id()));
              return new Nothing();
            })
        .inOrder(
            Remote.CONNECT_DOMAIN_EVENT_REGISTER,
            (client, _) -> {
              client.registerOld(EventKind.LIFECYCLE);
              return new Replies.Int(1);
            })
        .inOrder(
            Remote.CONNECT_DOMAIN_EVENT_DEREGISTER,
            (client, _) -> {
              client.deregisterOld(EventKind.LIFECYCLE);
              return new Replies.Int(0);
            })
        .inOrder(Remote.CONNECT_REGISTER_CLOSE_CALLBACK, (client, _) -> closeCallback(client, true))
        .inOrder(
            Remote.CONNECT_UNREGISTER_CLOSE_CALLBACK, (client, _) -> closeCallback(client, false));
  }

  private static EventKind kind(int eventId) throws RpcException {
    Optional<EventKind> kind = EventKind.of(eventId);
    if (kind.isEmpty()) {
      throw RpcException.connection("unsupported event ID " + eventId);
    }
    return kind.get();
  }

  private static EventKind oldKind(int eventId) throws RpcException {
    EventKind kind = kind(eventId);
    if (!kind.old()) {
      throw RpcException.connection("unsupported event ID " + eventId);
    }
    return kind;
  }

  /// Kept for form: the engine is in this process, so that its connection never closes before the
  /// client's.
  private static Nothing closeCallback(Client client, boolean register) throws RpcException {
    if (client.closeCallback() == register) {
      throw Failures.error(
          ErrorCode.OPERATION_INVALID,
          ErrorDomain.NONE,
          "Requested operation is not valid: "
              + (register
                  ? "A close callback is already registered"
                  : "A different callback was requested"));
    }
    client.closeCallback(register);
    return new Nothing();
  }
}
