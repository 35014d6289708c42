// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import org.assertj.core.api.ThrowableAssert.ThrowingCallable;

/// Checks a refusal as a client sees it.
final class Refusals {
  /// How a refusal by a schema begins.
  static final String SCHEMA =
      "XML document failed to validate against schema: Unable to validate doc against ";

  private Refusals() {}

  static void assertRefused(ThrowingCallable call, int code, int domain, String text) {
    var refused = catchThrowableOfType(LibvirtException.class, call);
    assertThat(refused).as("refusal with %s", text).isNotNull();
    if (text.startsWith(SCHEMA)) {
      // What follows are the words of the library that validates.
      assertThat(refused).hasMessageStartingWith(text.substring(0, text.indexOf('\n') + 1));
    } else {
      assertThat(refused).hasMessage(text);
    }
    assertThat(refused.code().number()).isEqualTo(code);
    assertThat(refused.domain().number()).isEqualTo(domain);
  }

  /// For texts that are our own words.
  static void assertRefused(ThrowingCallable call, int code, int domain) {
    var refused = catchThrowableOfType(LibvirtException.class, call);
    assertThat(refused).isNotNull();
    assertThat(refused.code().number()).isEqualTo(code);
    assertThat(refused.domain().number()).isEqualTo(domain);
  }
}
