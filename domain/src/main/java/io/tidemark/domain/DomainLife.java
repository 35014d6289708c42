// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.RequestFailure;
import java.lang.System.Logger.Level;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;
import org.jspecify.annotations.Nullable;

/// The state of one domain and its way through start, run, end and restart of the daemon. Its
/// definition, which outlives all that, is [Persistence]'s.
///
/// A domain exists while it runs or has a persistent definition (or was found [blocked][#block]):
/// what takes the last of the two away ends with [#goIfNothingIsLeft], and every verb is refused
/// from there on.
///
/// One lock guards all of it. It is held over calls to the driver and the state store, never while
/// waiting for a job: such waits are on its condition, and what the driver tells comes to a thread
/// of its own ([JobWatch]) that takes the lock. Unless said otherwise a method is called with the
/// lock held, that is, from within [#locked].
final class DomainLife {
  private static final System.Logger LOG = System.getLogger(DomainLife.class.getName());

  private final ReentrantLock lock = new ReentrantLock();
  private final Condition changed = lock.newCondition();
  private final DomainContext context;
  private final String name;
  private final UUID uuid;
  private final Upkeep upkeep;
  private final TransientDisks transients;
  private final Checkpoints checkpoints;
  private final BlockJobs jobs;
  private final BlockCopies copies;
  private final ChainJobs chainJobs;
  private final Backups backups;
  private final JobRounds rounds;
  private final StoredState stored;
  private final Persistence persistence;
  private final Snapshots snapshots;
  // Null while it does not run. Volatile for id(), which does not take the lock.
  private volatile @Nullable Session session;
  // Null unless the live record cannot be used: why it cannot be started.
  private @Nullable String blocked;
  private boolean gone;
  private DomainState offState = DomainState.SHUTOFF_UNKNOWN;
  private JobStats completed = JobStats.NONE;

  DomainLife(DomainContext context, String name, UUID uuid) {
    this.context = context;
    this.name = name;
    this.uuid = uuid;
    upkeep = new Upkeep(context, name);
    transients = new TransientDisks(context, upkeep);
    stored = new StoredState(context, name);
    persistence = new Persistence(this);
    snapshots = new Snapshots(this, context);
    checkpoints = new Checkpoints(this, context);
    jobs = new BlockJobs(this, context);
    copies = new BlockCopies(this, context);
    chainJobs = new ChainJobs(this, context);
    backups = new Backups(this, context, checkpoints);
    rounds = new JobRounds(this, jobs, backups);
  }

  String name() {
    return name;
  }

  UUID uuid() {
    return uuid;
  }

  Upkeep upkeep() {
    return upkeep;
  }

  TransientDisks transients() {
    return transients;
  }

  StoredState stored() {
    return stored;
  }

  Persistence persistence() {
    return persistence;
  }

  Checkpoints checkpoints() {
    return checkpoints;
  }

  BlockJobs jobs() {
    return jobs;
  }

  Snapshots snapshots() {
    return snapshots;
  }

  BlockCopies copies() {
    return copies;
  }

  ChainJobs chainJobs() {
    return chainJobs;
  }

  Backups backups() {
    return backups;
  }

  /// Positive while it runs, else -1. Any thread, without the lock, so that a domain that is busy
  /// holds up no look-up of another.
  int id() {
    Session running = session;
    return running == null ? -1 : running.live().id();
  }

  /// Any thread, without the lock.
  DomainRef ref() {
    return new DomainRef(name, uuid, id());
  }

  /// A verb's body.
  @FunctionalInterface
  interface Body<T> {
    T run() throws LibvirtException;
  }

  /// Runs a verb with the lock; a domain that is gone refuses it.
  <T> T locked(Body<T> body) throws LibvirtException {
    lock.lock();
    try {
      if (gone) {
        throw notFound();
      }
      return body.run();
    } finally {
      lock.unlock();
    }
  }

  /// A verb without an answer.
  @FunctionalInterface
  interface Verb {
    void run() throws LibvirtException;
  }

