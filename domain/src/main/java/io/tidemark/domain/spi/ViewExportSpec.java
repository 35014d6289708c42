// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain.spi;

import java.util.Optional;

/// A frozen view offered to clients, read-only (QEMU: `block-export-add`).
///
/// @param jobId of a [TransactionAction.StartView] that has started
/// @param name what clients ask for
/// @param bitmap name under which the view's bitmap is offered, as `qemu:dirty-bitmap:NAME`;
///   absent: none is
public record ViewExportSpec(String jobId, String name, Optional<String> bitmap) {}
