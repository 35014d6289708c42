// SPDX-License-Identifier: Apache-2.0
/// Long operations on nodes: mirror and backup, with QEMU's states and verbs.
@org.jspecify.annotations.NullMarked
module io.tidemark.job {
  requires static org.jspecify;
  requires transitive io.tidemark.block;

  exports io.tidemark.job;
}
