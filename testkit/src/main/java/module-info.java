// SPDX-License-Identifier: Apache-2.0
/// What tests of disks need: a file that loses power, a disk that is plainly right, workloads from
/// a seed.
@org.jspecify.annotations.NullMarked
module io.tidemark.testkit {
  requires static org.jspecify;
  requires transitive io.tidemark.block;
  requires org.junit.jupiter.api;
  requires org.junit.jupiter.params;
  requires org.opentest4j;
  requires org.assertj.core;
  requires java.management;
  requires jdk.management;

  exports io.tidemark.testkit;
}
