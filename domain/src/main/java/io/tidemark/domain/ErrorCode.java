// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// libvirt's error numbers (virErrorNumber), those that are raised here.
public enum ErrorCode {
  INTERNAL_ERROR(1, "internal error: "),
  NO_SUPPORT(3, "this function is not supported by the connection driver: "),
  NO_CONNECT(5),
  INVALID_ARG(8, "invalid argument: "),
  OPERATION_FAILED(9, "operation failed: "),
  OS_TYPE(16),
  NO_SOURCE(19),
  NO_TARGET(20),
  NO_NAME(21),
  XML_ERROR(27, "XML error: "),
  DOM_EXIST(28),
  OPERATION_DENIED(29, "operation forbidden: "),
  XML_DETAIL(35),
  SYSTEM_ERROR(38),
  RPC(39),
  NO_DOMAIN(42, "Domain not found: "),
  NO_NETWORK(43, "Network not found: "),
  AUTH_FAILED(45),
  NO_STORAGE_POOL(49, "Storage pool not found: "),
  NO_STORAGE_VOL(50, "Storage volume not found: "),
  NO_NODE_DEVICE(53, "Node device not found: "),
  OPERATION_INVALID(55, "Requested operation is not valid: "),
  NO_INTERFACE(57, "Interface not found: "),
  NO_NWFILTER(62, "Network filter not found: "),
  NO_SECRET(66, "Secret not found: "),
  CONFIG_UNSUPPORTED(67, "unsupported configuration: "),
  OPERATION_TIMEOUT(68, "Timed out during operation: "),
  NO_DOMAIN_SNAPSHOT(72, "Domain snapshot not found: "),
  ARGUMENT_UNSUPPORTED(74, "argument unsupported: "),
  OPERATION_ABORTED(78, "operation aborted: "),
  NO_DOMAIN_METADATA(80, "metadata not found: "),
  MIGRATE_UNSAFE(81, "Unsafe migration: "),
  OVERFLOW(82, "numerical overflow: "),
  BLOCK_COPY_ACTIVE(83, "block copy still active: "),
  OPERATION_UNSUPPORTED(84, "Operation not supported: "),
  AGENT_UNRESPONSIVE(86, "Guest agent is not responding: "),
  XML_INVALID_SCHEMA(92, "XML document failed to validate against schema: "),
  DEVICE_MISSING(99, "device not found: "),
  NO_NWFILTER_BINDING(101, "Network filter binding not found: "),
  INVALID_DOMAIN_CHECKPOINT(102, "Invalid domain checkpoint: "),
  NO_DOMAIN_CHECKPOINT(103, "Domain checkpoint not found: "),
  NO_DOMAIN_BACKUP(104, "Domain backup job id not found: "),
  CHECKPOINT_INCONSISTENT(109, "checkpoint inconsistent: ");

  private final int number;
  private final String prefix;

  ErrorCode(int number) {
    this(number, "");
  }

  ErrorCode(int number, String prefix) {
    this.number = number;
    this.prefix = prefix;
  }

  /// An error of this number; libvirt's words for the number come before `detail`.
  public LibvirtException in(ErrorDomain domain, String detail) {
    return new LibvirtException(this, domain, prefix + detail);
  }

  /// As [#in], from the hypervisor driver.
  LibvirtException because(String detail) {
    return in(ErrorDomain.HYPERVISOR, detail);
  }

  public int number() {
    return number;
  }
}
