// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.tidemark.domain.spi.Storage;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

class LayerTest {
  @Test
  void recordKeepsEveryKindOfStorage() throws LibvirtException {
    List<Layer> layers =
        List.of(
            new Layer(1, "/img/a b.qcow2", "qcow2"),
            new Layer(2, new Storage.Device(Path.of("/dev/loop0")), "raw"),
            new Layer(
                3, new Storage.Nbd(Optional.of(Path.of("/run/x y.sock")), "", 0, "ex/1"), "raw"),
            new Layer(4, new Storage.Nbd(Optional.empty(), "::1", 10_810, "", 30), "raw"));
    XmlElement disk = new XmlElement("disk");
    layers.forEach(layer -> disk.add(Layer.toXml(layer)));
    String written = Xml.write(disk);
    assertThat(Layer.allOf(Xml.parse(written, "x", ErrorDomain.DOMAIN, "disk"))).isEqualTo(layers);
  }

  @Test
  void exportsAreCalledByTheirUri() {
    assertThat(new Storage.Nbd(Optional.of(Path.of("/run/x y")), "", 0, "e x").location())
        .isEqualTo("nbd+unix:///e%20x?socket=/run/x%20y");
    assertThat(new Storage.Nbd(Optional.empty(), "::1", 10_809, "ex").location())
        .isEqualTo("nbd://[::1]:10809/ex");
  }

  @Test
  void damagedLayerIsRefused() {
    XmlElement disk = new XmlElement("disk");
    disk.add("layer").attribute("index", 1).attribute("type", "network").add("source");
    assertThatThrownBy(() -> Layer.allOf(disk)).isInstanceOf(IllegalArgumentException.class);
  }
}
