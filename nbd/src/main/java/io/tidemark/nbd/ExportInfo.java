// SPDX-License-Identifier: Apache-2.0
package io.tidemark.nbd;

import java.util.List;

/// What a server says of an export.
///
/// @param size bytes
/// @param transmissionFlags as on the wire. Spec: proto.md, "Transmission flags"
/// @param minBlock bytes that offsets and lengths must be multiples of
/// @param preferredBlock bytes that are best for offsets and lengths
/// @param maxPayload bytes of the largest read or write
/// @param contexts metadata contexts it offers, by name
public record ExportInfo(
    String name,
    String description,
    long size,
    int transmissionFlags,
    int minBlock,
    int preferredBlock,
    int maxPayload,
    List<String> contexts) {
  public ExportInfo {
    contexts = List.copyOf(contexts);
  }

  public boolean readOnly() {
    return has(Wire.Flag.READ_ONLY);
  }

  public boolean rotational() {
    return has(Wire.Flag.ROTATIONAL);
  }

  public boolean canFlush() {
    return has(Wire.Flag.SEND_FLUSH);
  }

  public boolean canFua() {
    return has(Wire.Flag.SEND_FUA);
  }

  public boolean canTrim() {
    return has(Wire.Flag.SEND_TRIM);
  }

  public boolean canZero() {
    return has(Wire.Flag.SEND_WRITE_ZEROES);
  }

  public boolean canFastZero() {
    return has(Wire.Flag.SEND_FAST_ZERO);
  }

  public boolean canDf() {
    return has(Wire.Flag.SEND_DF);
  }

  public boolean canMultiConn() {
    return has(Wire.Flag.CAN_MULTI_CONN);
  }

  public boolean canCache() {
    return has(Wire.Flag.SEND_CACHE);
  }

  private boolean has(int flag) {
    return (transmissionFlags & flag) != 0;
  }
}
