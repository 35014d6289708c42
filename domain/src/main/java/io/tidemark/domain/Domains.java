// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DomainDriver;
import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import io.tidemark.domain.spi.StateStore;
import java.io.IOException;
import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.Function;
import java.util.stream.Collectors;

/// All domains of a daemon. Safe for any thread.
///
/// Texts and numbers of what is thrown are libvirt's. Spec: libvirt 9.0.0, `virDomain*`.
///
/// Locks: the registry's, which keeps two definitions of one name apart, is taken before a
/// domain's, never after.
public final class Domains {
  private static final System.Logger LOG = System.getLogger(Domains.class.getName());

  /// Most domains of one daemon, running or not.
  static final int MAX_DOMAINS = 10_000;

  private final ReentrantLock naming = new ReentrantLock();
  private final Map<String, Domain> byName = new ConcurrentHashMap<>();
  private final Map<UUID, Domain> byUuid = new ConcurrentHashMap<>();
  private final List<DomainEventListener> listeners = new CopyOnWriteArrayList<>();
  private final AtomicInteger lastId = new AtomicInteger();
  private final DomainContext context;

  /// @param drivers one for each domain type that is served
  public Domains(
      StateStore state, ImageService images, List<DomainDriver> drivers, Environment environment) {
    context =
        new DomainContext(
            state,
            images,
            new Chains(images, environment),
            environment,
            drivers.stream()
                .collect(
                    Collectors.toUnmodifiableMap(DomainDriver::domainType, Function.identity())),
            this::send,
            lastId::incrementAndGet,
            this::forget);
  }

  private void send(DomainEvent event) {
    for (DomainEventListener listener : listeners) {
      try {
        listener.happened(event);
      } catch (RuntimeException e) {
        LOG.log(Level.ERROR, "listener failed on " + event, e);
      }
    }
  }

  private void forget(DomainLife gone) {
    byName.computeIfPresent(gone.name(), (_, domain) -> domain.life() == gone ? null : domain);
    byUuid.computeIfPresent(gone.uuid(), (_, domain) -> domain.life() == gone ? null : domain);
  }

  /// Registers for events of every domain, [#restore] included when called before it.
  public void addListener(DomainEventListener listener) {
    listeners.add(listener);
  }

  public void removeListener(DomainEventListener listener) {
    listeners.remove(listener);
  }

  /// Reads the state store and takes up what ran when the last daemon ended. Called once, before
  /// clients are served. A domain that cannot be taken up or understood is logged; only a store
  /// that cannot be read is an error.
  public void restore() throws LibvirtException {
    List<StateStore.Document> lives;
    try {
      Map<String, StoredDefinition> definitions = readDefinitions();
      finishRenamings(definitions);
      definitions.forEach(this::restoreDefinition);
      lives = context.state().all(StateStore.Kind.LIVE);
      List<Live> readable = new ArrayList<>();
      for (StateStore.Document document : lives) {
        readLive(document).ifPresent(readable::add);
      }
      for (StateStore.Document document : context.state().all(StateStore.Kind.CHECKPOINT)) {
        restoreCheckpoint(document);
      }
      for (StateStore.Document document : context.state().all(StateStore.Kind.SNAPSHOT)) {
        restoreSnapshot(document);
      }
      byName.values().forEach(domain -> restoration(domain).settleSnapshots());
      for (Live live : readable) {
        Domain domain = byName.get(live.definition().name());
        if (domain != null) {
          restoration(domain).running(live);
        }
      }
    } catch (IOException e) {
      throw new LibvirtException(
          ErrorCode.INTERNAL_ERROR,
          ErrorDomain.DOMAIN,
          "internal error: unable to read the state: " + e.getMessage(),
          e);
    }
  }

  /// By their keys, in the store's order.
  private Map<String, StoredDefinition> readDefinitions() throws IOException {
    Map<String, StoredDefinition> definitions = new LinkedHashMap<>();
    for (StateStore.Document document : context.state().all(StateStore.Kind.DEFINITION)) {
      try {
        definitions.put(document.key(), StoredDefinition.read(document.xml()));
      } catch (LibvirtException e) {
        leaveAlone(document.key(), e);
      }
    }
    return definitions;
  }

  private static void leaveAlone(String key, LibvirtException why) {
    LOG.log(Level.ERROR, "definition of domain " + key + " is left alone", why);
  }

