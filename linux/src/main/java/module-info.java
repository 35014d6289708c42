// SPDX-License-Identifier: Apache-2.0
/// System calls that the JDK does not offer, by the foreign function interface. The only room with
/// native access.
@org.jspecify.annotations.NullMarked
module io.tidemark.linux {
  requires static org.jspecify;

  exports io.tidemark.linux;
}
