// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.RunningDomain;
import java.util.Optional;

/// One run of a domain: its state, the driver's hold on it, and who listens.
///
/// @param owner identity of the connection whose end ends the domain
record Session(Live live, RunningDomain driver, JobWatch watch, Optional<Object> owner) {}
