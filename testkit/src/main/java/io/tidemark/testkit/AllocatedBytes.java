// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import com.sun.management.ThreadMXBean;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadInfo;

/// What threads take from the Java heap.
public final class AllocatedBytes {
  private static final ThreadMXBean THREADS =
      ManagementFactory.getPlatformMXBean(ThreadMXBean.class);

  private AllocatedBytes() {}

  /// Bytes that a live thread has allocated since it began; there is one whose name begins so.
  public static long ofThread(String name) {
    for (long id : THREADS.getAllThreadIds()) {
      ThreadInfo info = THREADS.getThreadInfo(id);
      if (info != null && info.getThreadName().startsWith(name)) {
        return THREADS.getThreadAllocatedBytes(id);
      }
    }
    throw new AssertionError("no thread's name begins with " + name);
  }
}
