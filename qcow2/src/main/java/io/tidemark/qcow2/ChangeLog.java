// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import io.tidemark.block.BlockException;
import io.tidemark.block.CorruptImageException;
import io.tidemark.block.FileTrace;
import io.tidemark.block.ImageBusyException;
import io.tidemark.block.TransportException;
import io.tidemark.block.Zeroes;
import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.zip.CRC32C;
import org.jspecify.annotations.Nullable;

/// The mapping changes that acknowledged writes need and the image's tables do not hold yet.
///
/// A file in the run dir, mapped into memory: a record is in the page cache when [#append] returns,
/// and survives the death of the process, not of the machine. Losing it with the machine is lawful:
/// only unflushed writes are in it.
///
/// Two halves are used in turn. While a write-back makes the changes of one half durable, new ones
/// go to the other; then the first is emptied by setting its generation to 0. Generations only
/// grow, so the order of the halves is known. A record counts when its checksum holds and it
/// carries its half's generation; the first that does not ends the half.
///
/// A half has one piece of [#PIECE_RECORDS] records to begin with. Where that is not enough between
/// two flushes, both halves get further pieces, up to [#MOST_PIECES]: a full half costs its writer
/// a sync of all data. A piece counts from when the header says so; a death before that leaves a
/// file that is longer than it must be.
///
/// Layout (little-endian), a page of header, then in turns a piece of half 0 and one of half 1:
///
/// | at | what |
/// |---|---|
/// | 0 | magic `TMQ2LOG2`, written last; the last character is the version |
/// | 8 | u32 CRC-32C of bytes 16 to 63 |
/// | 16 | boot id, 16 bytes |
/// | 32 | u64 device, u64 inode, u64 birth time in ns: the image's [Identity] |
/// | 56 | u32 cluster bits, with 0x100 for extended L2 entries; u32 records in a piece |
/// | 128, 192 | u64 generation of each half, 0: empty |
/// | 200 | u32 pieces of a half, 0: one |
/// | 256 | u32 CRC-32C of bytes 260 to 4095; 260: what [FileTrace#encodeWay] puts, or zeroes |
///
/// Record, 64 bytes: u64 generation, u32 kind (1: L1, 2: L2, 3: pool), u32 count, u64 index (L1
/// index, guest cluster or host cluster), u64 old entry, u64 its bitmap, u64 new entry, u64 its
/// bitmap (0 but for extended L2 entries), u32 CRC-32C of the 56 bytes before, u32 0. Entries of a
/// run that name host clusters count up by one cluster.
///
/// A log of another version of this program, of this boot and image, is refused in words: it may
/// hold writes that were acknowledged.
///
/// Guarded by the lock of [MappingTables].
final class ChangeLog implements AutoCloseable {
  /// What binds a log to one image and one boot.
  ///
  /// @param bootId 32 hexadecimal digits
  record Identity(String bootId, long device, long inode, long birthNanos) {
    private static final Path BOOT_ID = Path.of("/proc/sys/kernel/random/boot_id");

    /// The identity of a file; empty where the system does not tell.
    static Optional<Identity> of(Path image) {
      try {
        String boot = boot();
        var attributes = Files.readAttributes(image, "unix:dev,ino,creationTime");
        if (boot.length() == 32
            && attributes.get("dev") instanceof Long device
            && attributes.get("ino") instanceof Long inode
            && attributes.get("creationTime") instanceof java.nio.file.attribute.FileTime birth) {
          long nanos = birth.to(java.util.concurrent.TimeUnit.NANOSECONDS);
          return Optional.of(new Identity(boot, device, inode, nanos));
        }
        return Optional.empty();
      } catch (IOException | UnsupportedOperationException | IllegalArgumentException _) {
        return Optional.empty();
      }
    }

    Path logIn(Path runDir) {
      return runDir.resolve("qcow2-" + Long.toHexString(device) + "-" + inode + ".log");
    }

    /// The id of this boot, without dashes.
    static String boot() throws IOException {
      return Files.readString(BOOT_ID).strip().replace("-", "");
    }
  }

  /// One change: `count` slots from `index` on went from `old` to `fresh`.
  record Change(int kind, int count, long index, L2Slot old, L2Slot fresh) {
    static final int L1 = 1;
    static final int L2 = 2;

