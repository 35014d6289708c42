// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import java.util.Optional;

/// A backing file as an image records it.
///
/// @param name the recorded text: absolute, or relative to the folder of the image that records it,
///   or a URI
/// @param format the recorded format; absent when the image does not say (then only `tidemark
///   image` may probe)
public record BackingReference(String name, Optional<String> format) {}
