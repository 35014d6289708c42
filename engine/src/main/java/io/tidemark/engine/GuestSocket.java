// SPDX-License-Identifier: Apache-2.0
package io.tidemark.engine;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.tidemark.domain.spi.DriverException;
import java.nio.file.Path;

/// Where a domain's guest finds its disks: `RUN_DIR/guest/<escaped name>.sock`.
///
/// Letters, digits, `_`, `-`, `+` and a `.` that is not the first character stand for themselves;
/// every other byte of the name's UTF-8 is `%` and two upper-case hex digits. So no two names share
/// a path, and no name leaves the folder.
final class GuestSocket {
  /// Bytes of a path that a socket address holds, its terminating zero not counted. Spec: unix(7),
  /// sun_path is 108 bytes.
  static final int MAX_PATH_BYTES = 107;

  private GuestSocket() {}

  static Path path(EngineConfig config, String domain) throws DriverException {
    Path path = config.guestDir().resolve(escape(domain) + ".sock");
    int bytes = path.toString().getBytes(UTF_8).length;
    if (bytes > MAX_PATH_BYTES) {
      throw DriverErrors.generic(
          "domain "
              + domain
              + ": its socket "
              + path
              + " takes "
              + bytes
              + " bytes, a socket address holds "
              + MAX_PATH_BYTES
              + "; a shorter name or run dir is needed");
    }
    return path;
  }

  static String escape(String name) {
    var text = new StringBuilder(name.length());
    for (byte b : name.getBytes(UTF_8)) {
      if (plain(b) || (b == '.' && !text.isEmpty())) {
        text.append((char) b);
      } else {
        text.append('%').append(String.format("%02X", b & 0xff));
      }
    }
    return text.toString();
  }

  private static boolean plain(byte b) {
    return (b >= 'a' && b <= 'z')
        || (b >= 'A' && b <= 'Z')
        || (b >= '0' && b <= '9')
        || b == '_'
        || b == '-'
        || b == '+';
  }
}
