// SPDX-License-Identifier: Apache-2.0
/// The embedded driver: domains whose disks are Tidemark's own nodes and jobs.
@org.jspecify.annotations.NullMarked
module io.tidemark.engine {
  requires static org.jspecify;
  requires transitive io.tidemark.domain;
  requires io.tidemark.linux;
  requires io.tidemark.block;
  requires io.tidemark.qcow2;
  requires io.tidemark.nbd;
  requires io.tidemark.job;

  exports io.tidemark.engine;
}
