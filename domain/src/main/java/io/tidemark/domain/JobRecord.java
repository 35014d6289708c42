// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.List;
import java.util.Optional;

/// A block job as the live record keeps it: all that a restart needs to finish it, once its phase
/// is `changed`, or to report it failed.
final class JobRecord {
  private static final String NAME = "job";

  private JobRecord() {}

  static XmlElement write(BlockJob job) {
    XmlElement element =
        new XmlElement(NAME)
            .attribute("id", job.id())
            .attribute("type", job.type().name())
            .attribute("phase", job.phase() == BlockJob.Phase.CHANGED ? "changed" : "running")
            .attribute("source", job.sourceFile());
    switch (job.change()) {
      case ChainChange.Copy copy -> {
        element
            .attribute("sharesBacking", yes(copy.sharesBacking()))
            .attribute("terminated", yes(copy.terminated()))
            .attribute("updatesDefinition", yes(copy.updatesDefinition()));
        layers(element, "mirror", copy.mirror());
      }
      case ChainChange.Pull pull -> {
        layers(element, "overlay", List.of(pull.active()));
        pull.base().ifPresent(base -> backing(element, base));
      }
      case ChainChange.Commit commit -> {
        element.attribute("delete", yes(commit.delete()));
        layers(element, "overlay", List.of(commit.overlay()));
        layers(element, "committed", commit.committed());
        backing(element, commit.base());
      }
      case ChainChange.ActiveCommit commit -> {
        element.attribute("delete", yes(commit.delete()));
        layers(element, "committed", commit.committed());
        layers(element, "base", List.of(commit.base()));
      }
    }
    return element;
  }

  private static String yes(boolean value) {
    return value ? "yes" : "no";
  }

  private static XmlElement layers(XmlElement job, String name, List<Layer> layers) {
    XmlElement element = job.add(name);
    layers.forEach(layer -> element.add(Layer.toXml(layer)));
    return element;
  }

  private static void backing(XmlElement job, ChainChange.Backing backing) {
    XmlElement element = layers(job, "base", List.of(backing.layer()));
    backing.name().ifPresent(name -> element.attribute("name", name));
  }

  /// @throws IllegalArgumentException when it cannot be understood
  static BlockJob read(XmlElement element) {
    BlockJob job =
        new BlockJob(element.attribute("id"), change(element), element.attribute("source"));
    if (element.attribute("phase").equals("changed")) {
      job.phase(BlockJob.Phase.CHANGED);
    }
    return job;
  }

  private static ChainChange change(XmlElement element) {
    return switch (BlockJobType.valueOf(element.attribute("type"))) {
      case COPY ->
          new ChainChange.Copy(
              layers(element, "mirror"),
              is(element, "sharesBacking"),
              is(element, "terminated"),
              is(element, "updatesDefinition"));
      case PULL ->
          new ChainChange.Pull(
              layers(element, "overlay").getFirst(),
              element.child("base").isPresent() ? Optional.of(backing(element)) : Optional.empty());
      case COMMIT ->
          new ChainChange.Commit(
              layers(element, "overlay").getFirst(),
              layers(element, "committed"),
              backing(element),
              is(element, "delete"));
      case ACTIVE_COMMIT ->
          new ChainChange.ActiveCommit(
              layers(element, "committed"),
              layers(element, "base").getFirst(),
              is(element, "delete"));
      case BACKUP -> throw new IllegalArgumentException("a backup is no block job of one disk");
    };
  }

  private static boolean is(XmlElement element, String attribute) {
    return element.attribute(attribute).equals("yes");
  }

  private static List<Layer> layers(XmlElement job, String name) {
    return Layer.allOf(job.child(name).orElseThrow());
  }

  private static ChainChange.Backing backing(XmlElement job) {
    XmlElement base = job.child("base").orElseThrow();
    return new ChainChange.Backing(
        Layer.allOf(base).getFirst(),
        base.hasAttribute("name") ? Optional.of(base.attribute("name")) : Optional.empty());
  }
}