  /// Removes what a domain left under its old name when the daemon ended while it was renamed, also
  /// from `all`.
  private void finishRenamings(Map<String, StoredDefinition> all) throws IOException {
    for (StoredDefinition stored : List.copyOf(all.values())) {
      String from = stored.renamedFrom().orElse("");
      StoredDefinition old = all.get(from);
      if (old != null && old.definition().uuid().equals(stored.definition().uuid())) {
        new Renaming(context.state(), from, stored.definition().name()).removeOld();
        all.remove(from);
      }
    }
  }

  private Restoration restoration(Domain domain) {
    return new Restoration(domain.life(), context);
  }

  private void restoreDefinition(String key, StoredDefinition stored) {
    try {
      Definition definition = stored.definition();
      Domain domain = add(definition.name(), definition.uuid());
      restoration(domain).definition(stored);
    } catch (LibvirtException e) {
      leaveAlone(key, e);
    }
  }

  private Domain add(String name, UUID uuid) throws LibvirtException {
    if (byName.containsKey(name) || byUuid.containsKey(uuid)) {
      throw ErrorCode.OPERATION_FAILED.in(
          ErrorDomain.DOMAIN, "domain '%s' or uuid %s is there twice".formatted(name, uuid));
    }
    if (byName.size() >= MAX_DOMAINS) {
      throw ErrorCode.OPERATION_FAILED.in(
          ErrorDomain.DOMAIN, "there are %d domains, which is the limit".formatted(MAX_DOMAINS));
    }
    Domain domain = new Domain(context, name, uuid);
    byName.put(name, domain);
    byUuid.put(uuid, domain);
    return domain;
  }

  private Optional<Live> readLive(StateStore.Document document) {
    try {
      Live live = LiveRecord.read(document.xml());
      lastId.accumulateAndGet(live.id(), Math::max);
      Definition definition = live.definition();
      if (byName.get(definition.name()) == null) {
        add(definition.name(), definition.uuid());
      } else if (!byName.get(definition.name()).uuid().equals(definition.uuid())) {
        LOG.log(Level.ERROR, "live record of {0} is of another uuid, left alone", document.key());
        return Optional.empty();
      }
      return Optional.of(live);
    } catch (LiveRecord.NewerVersionException e) {
      block(document.key(), e);
    } catch (LibvirtException e) {
      LOG.log(Level.ERROR, "live record of domain " + document.key() + " is left alone", e);
      blockName(document.key(), "its live record cannot be read: " + e.getMessage());
    }
    return Optional.empty();
  }

  /// A domain whose record only a later program understands is shown and cannot be started.
  private void block(String name, LiveRecord.NewerVersionException newer) {
    LOG.log(Level.ERROR, "domain " + name + ": " + newer.getMessage());
    if (byName.get(name) == null) {
      try {
        add(name, Uuids.parse(newer.uuid()).orElseGet(context.environment().uuids()));
      } catch (LibvirtException e) {
        LOG.log(Level.ERROR, "domain " + name + " cannot be shown", e);
        return;
      }
    }
    blockName(name, "%s; start it with the program that wrote it".formatted(newer.getMessage()));
  }

  private void blockName(String name, String why) {
    Domain domain = byName.get(name);
    if (domain != null) {
      domain.life().block("domain '%s' is held by a daemon's state: %s".formatted(name, why));
    }
  }

  private void restoreSnapshot(StateStore.Document document) throws IOException {
    Optional<Domain> domain = ownerOf(StateStore.Kind.SNAPSHOT, document);
    if (domain.isPresent()) {
      restoreSnapshot(domain.get(), document);
    }
  }

  private void restoreSnapshot(Domain domain, StateStore.Document document) {
    try {
      restoration(domain).snapshot(SnapshotDocument.Stored.read(document.xml()));
    } catch (LibvirtException e) {
      LOG.log(Level.ERROR, "snapshot " + document.key() + " is left alone", e);
    }
  }

  /// The domain of a document `domain/name`. When its domain was transient and ended with the host,
  /// the document goes too.
  private Optional<Domain> ownerOf(StateStore.Kind kind, StateStore.Document document)
      throws IOException {
    int slash = document.key().indexOf('/');
    Domain domain = slash < 0 ? null : byName.get(document.key().substring(0, slash));
    if (domain == null) {
      context.state().remove(kind, document.key());
    }
    return Optional.ofNullable(domain);
  }

  private void restoreCheckpoint(StateStore.Document document) throws IOException {
    Optional<Domain> domain = ownerOf(StateStore.Kind.CHECKPOINT, document);
    if (domain.isPresent()) {
      restoreCheckpoint(domain.get(), document);
    }
  }

