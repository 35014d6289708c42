// SPDX-License-Identifier: Apache-2.0
package io.tidemark.linux;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;

/// An io_uring: requests that the kernel carries out while the thread goes on.
///
/// Used by the one thread that made it. A request is put into the submission queue, told to the
/// kernel by [#enter], and comes back as a completion with the tag it was given. What a request
/// names, its buffer and its descriptor, must live until it has come back; [#close] does not wait
/// for that.
///
/// The rings are memory shared with the kernel: the side that puts stores the tail with release
/// order, the side that takes loads it with acquire order.
///
/// Spec: io_uring_setup(2), io_uring_enter(2), Linux include/uapi/linux/io_uring.h.
public final class Ring implements AutoCloseable {
  /// Most requests of one ring in flight.
  public static final int MAX_ENTRIES = 1024;

  /// Events of [#poll]. Spec: poll(2).
  public static final int READABLE = 0x001;

  public static final int WRITABLE = 0x004;

  private static final int SETUP_CLAMP = 1 << 4;
  private static final int SETUP_SINGLE_ISSUER = 1 << 12;
  private static final int SETUP_DEFER_TASKRUN = 1 << 13;
  private static final int FEATURE_SINGLE_MMAP = 1;
  private static final int FEATURE_NODROP = 1 << 1;
  private static final int ENTER_GETEVENTS = 1;

  private static final long OFFSET_RINGS = 0;
  private static final long OFFSET_ENTRIES = 0x1000_0000L;

  private static final byte POLL_ADD = 6;
  private static final byte READ = 22;
  private static final byte WRITE = 23;

  /// `struct io_uring_params`: bytes from its start.
  private static final class Parameters {
    static final long SQ_ENTRIES = 0;
    static final long CQ_ENTRIES = 4;
    static final long FLAGS = 8;
    static final long FEATURES = 20;
    static final long SQ_HEAD = 40;
    static final long SQ_TAIL = 44;
    static final long SQ_MASK = 48;
    static final long SQ_ARRAY = 64;
    static final long CQ_HEAD = 80;
    static final long CQ_TAIL = 84;
    static final long CQ_MASK = 88;
    static final long CQ_CQES = 100;
    static final long END = 120;
  }

  /// `struct io_uring_sqe`.
  private static final class Entry {
    static final long OPCODE = 0; // u8
    static final long DESCRIPTOR = 4; // s32
    static final long OFFSET = 8; // u64
    static final long ADDRESS = 16; // u64
    static final long LENGTH = 24; // u32
    static final long EVENTS = 28; // u32, of a poll
    static final long TAG = 32; // u64
    static final long END = 64;
  }

  /// `struct io_uring_cqe`.
  private static final class Completion {
    static final long TAG = 0; // u64
    static final long RESULT = 8; // s32
    static final long END = 16;
  }

  private static final VarHandle INT = JAVA_INT.varHandle();

  private final int descriptor;
  private final MemorySegment rings;
  private final MemorySegment entries;
  private final int size; // of the submission queue
  private final int sqMask;
  private final int cqMask;
  private final long sqHead;
  private final long sqTail;
  private final long cqHead;
  private final long cqTail;
  private final long completions;
  private int tail; // of the submission queue, as put here
  private int told; // of it, as the kernel was told
  private long tag; // of the completion taken last
  private int result;
  private boolean closed;

  private Ring(
      int descriptor, MemorySegment parameters, MemorySegment rings, MemorySegment entries) {
    this.descriptor = descriptor;
    this.rings = rings;
    this.entries = entries;
    this.size = parameters.get(JAVA_INT, Parameters.SQ_ENTRIES);
    this.sqHead = parameters.get(JAVA_INT, Parameters.SQ_HEAD);
    this.sqTail = parameters.get(JAVA_INT, Parameters.SQ_TAIL);
    this.cqHead = parameters.get(JAVA_INT, Parameters.CQ_HEAD);
    this.cqTail = parameters.get(JAVA_INT, Parameters.CQ_TAIL);
    this.completions = parameters.get(JAVA_INT, Parameters.CQ_CQES);
    this.sqMask = rings.get(JAVA_INT, parameters.get(JAVA_INT, Parameters.SQ_MASK));
    this.cqMask = rings.get(JAVA_INT, parameters.get(JAVA_INT, Parameters.CQ_MASK));
    long array = parameters.get(JAVA_INT, Parameters.SQ_ARRAY);
    for (int i = 0; i < size; i++) {
      rings.set(JAVA_INT, array + 4L * i, i); // place i of the queue is entry i, for good
    }
    this.tail = rings.get(JAVA_INT, sqTail);
    this.told = tail;
  }

