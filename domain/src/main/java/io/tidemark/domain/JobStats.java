// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.List;

/// virDomainGetJobStats.
///
/// @param type virDomainJobType: 0 none, 2 unbounded (running), 3 completed, 4 failed, 5 cancelled
public record JobStats(int type, List<TypedParam> params) {
  static final JobStats NONE = new JobStats(0, List.of());
}