  /// As [#locked].
  void run(Verb verb) throws LibvirtException {
    boolean ignored =
        locked(() -> {
          verb.run();
          return true;
        });
    assert ignored;
  }

  /// Starts the persistent definition.
  void create(int flags, Object connection) throws LibvirtException {
    if (session != null) {
      throw ErrorCode.OPERATION_INVALID.because("domain is already running");
    }
    Definition definition = stored.definition();
    if (definition == null) {
      throw notFound();
    }
    start(definition.copy(), flags, connection, Told.BOOTED);
  }

  /// Starts with a definition of its own, the persistent one stays: virDomainCreateXML. Takes the
  /// lock.
  void createFrom(Definition definition, int flags, Object connection) throws LibvirtException {
    lock.lock();
    try {
      if (gone) {
        throw notFound();
      }
      if (session != null) {
        throw ErrorCode.OPERATION_INVALID.in(
            ErrorDomain.DOMAIN, "domain '%s' is already active".formatted(name));
      }
      try {
        start(definition, flags, connection, Told.BOOTED);
      } finally {
        goIfNothingIsLeft();
      }
    } finally {
      lock.unlock();
    }
  }

  /// What clients are told of a start.
  private enum Told {
    BOOTED,
    FROM_SNAPSHOT,
    NOTHING
  }

  private void start(Definition definition, int flags, Object connection, Told told)
      throws LibvirtException {
    refuseIfBlocked();
    Launch launch = new Launch(context);
    Session started = launch.run(this, definition, flags, connection);
    completed = JobStats.NONE;
    takeUp(started);
    if (told != Told.NOTHING) {
      for (Launch.Missing missing : launch.missing()) {
        event(DomainEvent.DiskChanged.of(ref(), missing));
      }
    }
    started.watch().start(name, () -> look(started.watch()));
    boolean paused = Flags.has(flags, Flags.START_PAUSED);
    switch (told) {
      case BOOTED -> {
        lifecycle(paused ? Lifecycle.STARTED_BOOTED : Lifecycle.RESUMED_UNPAUSED);
        lifecycle(paused ? Lifecycle.SUSPENDED_PAUSED : Lifecycle.STARTED_BOOTED);
      }
      case FROM_SNAPSHOT -> {
        lifecycle(Lifecycle.STARTED_FROM_SNAPSHOT);
        if (paused) {
          lifecycle(Lifecycle.SUSPENDED_FROM_SNAPSHOT);
        }
      }
      case NOTHING -> {}
    }
  }

  /// It runs from here on. Its watch is started by the caller when all is settled.
  private void takeUp(Session running) {
    session = running;
    TuneVerbs.applyAll(name, running);
  }

  /// Goes on with what ran when the last daemon ended.
  void goOn(Session taken) {
    takeUp(taken);
    rounds.recover(taken);
    taken.watch().start(name, () -> look(taken.watch()));
  }

  /// Opens the images of the domain shut off for a job on them: started paused, with no word to
  /// clients. Until [#endUntold] it is shown as running; a restart of the daemon ends it.
  Session startUntold() throws LibvirtException {
    Definition definition = persistentDefinition().orElseThrow(this::notFound);
    start(definition.copy(), Flags.START_PAUSED | Flags.START_AUTODESTROY, this, Told.NOTHING);
    return requireActive();
  }

  /// Shuts off again what [#startUntold] started, unless someone else has.
  void endUntold(Session started) {
    if (isCurrent(started)) {
      end(DomainState.SHUTOFF_SHUTDOWN, Optional.empty(), null);
    }
  }

  void destroy() throws LibvirtException {
    requireActive();
    end(DomainState.SHUTOFF_DESTROYED, Lifecycle.STOPPED_DESTROYED, null);
  }

  void shutdown() throws LibvirtException {
    if (session == null) {
      throw ErrorCode.OPERATION_INVALID.because("domain is not running");
    }
    lifecycle(Lifecycle.SHUTDOWN_FINISHED);
    end(DomainState.SHUTOFF_SHUTDOWN, Lifecycle.STOPPED_SHUTDOWN, null);
  }