  /// Makes a ring for the calling thread.
  ///
  /// @param wanted requests in flight, at most [#MAX_ENTRIES]; the kernel rounds up to a power of 2
  /// @throws LinuxException where the kernel has none (ENOSYS), forbids it (EPERM), or lacks memory
  public static Ring open(int wanted) throws LinuxException {
    if (wanted < 1 || wanted > MAX_ENTRIES) {
      throw new IllegalArgumentException(wanted + " entries, wanted 1 to " + MAX_ENTRIES);
    }
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment parameters = arena.allocate(Parameters.END, Long.BYTES);
      int flags = SETUP_CLAMP | SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN;
      parameters.set(JAVA_INT, Parameters.FLAGS, flags);
      int made = Calls.ioUringSetup(wanted, parameters);
      if (made == -Errno.EINVAL) { // before Linux 6.1
        parameters.fill((byte) 0).set(JAVA_INT, Parameters.FLAGS, SETUP_CLAMP);
        made = Calls.ioUringSetup(wanted, parameters);
      }
      if (made < 0) {
        throw new LinuxException("io_uring", "io_uring_setup", -made);
      }
      return map(made, parameters);
    }
  }

  private static Ring map(int made, MemorySegment parameters) throws LinuxException {
    int needed = FEATURE_SINGLE_MMAP | FEATURE_NODROP; // Linux 5.5
    if ((parameters.get(JAVA_INT, Parameters.FEATURES) & needed) != needed) {
      Calls.close(made);
      throw new LinuxException("io_uring", "io_uring_setup", Errno.ENOSYS);
    }
    int sq = parameters.get(JAVA_INT, Parameters.SQ_ENTRIES);
    int cq = parameters.get(JAVA_INT, Parameters.CQ_ENTRIES);
    long ringBytes =
        Math.max(
            parameters.get(JAVA_INT, Parameters.SQ_ARRAY) + 4L * sq,
            parameters.get(JAVA_INT, Parameters.CQ_CQES) + Completion.END * cq);
    long rings = Calls.mmapShared(ringBytes, made, OFFSET_RINGS);
    if (rings < 0) {
      Calls.close(made);
      throw new LinuxException("io_uring", "mmap", (int) -rings);
    }
    long entries = Calls.mmapShared(Entry.END * sq, made, OFFSET_ENTRIES);
    if (entries < 0) {
      Calls.munmap(rings, ringBytes);
      Calls.close(made);
      throw new LinuxException("io_uring", "mmap", (int) -entries);
    }
    return new Ring(
        made,
        parameters,
        MemorySegment.ofAddress(rings).reinterpret(ringBytes),
        MemorySegment.ofAddress(entries).reinterpret(Entry.END * sq));
  }

  /// Places left for requests before the next [#enter].
  public int room() {
    return size - (tail - (int) INT.getAcquire(rings, sqHead));
  }

  private long next() {
    if (room() <= 0) {
      throw new IllegalStateException("io_uring: the submission queue is full at " + size);
    }
    long at = Entry.END * (tail & sqMask);
    entries.asSlice(at, Entry.END).fill((byte) 0);
    tail++;
    return at;
  }

  /// Puts a read from position to limit of a direct buffer; there is [#room].
  public void read(LinuxFile file, ByteBuffer into, long offset, long requestTag) {
    transfer(READ, file, into, offset, requestTag);
  }

  /// Puts a write of position to limit of a direct buffer; there is [#room].
  public void write(LinuxFile file, ByteBuffer from, long offset, long requestTag) {
    transfer(WRITE, file, from, offset, requestTag);
  }

  private void transfer(
      byte opcode, LinuxFile file, ByteBuffer bytes, long offset, long requestTag) {
    long at = next();
    entries.set(JAVA_BYTE, at + Entry.OPCODE, opcode);
    entries.set(JAVA_INT, at + Entry.DESCRIPTOR, file.number());
    entries.set(JAVA_LONG, at + Entry.OFFSET, offset);
    entries.set(JAVA_LONG, at + Entry.ADDRESS, Calls.address(bytes));
    entries.set(JAVA_INT, at + Entry.LENGTH, bytes.remaining());
    entries.set(JAVA_LONG, at + Entry.TAG, requestTag);
  }

  /// Puts a question that is answered once, when the socket has one of `events` or is at its end.
  public void poll(SocketDescriptor socket, int events, long requestTag) {
    long at = next();
    entries.set(JAVA_BYTE, at + Entry.OPCODE, POLL_ADD);
    entries.set(JAVA_INT, at + Entry.DESCRIPTOR, socket.number());
    entries.set(JAVA_INT, at + Entry.EVENTS, events);
    entries.set(JAVA_LONG, at + Entry.TAG, requestTag);
  }

  /// Tells the kernel what was put, and with `wait` returns when there is a completion to
  /// [take][#take]. A signal may make it return sooner.
  public void enter(boolean wait) throws LinuxException {
    int fresh = tail - told;
    if (fresh > 0) {
      INT.setRelease(rings, sqTail, tail);
    }
    int waitFor = wait && !ready() ? 1 : 0;
    int taken = Calls.ioUringEnter(descriptor, fresh, waitFor, ENTER_GETEVENTS);
    if (taken >= 0) {
      told += taken; // fewer when one of them was refused: it has a completion that says so
      return;
    }
    if (taken != -Errno.EINTR && taken != -Errno.EAGAIN && taken != -Errno.EBUSY) {
      throw new LinuxException("io_uring", "io_uring_enter", -taken);
    }
  }

  private boolean ready() {
    return (int) INT.getAcquire(rings, cqTail) != rings.get(JAVA_INT, cqHead);
  }

  /// Takes the next completion: its [#tag] and [#result] are there until the next call. False when
  /// there is none now.
  public boolean take() {
    int head = rings.get(JAVA_INT, cqHead);
    if ((int) INT.getAcquire(rings, cqTail) == head) {
      return false;
    }
    long at = completions + Completion.END * (head & cqMask);
    tag = rings.get(JAVA_LONG, at + Completion.TAG);
    result = rings.get(JAVA_INT, at + Completion.RESULT);
    INT.setRelease(rings, cqHead, head + 1);
    return true;
  }

  public long tag() {
    return tag;
  }

  /// What the request returned: bytes, events, or a negated error number.
  public int result() {
    return result;
  }

  /// What the kernel said of a request that failed.
  public static LinuxException failure(String place, String call, int negatedErrno) {
    return new LinuxException(place, call, -negatedErrno);
  }

  /// Gives the ring back. Requests in flight must have come back before.
  @Override
  public void close() {
    if (!closed) {
      closed = true;
      Calls.munmap(entries.address(), entries.byteSize());
      Calls.munmap(rings.address(), rings.byteSize());
      Calls.close(descriptor);
    }
  }
}
