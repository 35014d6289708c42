// SPDX-License-Identifier: Apache-2.0
package io.tidemark.interop;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/// Documents about a domain whose only disk is the qcow2 image `vda`.
final class OneDisk {
  private OneDisk() {}

  /// The domain's definition, as a file in `folder`.
  static Path domain(Path folder, String name, Path image) throws IOException {
    return Files.writeString(
        folder.resolve(name + ".xml"),
        """
        <domain type='tidemark'>
          <name>%s</name>
          <memory unit='MiB'>16</memory>
          <os><type>hvm</type></os>
          <devices>
            <disk type='file' device='disk'>
              <driver name='qemu' type='qcow2'/>
              <source file='%s'/>
              <target dev='vda' bus='virtio'/>
            </disk>
          </devices>
        </domain>
        """
            .formatted(name, image));
  }

  /// A full push backup into the qcow2 image `target`, as a file in `folder`.
  static Path backup(Path folder, Path target) throws IOException {
    return Files.writeString(
        folder.resolve("backup.xml"),
        """
        <domainbackup mode='push'>
          <disks>
            <disk name='vda' type='file'>
              <driver type='qcow2'/>
              <target file='%s'/>
            </disk>
          </disks>
        </domainbackup>
        """
            .formatted(target));
  }
}
