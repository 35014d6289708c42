// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// libvirt's error numbers (virErrorNumber), those that are raised here.
public enum ErrorCode {
  INTERNAL_ERROR(1),
  NO_SUPPORT(3),
  NO_CONNECT(5),
  INVALID_ARG(8),
  OPERATION_FAILED(9),
  OS_TYPE(16),
  NO_SOURCE(19),
  NO_TARGET(20),
  NO_NAME(21),
  XML_ERROR(27),
  DOM_EXIST(28),
  OPERATION_DENIED(29),
  XML_DETAIL(35),
  SYSTEM_ERROR(38),
  RPC(39),
  NO_DOMAIN(42),
  AUTH_FAILED(45),
  OPERATION_INVALID(55),
  CONFIG_UNSUPPORTED(67),
  OPERATION_TIMEOUT(68),
  NO_DOMAIN_SNAPSHOT(72),
  ARGUMENT_UNSUPPORTED(74),
  OPERATION_ABORTED(78),
  NO_DOMAIN_METADATA(80),
  OVERFLOW(82),
  BLOCK_COPY_ACTIVE(83),
  OPERATION_UNSUPPORTED(84),
  AGENT_UNRESPONSIVE(86),
  XML_INVALID_SCHEMA(92),
  INVALID_DOMAIN_CHECKPOINT(102),
  NO_DOMAIN_CHECKPOINT(103),
  NO_DOMAIN_BACKUP(104),
  CHECKPOINT_INCONSISTENT(109);

  private final int number;

  ErrorCode(int number) {
    this.number = number;
  }

  public int number() {
    return number;
  }
}