  private void restoreCheckpoint(Domain domain, StateStore.Document document) {
    try {
      restoration(domain).checkpoint(CheckpointDocument.ofStored(document.xml()));
    } catch (LibvirtException e) {
      LOG.log(Level.ERROR, "checkpoint " + document.key() + " is left alone", e);
    }
  }

  /// Starts what is marked for autostart and does not run. Called by the first daemon of a boot,
  /// after [#restore]: what was stopped since stays stopped when the daemon restarts. A domain that
  /// cannot be started is logged.
  public void autostart() {
    for (Domain domain : byName.values()) {
      try {
        if (domain.autostart() && !domain.isActive()) {
          domain.create(0, this);
        }
      } catch (LibvirtException e) {
        LOG.log(Level.ERROR, "domain " + domain.name() + " is not started", e);
      }
    }
  }

  /// Lets go of every running domain for a restart of the daemon; their records stay.
  public void shutdown() {
    byName.values().forEach(domain -> domain.life().detach());
  }

  /// virDomainDefineXMLFlags.
  public Domain defineXml(String xml, int flags) throws LibvirtException {
    Flags.check(flags, Flags.DEFINE_VALIDATE, "qemuDomainDefineXMLFlags");
    Definition definition = parse(xml, Flags.has(flags, Flags.DEFINE_VALIDATE));
    check(definition);
    while (true) {
      Domain domain = claim(definition);
      try {
        domain.life().persistence().define(definition);
        return domain;
      } catch (LibvirtException e) {
        if (!domain.life().isGone() || e.code() != ErrorCode.NO_DOMAIN) {
          throw e;
        }
        // It ended between the two: there is room for a new one.
      }
    }
  }

  private Definition parse(String xml, boolean validate) throws LibvirtException {
    if (validate) {
      Definition.validate(xml);
    }
    return Definition.parse(xml, context.drivers().keySet(), context.environment().uuids());
  }

  private void check(Definition definition) throws LibvirtException {
    DomainDriver driver = context.drivers().get(definition.type());
    if (driver == null) {
      throw new IllegalStateException("type was checked: " + definition.type());
    }
    try {
      driver.check(Launch.sketch(definition));
    } catch (DriverException e) {
      throw new LibvirtException(
          ErrorCode.CONFIG_UNSUPPORTED,
          ErrorDomain.HYPERVISOR,
          "unsupported configuration: " + e.getMessage(),
          e);
    }
  }

  /// The domain of that name and uuid, made when there is none; refuses one that has either of
  /// another.
  private Domain claim(Definition definition) throws LibvirtException {
    naming.lock();
    try {
      String name = definition.name();
      UUID uuid = definition.uuid();
      Domain same = byUuid.get(uuid);
      if (same != null && !same.name().equals(name)) {
        throw ErrorCode.OPERATION_FAILED.in(
            ErrorDomain.DOMAIN,
            "domain '%s' is already defined with uuid %s".formatted(same.name(), uuid));
      }
      Domain named = byName.get(name);
      if (named != null && !named.uuid().equals(uuid)) {
        throw ErrorCode.OPERATION_FAILED.in(
            ErrorDomain.DOMAIN,
            "domain '%s' already exists with uuid %s".formatted(name, named.uuid()));
      }
      return named != null ? named : add(name, uuid);
    } finally {
      naming.unlock();
    }
  }

  /// virDomainRename. A call that comes meanwhile may find the domain gone, until it asks anew.
  public void rename(Domain domain, Optional<String> newName, int flags) throws LibvirtException {
    Flags.check(flags, 0, "qemuDomainRename");
    String name = newName.orElse("");
    if (name.isEmpty()) {
      throw new LibvirtException(
          ErrorCode.INVALID_ARG,
          ErrorDomain.DOMAIN,
          "string new_name in virDomainRename must not be empty");
    }
    if (name.contains("/")) {
      throw ErrorCode.XML_ERROR.because("name %s cannot contain '/'".formatted(name));
    }
    Definition.checkName(name);
    naming.lock();
    try {
      if (domain.isActive()) {
        throw ErrorCode.OPERATION_INVALID.because("cannot rename active domain");
      }
      if (name.equals(domain.name())) {
        throw ErrorCode.OPERATION_INVALID.in(ErrorDomain.DOMAIN, "Can't rename domain to itself");
      }
      if (byName.containsKey(name)) {
        throw ErrorCode.OPERATION_INVALID.in(
            ErrorDomain.DOMAIN, "domain with name '%s' already exists".formatted(name));
      }
      var renaming = new Renaming(context.state(), domain.name(), name);
      StoredDefinition stored =
          domain.life().locked(() -> domain.life().persistence().renamed(renaming));
      Domain renamed = new Domain(context, name, domain.uuid());
      restore(renamed, stored);
      byName.remove(domain.name());
      byName.put(name, renamed);
      byUuid.put(domain.uuid(), renamed);
      renamed.life().settle(() -> renamed.life().lifecycle(Lifecycle.DEFINED_RENAMED));
    } finally {
      naming.unlock();
    }
  }

