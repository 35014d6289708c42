// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// Which part of libvirt raises an error (virErrorDomain). `HYPERVISOR` is what libvirt calls
/// VIR_FROM_QEMU: clients and scripts know the driver's errors by that number.
public enum ErrorDomain {
  NONE(0),
  XML(5),
  RPC(7),
  HYPERVISOR(10),
  STORAGE(18),
  NETWORK(19),
  DOMAIN(20),
  NODE_DEVICE(22),
  INTERFACE(26),
  SECRET(30),
  NWFILTER(33),
  DOMAIN_SNAPSHOT(35),
  DOMAIN_CHECKPOINT(69);

  private final int number;

  ErrorDomain(int number) {
    this.number = number;
  }

  public int number() {
    return number;
  }
}