  /// Ends it as a snapshot with HALT does.
  void halt() {
    end(DomainState.SHUTOFF_FROM_SNAPSHOT, Lifecycle.STOPPED_FROM_SNAPSHOT, null);
  }

  /// A revert put the images back: why it is shut off.
  void shutOffFromSnapshot() {
    offState = DomainState.SHUTOFF_FROM_SNAPSHOT;
  }

  /// Starts the persistent definition after a revert.
  void startFromSnapshot(boolean paused) throws LibvirtException {
    Definition definition = persistentDefinition().orElseThrow(this::notFound);
    start(definition.copy(), paused ? Flags.START_PAUSED : 0, this, Told.FROM_SNAPSHOT);
  }

  /// Runs what is not a client's verb, with the lock.
  void settle(Runnable body) {
    lock.lock();
    try {
      body.run();
    } finally {
      lock.unlock();
    }
  }

  /// Takes the lock.
  boolean isGone() {
    lock.lock();
    try {
      return gone;
    } finally {
      lock.unlock();
    }
  }

  /// The live record is of a later program: it is left alone, and so is the domain. Takes the lock.
  void block(String why) {
    lock.lock();
    try {
      blocked = why;
    } finally {
      lock.unlock();
    }
  }

  /// Lets go for a restart of the daemon; the record stays. Takes the lock.
  void detach() {
    lock.lock();
    try {
      Session running = session;
      if (running != null) {
        running.watch().close();
        try {
          running.driver().detach();
        } catch (DriverException e) {
          LOG.log(Level.ERROR, name + ": detach", e);
        }
        session = null;
        releaseWaiters(running);
      }
    } finally {
      lock.unlock();
    }
  }

  /// Takes the lock.
  void connectionClosed(Object connection) {
    lock.lock();
    try {
      Session running = session;
      if (running != null
          && running.owner().filter(owner -> owner.equals(connection)).isPresent()) {
        end(DomainState.SHUTOFF_DESTROYED, Lifecycle.STOPPED_DESTROYED, null);
      }
    } finally {
      lock.unlock();
    }
  }

  static LibvirtException notRunning() {
    return ErrorCode.OPERATION_INVALID.in(ErrorDomain.DOMAIN, "domain is not running");
  }

  Session requireActive() throws LibvirtException {
    Session running = session;
    if (running == null) {
      throw notRunning();
    }
    return running;
  }

  Optional<Session> runningSession() {
    return Optional.ofNullable(session);
  }

  Optional<Definition> persistentDefinition() {
    return Optional.ofNullable(stored.definition());
  }

  DomainState state() {
    Session running = session;
    return running == null ? offState : running.live().state();
  }

  void refuseIfBlocked() throws LibvirtException {
    if (blocked != null) {
      throw ErrorCode.OPERATION_INVALID.because(blocked);
    }
  }

  Optional<String> blockedBecause() {
    return Optional.ofNullable(blocked);
  }

  JobStats completed() {
    return completed;
  }

  void completed(JobStats stats) {
    completed = stats;
  }

  /// What it runs by, or would.
  Optional<Definition> definition() {
    return runningSession()
        .map(running -> running.live().definition())
        .or(this::persistentDefinition);
  }

  Condition changed() {
    return changed;
  }

  void signal() {
    changed.signalAll();
  }

  void event(DomainEvent event) {
    context.events().accept(event);
  }

  void lifecycle(Lifecycle change) {
    event(new DomainEvent.LifecycleChanged(ref(), change));
  }

  /// Told by path too, where the disk has one.
  void blockJobEvent(LiveDisk disk, BlockJobType type, BlockJobStatus status) {
    if (disk.active().storage().path().isPresent()) {
      event(new DomainEvent.BlockJob(ref(), disk.active().file(), type, status));
    }
    event(new DomainEvent.BlockJob2(ref(), disk.target(), type, status));
  }

