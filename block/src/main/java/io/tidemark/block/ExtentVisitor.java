// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

/// Receives extents in order of offset, without gaps.
@FunctionalInterface
public interface ExtentVisitor {
  /// Returns whether to go on with the next extent.
  boolean visit(Extent extent) throws BlockException;
}
