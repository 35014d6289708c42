// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// What a block job event tells (virConnectDomainEventBlockJobStatus).
public enum BlockJobStatus {
  COMPLETED(0),
  FAILED(1),
  CANCELED(2),
  READY(3);

  private final int number;

  BlockJobStatus(int number) {
    this.number = number;
  }

  public int number() {
    return number;
  }
}
