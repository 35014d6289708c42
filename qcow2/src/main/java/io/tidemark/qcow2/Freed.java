// SPDX-License-Identifier: Apache-2.0
package io.tidemark.qcow2;

/// Host clusters `[first, first + count)` that lost one reference each by a change.
record Freed(long first, long count) {}
