// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import io.tidemark.block.BlockException;
import io.tidemark.block.BlockNode;
import io.tidemark.block.ZeroMode;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/// What many clients asked of one disk at the same time, and what they saw: held against the only
/// thing that a disk promises of requests that overlap.
///
/// **What is promised.** Each half of a word of 8 bytes, at a multiple of 8, is a register of its
/// own, and linearizable: each request takes effect on it at one moment between its sending and its
/// answer. (Halves, because the kernel lets a read and a write of one page run together, and copies
/// to and from payloads that begin 4 bytes beside a multiple of 8: whole words are seen torn.) So
/// requests that are under way together may be ordered in any way, another one for every half, but
/// what was answered is seen by whatever is sent later, on any connection, until it is overwritten,
/// and nothing that was seen to be overwritten comes back. Neither NBD nor a real disk promises
/// more, such as whole requests at one moment.
///
/// **How it is checked.** For each half alone, along the time line, with every state that it may be
/// in: its value, and which of the requests under way have taken effect already. At an answer those
/// states stay in which its request has, or can now, take effect; none left is a failure. A trim
/// leaves zeroes or what there was. A request that is never answered may take effect at any time or
/// not at all.
///
/// Times are tickets of one counter, drawn before a request is sent and after its answer has come,
/// so an interval is never shorter than the true one. [#begin] and the ends may be called by any
/// thread; [#check] when all are done.
public final class BlockHistory {
  /// What a request does to a word.
  public enum Kind {
    READ,
    WRITE,
    ZERO,
    TRIM
  }

  private static final int WORD = Long.BYTES;

  /// Words that are sorted out together.
  private static final int BLOCK_WORDS = 64;

  /// Requests under way at one word, those without an answer included.
  private static final int MAX_UNDER_WAY = 63;

  private static final long NEVER = Long.MAX_VALUE;

  /// One request, from before it is sent.
  public final class Request {
    private final Kind kind;
    private final int firstWord;
    private final int words;
    private final long number;
    private final long began;
    private long ended = NEVER;
    private long[] seen = {}; // what a read saw, per word

    private Request(Kind kind, int firstWord, int words, long number) {
      this.kind = kind;
      this.firstWord = firstWord;
      this.words = words;
      this.number = number;
      this.began = clock.incrementAndGet();
    }

    public Kind kind() {
      return kind;
    }

    public long offset() {
      return (long) firstWord * WORD;
    }

    public int length() {
      return words * WORD;
    }

    /// What a write has to write: every word tells of which request it is and where it belongs.
    public byte[] payload() {
      ByteBuffer bytes = ByteBuffer.allocate(length());
      for (int word = firstWord; word < firstWord + words; word++) {
        bytes.putLong(written(word));
      }
      return bytes.array();
    }

    private long written(int word) {
      return number << 32 | word;
    }

    /// A change was answered well; or the moment of a view is past, whose content is told later.
    public void answered() {
      ended = clock.incrementAndGet();
    }

    /// A read was answered.
    public void answered(byte[] bytes) {
      answered();
      saw(bytes);
    }

    /// What a read saw that has ended: the content of a backup, whose moment was the read's.
    public void saw(byte[] bytes) {
      seen = new long[words];
      ByteBuffer.wrap(bytes).asLongBuffer().get(seen);
    }

    private boolean touches(int word) {
      return word >= firstWord && word < firstWord + words;
    }

    private long seen(int word) {
      return seen[word - firstWord];
    }

    @Override
    public String toString() {
      return "%s %d of %d bytes at 0x%x, from %d to %s"
          .formatted(
              kind,
              number,
              length(),
              offset(),
              began,
              ended == NEVER ? "no answer" : Long.toString(ended));
    }
  }

  private final long[] initial;
  private final AtomicLong clock = new AtomicLong();
  private final AtomicLong numbers = new AtomicLong();
  private final List<Request> requests = new ArrayList<>(); // guarded by itself