    /// Host clusters from `index` on were counted ahead: what nothing refers to is the pool's rest.
    static final int POOL = 3;

    static Change l1(int index, long old, long fresh) {
      return new Change(L1, 1, index, new L2Slot(old, 0), new L2Slot(fresh, 0));
    }

    static Change pool(long first, int count) {
      return new Change(POOL, count, first, L2Slot.EMPTY, L2Slot.EMPTY);
    }
  }

  private static final Logger LOG = System.getLogger(ChangeLog.class.getName());

  private static final long MAGIC = 0x32474f4c32514d54L; // "TMQ2LOG2"
  private static final long MAGIC_ANY = MAGIC & 0x00ff_ffff_ffff_ffffL; // whatever the version
  private static final int RECORD = 64;
  private static final int RECORD_CRC = 56; // and bytes before it
  private static final int EXTENDED = 0x100; // with the cluster bits
  private static final int HEADER = 4096;
  private static final int WAY_CRC = 256;
  private static final int WAY = 260;

  /// Records in a piece: 512 KiB of them.
  static final int PIECE_RECORDS = 512 * 1024 / RECORD;

  /// Pieces of a half at most: 4 MiB, for 4 GiB of clusters that got their places one by one.
  static final int MOST_PIECES = 8;

  private static final int PAIR = 2 * PIECE_RECORDS * RECORD; // a piece of each half
  private static final int MOST_BYTES = 16 << 20; // of a log of any version
  private static final int[] GENERATION_AT = {128, 192};
  private static final int PIECES_AT = 200;

  /// File keys of the logs that this process writes.
  private static final Set<Object> OPEN = ConcurrentHashMap.newKeySet();

  private final Path path;
  private final FileChannel channel;
  private final Object key;
  private final Arena arena;
  private final ByteBuffer map; // the header
  private final List<ByteBuffer> pairs = new ArrayList<>(); // pieces, those of both halves together
  private boolean longest; // no further pieces
  private int half;
  private int used;
  private long generation = 1;

  private ChangeLog(Path path, FileChannel channel, Object key) throws IOException {
    this.path = path;
    this.channel = channel;
    this.key = key;
    this.arena = Arena.ofShared();
    this.map = map(0, HEADER);
    pairs.add(map(HEADER, PAIR));
  }

  private ByteBuffer map(long at, int bytes) throws IOException {
    return channel
        .map(FileChannel.MapMode.READ_WRITE, at, bytes, arena)
        .asByteBuffer()
        .order(LITTLE_ENDIAN);
  }

  private static int size(int pieces) {
    return HEADER + pieces * PAIR;
  }

  /// Changes that a log at `path` holds for this image, oldest first; empty when there is no log,
  /// or it is of another boot or of a file that is gone.
  ///
  /// @throws CorruptImageException when there is a log that cannot be read: what to do is in its
  ///   text
  static List<Change> read(Path path, Identity identity, Geometry geometry) throws BlockException {
    ByteBuffer raw;
    try {
      if (!Files.exists(path)) {
        return List.of();
      }
      if (Files.size(path) > MOST_BYTES) {
        throw unusable(
            path, "it has " + Files.size(path) + " bytes, at most " + MOST_BYTES + " are read");
      }
      raw = ByteBuffer.wrap(Files.readAllBytes(path)).order(LITTLE_ENDIAN);
    } catch (CorruptImageException e) {
      throw e;
    } catch (IOException e) {
      throw new TransportException(path + ": cannot read the log of the image", e);
    }
    if (!isLog(raw)) {
      return List.of(); // died while making it: nothing was acknowledged by it
    }
    if (raw.limit() < HEADER || crc(raw, 16, 48) != raw.getInt(8)) {
      throw unusable(path, "its header is damaged");
    }
    if (!bootId(raw).equals(identity.bootId())
        || raw.getLong(32) != identity.device()
        || raw.getLong(40) != identity.inode()
        || raw.getLong(48) != identity.birthNanos()) {
      return List.of(); // power was lost, or the image of this log is deleted
    }
    if (raw.getLong(0) != MAGIC) {
      throw unusable(
          path,
          "it is of version "
              + (char) raw.get(7)
              + ", wanted 2 (the program that left it can bring it in)");
    }
    int pieces = Math.max(raw.getInt(PIECES_AT), 1);
    if (pieces > MOST_PIECES || raw.limit() < size(pieces) || raw.getInt(60) != PIECE_RECORDS) {
      throw unusable(
          path,
          "it has "
              + raw.limit()
              + " bytes for "
              + pieces
              + " times "
              + raw.getInt(60)
              + " records in a half, wanted "
              + size(Math.clamp(pieces, 1, MOST_PIECES))
              + " for "
              + PIECE_RECORDS);
    }
    if (raw.getInt(56) != shape(geometry)) {
      throw unusable(
          path,
          "it is for clusters of 2^"
              + (raw.getInt(56) & (EXTENDED - 1))
              + " bytes"
              + ((raw.getInt(56) & EXTENDED) == 0 ? "" : " with extended L2 entries"));
    }
    var changes = new ArrayList<Change>();
    int first =
        Long.compareUnsigned(raw.getLong(GENERATION_AT[0]), raw.getLong(GENERATION_AT[1])) <= 0
            ? 0
            : 1;
    readHalf(raw, first, pieces, changes);
    readHalf(raw, 1 - first, pieces, changes);
    return changes;
  }