  /// All that the store holds of one domain.
  private void restore(Domain domain, StoredDefinition stored) {
    restoration(domain).definition(stored);
    try {
      for (StateStore.Document document : documentsOf(StateStore.Kind.CHECKPOINT, domain)) {
        restoreCheckpoint(domain, document);
      }
      for (StateStore.Document document : documentsOf(StateStore.Kind.SNAPSHOT, domain)) {
        restoreSnapshot(domain, document);
      }
    } catch (IOException e) {
      LOG.log(Level.ERROR, domain.name() + ": its checkpoints and snapshots are not read", e);
    }
    restoration(domain).settleSnapshots();
  }

  private List<StateStore.Document> documentsOf(StateStore.Kind kind, Domain domain)
      throws IOException {
    return context.state().all(kind).stream()
        .filter(document -> document.key().startsWith(domain.name() + "/"))
        .toList();
  }

  /// virDomainCreateXML.
  ///
  /// @param connection identity of the client for `START_AUTODESTROY`, see [#connectionClosed]
  public Domain createXml(String xml, int flags, Object connection) throws LibvirtException {
    Flags.check(
        flags,
        Flags.START_PAUSED
            | Flags.START_AUTODESTROY
            | Flags.START_VALIDATE
            | Flags.START_RESET_NVRAM,
        "qemuDomainCreateXML");
    Definition definition = parse(xml, Flags.has(flags, Flags.START_VALIDATE));
    while (true) {
      Domain domain = claim(definition);
      try {
        domain.life().createFrom(definition, flags, connection);
        return domain;
      } catch (LibvirtException e) {
        if (e.code() != ErrorCode.NO_DOMAIN) {
          throw e;
        }
        // It ended between the two: there is room for a new one.
      }
    }
  }

  /// Destroys the domains that were started with `START_AUTODESTROY` by this connection.
  public void connectionClosed(Object connection) {
    byName.values().forEach(domain -> domain.life().connectionClosed(connection));
  }

  public Domain lookupByName(String name) throws LibvirtException {
    return found(
        Optional.ofNullable(byName.get(name)), "no domain with matching name '%s'".formatted(name));
  }

  public Domain lookupByUuid(UUID uuid) throws LibvirtException {
    return found(
        Optional.ofNullable(byUuid.get(uuid)), "no domain with matching uuid '%s'".formatted(uuid));
  }

  public Domain lookupById(int id) throws LibvirtException {
    return found(
        byName.values().stream().filter(domain -> id > 0 && domain.id() == id).findFirst(),
        "no domain with matching id " + id);
  }

  /// The domain that a call names, as libvirt finds it: by uuid, the name is for the error text.
  public Domain resolve(DomainRef ref) throws LibvirtException {
    return found(
        Optional.ofNullable(byUuid.get(ref.uuid())),
        "no domain with matching uuid '%s' (%s)".formatted(ref.uuid(), ref.name()));
  }

  private static Domain found(Optional<Domain> domain, String otherwise) throws LibvirtException {
    return domain.orElseThrow(() -> ErrorCode.NO_DOMAIN.because(otherwise));
  }

  /// virConnectListAllDomains, in order of name.
  public List<Domain> list(int flags) throws LibvirtException {
    Flags.check(flags, 0xffff, "qemuConnectListAllDomains");
    List<Domain> listed = new ArrayList<>();
    for (Domain domain : byName.values()) {
      try {
        if (matches(domain, flags)) {
          listed.add(domain);
        }
      } catch (LibvirtException e) {
        if (e.code() != ErrorCode.NO_DOMAIN) {
          throw e;
        }
        // It ended meanwhile.
      }
    }
    listed.sort(Comparator.comparing(Domain::name));
    return listed;
  }

