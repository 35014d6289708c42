// SPDX-License-Identifier: Apache-2.0
/// What libvirt means by domain, disk chain, block job, checkpoint and backup, once for every
/// driver.
@org.jspecify.annotations.NullMarked
module io.tidemark.domain {
  requires static org.jspecify;
  requires transitive java.xml;

  exports io.tidemark.domain;
  exports io.tidemark.domain.spi;
}