  static CorruptImageException unusable(Path path, String why) {
    return new CorruptImageException(
        path
            + ": the log of writes that were acknowledged and not flushed cannot be used: "
            + why
            + "; to open the image without those writes, remove the log");
  }

  /// Where a record of a half is among its pair of pieces.
  private static int inPair(int half, int index) {
    return (half * PIECE_RECORDS + index % PIECE_RECORDS) * RECORD;
  }

  private static void readHalf(ByteBuffer raw, int half, int pieces, List<Change> into) {
    long generation = raw.getLong(GENERATION_AT[half]);
    if (generation == 0) {
      return;
    }
    for (int i = 0; i < pieces * PIECE_RECORDS; i++) {
      int at = size(i / PIECE_RECORDS) + inPair(half, i);
      if (raw.getLong(at) != generation
          || crc(raw, at, RECORD_CRC) != raw.getInt(at + RECORD_CRC)) {
        return;
      }
      into.add(
          new Change(
              raw.getInt(at + 8),
              raw.getInt(at + 12),
              raw.getLong(at + 16),
              new L2Slot(raw.getLong(at + 24), raw.getLong(at + 32)),
              new L2Slot(raw.getLong(at + 40), raw.getLong(at + 48))));
    }
  }

  private static String bootId(ByteBuffer raw) {
    var id = new StringBuilder();
    for (int i = 16; i < 32; i++) {
      id.append(String.format("%02x", raw.get(i)));
    }
    return id.toString();
  }

  /// Whether a living process writes the log, so that its image is as good as the file shows.
  static boolean inUse(Path path) {
    if (!Files.exists(path)) {
      return false;
    }
    // Asked first, because closing a channel of a file takes away all locks this process has on it.
    try (var _ = LogTurn.here()) {
      return openHere(path) || lockedElsewhere(path);
    }
  }

  private static boolean lockedElsewhere(Path path) {
    try (var channel = FileChannel.open(path, StandardOpenOption.READ);
        @Nullable FileLock lock = channel.tryLock(0, Long.MAX_VALUE, true)) {
      return lock == null;
    } catch (OverlappingFileLockException _) {
      return true;
    } catch (IOException _) {
      return false; // reading it will tell
    }
  }

  /// Makes an empty log, over one that is no longer needed. Its space is taken now, so that a full
  /// run dir is found here and not while a record is written.
  static ChangeLog create(Path path, Identity identity, Geometry geometry) throws BlockException {
    return create(path, identity, Optional.empty(), geometry);
  }

  /// @param trace by which [StaleLogs] finds out that the image is gone
  static ChangeLog create(
      Path path, Identity identity, Optional<FileTrace> trace, Geometry geometry)
      throws BlockException {
    try (var _ = LogTurn.take(path)) {
      return create(path, log -> log.begin(identity, trace, geometry));
    }
  }

  @FunctionalInterface
  private interface Beginning {
    void of(ChangeLog log);
  }