  /// The domains that virConnectGetAllDomainStats or virDomainListGetStats speak of.
  ///
  /// @param asked those that the client names, or none for all; one that is gone is left out
  /// @param types virDomainStatsTypes
  public List<Domain> listForStats(List<DomainRef> asked, int types, int flags)
      throws LibvirtException {
    Flags.check(
        flags,
        Flags.STATS_LIST | Flags.STATS_NOWAIT | Flags.STATS_BACKING | Flags.STATS_ENFORCE,
        "qemuConnectGetAllDomainStats");
    int unknown = types & ~Flags.STATS_ALL;
    if (Flags.has(flags, Flags.STATS_ENFORCE) && unknown != 0) {
      throw ErrorCode.ARGUMENT_UNSUPPORTED.because(
          "Stats types bits 0x%x are not supported by this daemon".formatted(unknown));
    }
    List<Domain> matching = list(flags & Flags.STATS_LIST);
    if (asked.isEmpty()) {
      return matching;
    }
    List<Domain> chosen = new ArrayList<>();
    for (DomainRef ref : asked) {
      matching.stream().filter(domain -> domain.uuid().equals(ref.uuid())).forEach(chosen::add);
    }
    return chosen;
  }

  private static boolean matches(Domain domain, int flags) throws LibvirtException {
    DomainState state = domain.state();
    boolean shutoff = !state.isRunning() && !state.isPaused();
    boolean checkpoints = !domain.checkpoints(0).isEmpty();
    boolean snapshots = !domain.snapshots().list(0).isEmpty();
    return either(flags, Flags.LIST_ACTIVE, domain.isActive(), Flags.LIST_INACTIVE)
        && either(flags, Flags.LIST_PERSISTENT, domain.isPersistent(), Flags.LIST_TRANSIENT)
        && stateMatches(flags, state, shutoff)
        && either(flags, Flags.LIST_MANAGEDSAVE, false, Flags.LIST_NO_MANAGEDSAVE)
        && either(flags, Flags.LIST_AUTOSTART, domain.autostart(), Flags.LIST_NO_AUTOSTART)
        && either(flags, Flags.LIST_HAS_SNAPSHOT, snapshots, Flags.LIST_NO_SNAPSHOT)
        && either(flags, Flags.LIST_HAS_CHECKPOINT, checkpoints, Flags.LIST_NO_CHECKPOINT);
  }

  private static boolean stateMatches(int flags, DomainState state, boolean shutoff) {
    int group = Flags.LIST_RUNNING | Flags.LIST_PAUSED | Flags.LIST_SHUTOFF | Flags.LIST_OTHER;
    return (flags & group) == 0
        || (Flags.has(flags, Flags.LIST_RUNNING) && state.isRunning())
        || (Flags.has(flags, Flags.LIST_PAUSED) && state.isPaused())
        || (Flags.has(flags, Flags.LIST_SHUTOFF) && shutoff);
  }

  /// A pair of filters: neither given, all match; else one that holds.
  private static boolean either(int flags, int yes, boolean holds, int no) {
    return (flags & (yes | no)) == 0 || Flags.has(flags, holds ? yes : no);
  }

  /// virConnectGetMaxVcpus: a definition may speak of as many.
  ///
  /// @param type of domains
  public int maxVcpus(Optional<String> type) throws LibvirtException {
    return new DomainCapabilities(context.drivers().keySet()).maxVcpus(type);
  }

  /// virConnectGetDomainCapabilities.
  public String domainCapabilities(
      Optional<String> emulator,
      Optional<String> arch,
      Optional<String> machine,
      Optional<String> type,
      int flags)
      throws LibvirtException {
    Flags.check(flags, 0, "qemuConnectGetDomainCapabilities");
    return new DomainCapabilities(context.drivers().keySet())
        .document(emulator, arch, machine, type);
  }

  /// virConnectGetCapabilities.
  public String capabilities() {
    XmlElement root = new XmlElement("capabilities");
    String arch = architecture();
    root.add("host").add("cpu").add("arch", arch);
    XmlElement guest = root.add("guest");
    guest.add("os_type", "hvm");
    XmlElement guestArch = guest.add("arch").attribute("name", arch);
    guestArch.add("wordsize", "64");
    context.drivers().keySet().stream()
        .sorted()
        .forEach(type -> guestArch.add("domain").attribute("type", type));
    guest.add("features").add("disksnapshot").attribute("default", "on").attribute("toggle", "no");
    return Xml.write(root);
  }

  static String architecture() {
    String name = System.getProperty("os.arch", "");
    return name.equals("amd64") ? "x86_64" : name;
  }
}
