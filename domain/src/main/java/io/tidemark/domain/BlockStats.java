// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

/// virDomainBlockStats; `errors` is -1 when not counted.
public record BlockStats(
    long readRequests, long readBytes, long writeRequests, long writeBytes, long errors) {}