  private static ChangeLog create(Path path, Beginning beginning) throws BlockException {
    if (openHere(path)) {
      throw new ImageBusyException(path + ": the image's log is in use in this process");
    }
    FileChannel channel = null;
    Object key = path;
    try {
      channel =
          FileChannel.open(
              path, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
      key = key(path);
      OPEN.add(key);
      lock(path, channel);
      // The old magic goes first: what follows is then no log, until the new one stands.
      writeAll(channel, 0, ByteBuffer.allocate(8));
      takeSpace(channel, 0, size(1));
      channel.truncate(size(1));
      var log = new ChangeLog(path, channel, key);
      beginning.of(log);
      return log;
    } catch (IOException e) {
      closeQuietly(channel);
      OPEN.remove(key);
      if (e instanceof BlockException known) {
        throw known;
      }
      try {
        Files.deleteIfExists(path); // half of a log is none
      } catch (IOException second) {
        e.addSuppressed(second);
      }
      throw new TransportException(path + ": cannot make the log of the image", e);
    }
  }

  /// The header of a log that no process writes; empty where one does, or there is none that can be
  /// read. While a [LogTurn] is held.
  static Optional<ByteBuffer> headerOfUnused(Path path) {
    if (openHere(path)) {
      return Optional.empty();
    }
    try (var channel = FileChannel.open(path, StandardOpenOption.READ, StandardOpenOption.WRITE);
        @Nullable FileLock lock = channel.tryLock()) {
      if (lock == null) {
        return Optional.empty();
      }
      ByteBuffer header = ByteBuffer.allocate(HEADER).order(LITTLE_ENDIAN);
      while (header.hasRemaining() && channel.read(header, header.position()) >= 0) {
        // until it is full, or the file ends
      }
      return Optional.of(header.flip());
    } catch (IOException | OverlappingFileLockException _) {
      return Optional.empty();
    }
  }

  /// Whether nobody will ever want the log with this header: it is none, or of another boot than
  /// this, or its image is gone. What cannot be read, or is of another version, is wanted. Asks the
  /// storage that the image is on.
  static boolean isStale(ByteBuffer header, String boot) {
    if (!isLog(header)) {
      return true;
    }
    if (header.limit() < HEADER || crc(header, 16, 48) != header.getInt(8)) {
      return false;
    }
    if (!bootId(header).equals(boot)) {
      return true;
    }
    return header.getLong(0) == MAGIC
        && crc(header, WAY, HEADER - WAY) == header.getInt(WAY_CRC)
        && FileTrace.decode(
                header.getLong(32),
                header.getLong(40),
                header.getLong(48),
                header.slice(WAY, HEADER - WAY).order(LITTLE_ENDIAN))
            .isGone();
  }

  private static boolean isLog(ByteBuffer raw) {
    return raw.limit() >= 8 && (raw.getLong(0) & ~(0xffL << 56)) == MAGIC_ANY;
  }

  private static boolean openHere(Path path) {
    try {
      return OPEN.contains(key(path));
    } catch (IOException _) {
      return false; // there is none
    }
  }

  /// What tells a file from every other, whatever its name.
  private static Object key(Path path) throws IOException {
    @Nullable Object key = Files.readAttributes(path, BasicFileAttributes.class).fileKey();
    return key == null ? path.toAbsolutePath().normalize() : key;
  }

  private static void lock(Path path, FileChannel channel) throws IOException {
    try {
      @Nullable FileLock lock = channel.tryLock();
      if (lock == null) {
        throw new ImageBusyException(path + ": the image's log is in use by another process");
      }
    } catch (OverlappingFileLockException e) {
      throw new ImageBusyException(path + ": the image's log is in use in this process", e);
    }
  }

  private static void takeSpace(FileChannel channel, int from, int end) throws IOException {
    for (int at = from; at < end; at += Zeroes.BLOCK) {
      writeAll(channel, at, Zeroes.of(Math.min(Zeroes.BLOCK, end - at)));
    }
  }

  private static void writeAll(FileChannel channel, long at, ByteBuffer bytes) throws IOException {
    while (bytes.hasRemaining()) {
      at += channel.write(bytes, at);
    }
  }

  private static void closeQuietly(@Nullable FileChannel channel) {
    if (channel != null) {
      try {
        channel.close();
      } catch (IOException _) {
        // Safe because nothing in it is needed.
      }
    }
  }

  private static int shape(Geometry geometry) {
    return geometry.clusterBits() | (geometry.extendedL2() ? EXTENDED : 0);
  }

  private void begin(Identity identity, Optional<FileTrace> trace, Geometry geometry) {
    if (trace.isPresent()) {
      trace.get().encodeWay(map.slice(WAY, HEADER - WAY).order(LITTLE_ENDIAN));
    }
    map.putInt(WAY_CRC, crc(map, WAY, HEADER - WAY));
    for (int i = 0; i < 16; i++) {
      map.put(16 + i, (byte) Integer.parseInt(identity.bootId().substring(2 * i, 2 * i + 2), 16));
    }
    map.putLong(32, identity.device());
    map.putLong(40, identity.inode());
    map.putLong(48, identity.birthNanos());
    map.putInt(56, shape(geometry));
    map.putInt(60, PIECE_RECORDS);
    map.putInt(8, crc(map, 16, 48));
    map.putLong(GENERATION_AT[0], generation);
    map.putLong(0, MAGIC);
  }

  private static int crc(ByteBuffer raw, int at, int length) {
    var crc = new CRC32C();
    crc.update(raw.slice(at, length));
    return (int) crc.getValue();
  }

  /// Whether the present half can take so many more records; it gets longer for them if it may.
  boolean makeRoom(int records) {
    while (used + records > pairs.size() * PIECE_RECORDS) {
      if (longest || pairs.size() == MOST_PIECES || !lengthen()) {
        return false;
      }
    }
    return true;
  }

  /// Whether three quarters are used of what the present half can take.
  boolean filling() {
    int most = (longest ? pairs.size() : MOST_PIECES) * PIECE_RECORDS;
    return used > most / 4 * 3;
  }

  /// Takes the space of one more pair of pieces, and only then uses it. Where there is none, the
  /// log stays as it is.
  private boolean lengthen() {
    int end = size(pairs.size());
    try {
      takeSpace(channel, end, end + PAIR);
      pairs.add(map(end, PAIR));
      map.putInt(PIECES_AT, pairs.size());
      return true;
    } catch (IOException e) {
      longest = true;
      LOG.log(Level.INFO, path + ": the log of the image stays short: " + e.getMessage());
      return false;
    }
  }

  /// Adds a record; there is [room for it][#makeRoom].
  void append(Change change) {
    ByteBuffer pair = pairs.get(used / PIECE_RECORDS);
    int at = inPair(half, used);
    pair.putLong(at, generation);
    pair.putInt(at + 8, change.kind());
    pair.putInt(at + 12, change.count());
    pair.putLong(at + 16, change.index());
    pair.putLong(at + 24, change.old().entry());
    pair.putLong(at + 32, change.old().bitmap());
    pair.putLong(at + 40, change.fresh().entry());
    pair.putLong(at + 48, change.fresh().bitmap());
    pair.putInt(at + RECORD_CRC, crc(pair, at, RECORD_CRC));
    used++;
  }

  /// Sends further records to the other half, which is empty. Returns the half that was left.
  int turn() {
    int left = half;
    half = 1 - half;
    used = 0;
    generation++;
    map.putLong(GENERATION_AT[half], generation);
    return left;
  }

  /// Empties a half whose changes are durable in the image.
  void reset(int doneHalf) {
    map.putLong(GENERATION_AT[doneHalf], 0);
  }

  /// Removes the log: the image holds everything.
  void remove() throws BlockException {
    try {
      delete(path);
    } finally {
      close();
    }
  }

  Path path() {
    return path;
  }

  /// Removes a log; what is in it must be of no use.
  static void delete(Path path) throws BlockException {
    try {
      Files.deleteIfExists(path);
    } catch (IOException e) {
      throw new TransportException(path + ": cannot remove the log of the image", e);
    }
  }

  /// Lets the file go, and leaves it for the next opening. Closing twice is harmless.
  @Override
  public void close() {
    if (arena.scope().isAlive()) {
      arena.close();
      closeQuietly(channel);
      OPEN.remove(key);
    }
  }
}