  /// Begins with what the disk holds now, read while nobody changes it.
  public BlockHistory(BlockNode disk) throws BlockException {
    byte[] bytes = new byte[Math.toIntExact(disk.virtualSize())];
    disk.read(0, ByteBuffer.wrap(bytes));
    initial = new long[bytes.length / WORD];
    ByteBuffer.wrap(bytes, 0, initial.length * WORD).asLongBuffer().get(initial);
    for (int word = 0; word < initial.length; word++) {
      if ((int) initial[word] == word && initial[word] > 0) { // of an earlier history
        numbers.set(Math.max(numbers.get(), initial[word] >>> 32));
      }
    }
  }

  public long size() {
    return (long) initial.length * WORD;
  }

  /// A request that is about to be sent; offset and length are multiples of 8.
  public Request begin(Kind kind, long offset, int length) {
    if (offset % WORD != 0 || length % WORD != 0 || offset < 0 || offset > size() - length) {
      throw new IllegalArgumentException(length + " bytes at " + offset);
    }
    long number = numbers.incrementAndGet();
    synchronized (requests) {
      var request = new Request(kind, (int) (offset / WORD), length / WORD, number);
      requests.add(request);
      return request;
    }
  }

  /// Sends it to a disk and notes the answer. A request that fails is one without an answer.
  public void send(Request request, BlockNode disk) throws BlockException {
    switch (request.kind()) {
      case READ -> {
        byte[] bytes = new byte[request.length()];
        disk.read(request.offset(), ByteBuffer.wrap(bytes));
        request.answered(bytes);
      }
      case WRITE -> {
        disk.write(request.offset(), ByteBuffer.wrap(request.payload()));
        request.answered();
      }
      case ZERO -> {
        disk.writeZeroes(request.offset(), request.length(), ZeroMode.MAY_UNMAP);
        request.answered();
      }
      case TRIM -> {
        disk.discard(request.offset(), request.length());
        request.answered();
      }
    }
  }

  /// Fails with the story of a word, when there is one that no order of its requests explains.
  public void check() {
    List<List<Request>> blocks = new ArrayList<>();
    for (int block = 0; block * BLOCK_WORDS < initial.length; block++) {
      blocks.add(new ArrayList<>());
    }
    synchronized (requests) {
      for (Request request : requests) {
        if (request.words > 0) {
          int last = (request.firstWord + request.words - 1) / BLOCK_WORDS;
          for (int block = request.firstWord / BLOCK_WORDS; block <= last; block++) {
            blocks.get(block).add(request);
          }
        }
      }
    }
    for (int block = 0; block < blocks.size(); block++) {
      checkBlock(block * BLOCK_WORDS, blocks.get(block));
    }
  }

  private void checkBlock(int firstWord, List<Request> touching) {
    int end = Math.min(firstWord + BLOCK_WORDS, initial.length);
    for (int word = firstWord; word < end; word++) {
      if (word == firstWord || !sameStory(word - 1, word, touching)) {
        checkHalf(word, Half.NUMBER, touching);
        checkHalf(word, Half.PLACE, touching);
      }
    }
  }

  /// Whether what holds for one word holds for the next as well.
  private boolean sameStory(int word, int next, List<Request> touching) {
    if ((initial[word] == 0) != (initial[next] == 0)) {
      return false;
    }
    for (Request request : touching) {
      if (request.touches(word) != request.touches(next)) {
        return false;
      }
      if (request.kind == Kind.READ
          && request.ended != NEVER
          && request.touches(word)
          && !sameSource(word, request.seen(word), next, request.seen(next))) {
        return false;
      }
    }
    return true;
  }

  /// Whether two neighbours hold what came from the same request, or have been so from the start.
  private boolean sameSource(int word, long value, int next, long nextValue) {
    boolean old = value == 0 || value == initial[word];
    return old
        ? (value == 0) == (nextValue == 0)
            && (value == initial[word]) == (nextValue == initial[next])
        : nextValue == value + 1 && nextValue != initial[next];
  }

  /// What is a register of its own: who wrote the word, and where it belongs.
  private enum Half {
    NUMBER,
    PLACE;

    long of(long word) {
      return this == NUMBER ? word >>> 32 : word & 0xffff_ffffL;
    }

    String told(long value) {
      return value == 0 ? "zero" : (this == NUMBER ? "write " : "place ") + value;
    }
  }

  /// A state that half a word may be in.
  ///
  /// @param done the requests under way that have taken effect, by their places
  private record State(long value, long done) {}

