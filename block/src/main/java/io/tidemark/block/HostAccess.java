// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// How the bytes of a host file are reached.
public enum HostAccess {
  /// By the page cache.
  CACHED,
  /// Past the page cache (O_DIRECT), each request by the thread that makes it. A file system that
  /// has no such way is used by the page cache, with a warning.
  DIRECT,
  /// As [#DIRECT], and a thread may have several requests under way: [RequestQueue].
  DIRECT_QUEUED
}
