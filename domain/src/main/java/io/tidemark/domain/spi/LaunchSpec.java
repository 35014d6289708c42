// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.util.List;
import java.util.UUID;

/// All that a driver needs to run a domain.
///
/// @param id libvirt's id of the running domain, positive
/// @param paused start with guest requests held
public record LaunchSpec(String name, UUID uuid, int id, List<DriveSpec> drives, boolean paused) {}