  void blockJobEvent(String target, String path, BlockJobType type, BlockJobStatus status) {
    event(new DomainEvent.BlockJob(ref(), path, type, status));
    event(new DomainEvent.BlockJob2(ref(), target, type, status));
  }

  /// Ends a domain whose record cannot be trusted to say what its guest writes to.
  void stopForSafety(Session of, String why) {
    if (isCurrent(of)) {
      LOG.log(Level.ERROR, "{0}: stopped: {1}", name, why);
      end(DomainState.SHUTOFF_FAILED, Lifecycle.STOPPED_FAILED, why);
    }
  }

  private void look(JobWatch watch) {
    lock.lock();
    try {
      Session running = session;
      if (running == null || running.watch() != watch) {
        return;
      }
      Optional<String> stopped = watch.stopReason();
      if (stopped.isPresent()) {
        LOG.log(Level.ERROR, "{0}: ended by itself: {1}", name, stopped.get());
        end(DomainState.SHUTOFF_CRASHED, Lifecycle.STOPPED_FAILED, stopped.get());
      } else {
        for (Optional<JobWatch.Passed> passed = watch.nextPassed();
            passed.isPresent();
            passed = watch.nextPassed()) {
          TuneVerbs.passed(this, running, passed.get());
        }
        for (Optional<RequestFailure> failed = watch.nextFailed();
            failed.isPresent();
            failed = watch.nextFailed()) {
          DiskErrors.happened(this, running, failed.get());
        }
        observe(running);
      }
    } catch (RuntimeException | Error e) {
      LOG.log(Level.ERROR, name + ": looking after jobs", e);
    } finally {
      lock.unlock();
    }
  }

  /// Whether this run is the one that goes on.
  boolean isCurrent(Session of) {
    Session running = session;
    return running != null && running.watch() == of.watch();
  }

  /// Brings all jobs to where the driver says they are.
  void observe(Session running) {
    rounds.observe(running);
  }

  /// Stops a running domain. Its bitmaps are stored before its record goes.
  ///
  /// @param why reason of an end that nobody asked for
  private void end(DomainState off, Lifecycle change, @Nullable String why) {
    end(off, Optional.of(change), why);
  }

  private void end(DomainState off, Optional<Lifecycle> change, @Nullable String why) {
    Session running = session;
    if (running == null) {
      return;
    }
    running.watch().close();
    upkeep.stop(running);
    BackupJob backup = running.live().backup();
    if (backup != null) {
      backups.domainEnded(backup, why);
    }
    transients.remove(running.live());
    stored.pay();
    stored.removeLive();
    change.ifPresent(this::lifecycle); // with the id it had
    session = null;
    releaseWaiters(running);
    isOff(off);
  }

  /// It does not run, and nothing of a run is left but this. A transient domain is gone.
  private void isOff(DomainState off) {
    offState = off;
    if (stored.definition() == null) {
      snapshots.dropMetadata();
      checkpoints.dropMetadata();
    }
    goIfNothingIsLeft();
  }

  /// What ran when the last daemon ended is not taken up: only what it left is cleared.
  void dropLeft(Live live, DomainState off) {
    BackupJob backup = live.backup();
    if (backup != null) {
      backups.recover(backup);
    }
    transients.remove(live);
    stored.removeLive();
    isOff(off);
  }

  private void releaseWaiters(Session running) {
    for (LiveDisk disk : running.live().disks()) {
      BlockJob job = disk.job();
      if (job != null) {
        job.end(BlockJobStatus.CANCELED, "");
      }
    }
    running.live().backup(null);
    signal();
  }

  /// Ends a domain that neither runs nor is defined: nobody finds it any more.
  void goIfNothingIsLeft() {
    if (session == null && stored.definition() == null) {
      gone = true;
      context.forget().accept(this);
    }
  }

  /// Ends a domain whose place another one has taken, under another name.
  void goFor() {
    gone = true;
  }

  private LibvirtException notFound() {
    return ErrorCode.NO_DOMAIN.because(
        "no domain with matching uuid '%s' (%s)".formatted(uuid, name));
  }
}
