// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.Storage;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/// The forms in which a domain is shown.
///
/// Spec: libvirt 9.0.0's output of running domains, measured: `<source index>`, `<backingStore>`
/// chain with indexes, `<mirror>` after it, alias.
final class DomainXml {
  private DomainXml() {}

  /// A copy without the passwords of its consoles, which libvirt shows to who asks for them
  /// (VIR_DOMAIN_XML_SECURE) on a read-write connection.
  static XmlElement withoutSecrets(XmlElement domain) {
    XmlElement copy = domain.copy();
    copy.child("devices")
        .ifPresent(devices ->
            devices.children("graphics").forEach(console -> console.removeAttribute("passwd")));
    return copy;
  }

  /// What a client sees of a running domain.
  static XmlElement live(Live live) {
    XmlElement root = live.definition().root().copy();
    root.attribute("id", live.id());
    decorate(root, live, true);
    return root;
  }

  /// The inactive form of a domain that has no persistent definition: libvirt leaves index and
  /// alias in, and the chain it found itself out.
  static XmlElement inactiveOfTransient(Live live) {
    XmlElement root = live.definition().root().copy();
    decorate(root, live, false);
    return root;
  }

  private static void decorate(XmlElement root, Live live, boolean chains) {
    Map<String, LiveDisk> disks =
        live.disks().stream().collect(Collectors.toMap(LiveDisk::target, Function.identity()));
    for (XmlElement element : root.childOrNew("devices").children("disk")) {
      DiskElement shown = new DiskElement(element);
      LiveDisk disk = disks.get(shown.target());
      if (disk == null) {
        continue;
      }
      if (disk.hasMedium()) {
        element.childOrNew("source").attribute("index", disk.active().index());
        if (chains) {
          shown.setBacking(backingStore(disk.layers(), true, disk.terminated()));
          BlockJob job = disk.job();
          if (job != null && job.phase() != BlockJob.Phase.CHANGED) {
            mirror(job).ifPresent(element::add);
          }
        }
      }
      element.removeChildren("alias");
      element.add("alias").attribute("name", disk.alias());
      shown.order();
    }
  }

  /// The `<backingStore>` of a chain's first layer: an empty one ends the chain.
  ///
  /// @param terminated whether the chain is known to end; if not, its last layer has none
  static Optional<XmlElement> backingStore(List<Layer> chain, boolean indexes, boolean terminated) {
    if (chain.size() == 1) {
      return terminated ? Optional.of(new XmlElement("backingStore")) : Optional.empty();
    }
    List<Layer> beneath = chain.subList(1, chain.size());
    Layer layer = beneath.getFirst();
    XmlElement store = new XmlElement("backingStore").attribute("type", "");
    if (indexes) {
      store.attribute("index", layer.index());
    }
    store.add("format").attribute("type", layer.format());
    StorageXml.write(store, layer.storage());
    backingStore(beneath, indexes, terminated).ifPresent(store::add);
    return Optional.of(store);
  }

  /// What a job that pivots shows in its disk.
  private static Optional<XmlElement> mirror(BlockJob job) {
    return switch (job.change()) {
      case ChainChange.Copy copy -> Optional.of(copyMirror(job, copy));
      case ChainChange.ActiveCommit commit -> {
        XmlElement mirror = new XmlElement("mirror").attribute("type", "");
        state(mirror, "active-commit", job);
        yield Optional.of(image(mirror, commit.base()));
      }
      case ChainChange.Pull _, ChainChange.Commit _ -> Optional.empty();
    };
  }

  private static XmlElement copyMirror(BlockJob job, ChainChange.Copy copy) {
    Layer top = copy.mirror().getFirst();
    XmlElement mirror = new XmlElement("mirror").attribute("type", "");
    if (top.storage() instanceof Storage.LocalFile) {
      mirror.attribute("file", top.file()).attribute("format", top.format());
    }
    state(mirror, "copy", job);
    image(mirror, top);
    XmlElement cache = job.metadataCache();
    if (cache != null) {
      mirror.childOrNew("format").add(cache.copy());
    }
    if (!copy.sharesBacking()) {
      backingStore(copy.mirror(), true, copy.terminated()).ifPresent(mirror::add);
    }
    return mirror;
  }

  private static void state(XmlElement mirror, String kind, BlockJob job) {
    mirror.attribute("job", kind);
    String ready = readiness(job);
    if (ready != null) {
      mirror.attribute("ready", ready);
    }
  }

  private static XmlElement image(XmlElement mirror, Layer layer) {
    mirror.add("format").attribute("type", layer.format());
    StorageXml.write(mirror, layer.storage());
    mirror.childOrNew("source").attribute("index", layer.index());
    return mirror;
  }

  private static @Nullable String readiness(BlockJob job) {
    return switch (job.phase()) {
      case PIVOTING -> "pivot";
      case ABORTING -> "abort";
      case RUNNING, CHANGED, OVER -> job.ready() ? "yes" : null;
    };
  }
}
