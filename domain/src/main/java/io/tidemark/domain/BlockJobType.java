// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// libvirt's kinds of block job (virDomainBlockJobType).
public enum BlockJobType {
  PULL(1),
  COPY(2),
  COMMIT(3),
  ACTIVE_COMMIT(4),
  BACKUP(5);

  private final int number;

  BlockJobType(int number) {
    this.number = number;
  }

  public int number() {
    return number;
  }
}