  private record Event(long time, Request request, boolean end) {}

  private void checkHalf(int word, Half half, List<Request> touching) {
    var events = new ArrayList<Event>();
    for (Request request : touching) {
      boolean useless = request.kind == Kind.READ && request.ended == NEVER;
      if (request.touches(word) && !useless) {
        events.add(new Event(request.began, request, false));
        if (request.ended != NEVER) {
          events.add(new Event(request.ended, request, true));
        }
      }
    }
    events.sort(Comparator.comparingLong(Event::time));
    @Nullable Request[] places = new @Nullable Request[MAX_UNDER_WAY];
    Set<State> states = Set.of(new State(half.of(initial[word]), 0));
    for (int i = 0; i < events.size(); i++) {
      Request request = events.get(i).request();
      if (!events.get(i).end()) {
        int free = Arrays.asList(places).indexOf(null);
        if (free < 0) {
          throw new IllegalStateException(
              "more than " + MAX_UNDER_WAY + " requests under way at one word");
        }
        places[free] = request;
        continue;
      }
      int place = Arrays.asList(places).indexOf(request);
      Set<State> before = states;
      states = after(states, places, place, word, half);
      if (states.isEmpty()) {
        throw new AssertionError(story(word, half, request, before, events.subList(0, i + 1)));
      }
      places[place] = null;
    }
  }

  /// The states in which the request at `place` has taken effect, without it.
  private static Set<State> after(
      Set<State> states, @Nullable Request[] places, int place, int word, Half half) {
    long bit = 1L << place;
    var found = new HashSet<State>();
    var known = new HashSet<State>();
    var open = new ArrayList<State>();
    for (State state : states) {
      add(withReads(state, places, word, half), known, open);
    }
    while (!open.isEmpty()) {
      State state = open.removeLast();
      if ((state.done() & bit) != 0) {
        found.add(new State(state.value(), state.done() & ~bit));
        continue; // what else may have happened is looked for when it has to have
      }
      for (int i = 0; i < places.length; i++) {
        Request request = places[i];
        if (request == null || request.kind == Kind.READ || (state.done() & 1L << i) != 0) {
          continue;
        }
        long done = state.done() | 1L << i;
        if (request.kind == Kind.TRIM) {
          add(new State(state.value(), done), known, open);
        }
        long value = request.kind == Kind.WRITE ? half.of(request.written(word)) : 0;
        add(withReads(new State(value, done), places, word, half), known, open);
      }
    }
    return found;
  }

  private static void add(State state, Set<State> known, List<State> open) {
    if (known.add(state)) {
      open.add(state);
    }
  }

  /// With every read done that saw this value. Safe because a read changes nothing: what can follow
  /// while it is not done can follow when it is.
  private static State withReads(State state, @Nullable Request[] places, int word, Half half) {
    long done = state.done();
    for (int i = 0; i < places.length; i++) {
      Request request = places[i];
      if (request != null
          && request.kind == Kind.READ
          && half.of(request.seen(word)) == state.value()) {
        done |= 1L << i;
      }
    }
    return new State(state.value(), done);
  }

  private static String story(
      int word, Half half, Request failed, Set<State> before, List<Event> events) {
    var text =
        new StringBuilder(
            "the word at 0x%x: no order explains %s".formatted((long) word * WORD, failed));
    if (failed.kind == Kind.READ) {
      text.append(", which saw ").append(told(failed.seen(word), word));
    }
    text.append("; it may have held");
    before.stream()
        .map(state -> half.told(state.value()))
        .distinct()
        .limit(10)
        .forEach(value -> text.append(' ').append(value));
    for (Event event : events.subList(Math.max(0, events.size() - 40), events.size())) {
      Request request = event.request();
      text.append("\n  ").append(event.end() ? "answer of " : "").append(request);
      if (request.kind == Kind.READ) {
        text.append(" saw ").append(told(request.seen(word), word));
      }
    }
    return text.toString();
  }

  private static String told(long value, int word) {
    if (value == 0) {
      return "zero";
    }
    return (int) value == word ? "write " + (value >>> 32) : "0x" + Long.toHexString(value);
  }
}
