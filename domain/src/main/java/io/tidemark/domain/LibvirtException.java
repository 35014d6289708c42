// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import org.jspecify.annotations.Nullable;

/// A refusal or failure as libvirt's clients see it: number, domain, text. The one exception that
/// leaves this room.
public final class LibvirtException extends Exception {
  private static final long serialVersionUID = 1L;
  private final ErrorCode code;
  private final ErrorDomain domain;

  public LibvirtException(
      ErrorCode code, ErrorDomain domain, String message, @Nullable Throwable cause) {
    super(message, cause);
    this.code = code;
    this.domain = domain;
  }

  public LibvirtException(ErrorCode code, ErrorDomain domain, String message) {
    this(code, domain, message, null);
  }

  public ErrorCode code() {
    return code;
  }

  public ErrorDomain domain() {
    return domain;
  }
}
