// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import java.util.List;

/// Disk targets: `vda`, `sdb`, `hdaa`. What libvirt derives from them.
final class DiskNames {
  private static final List<String> PREFIXES = List.of("xvd", "ubd", "hd", "sd", "vd", "fd");

  /// Most letters after the prefix, so that an index fits an int.
  private static final int MAX_LETTERS = 5;

  private DiskNames() {}

  static boolean isDiskName(String dev) {
    return indexOf(dev) >= 0;
  }

  /// Number of a disk by its letters, `a` = 0, `aa` = 26; -1 when it is not a disk name.
  static int indexOf(String dev) {
    for (String prefix : PREFIXES) {
      if (dev.startsWith(prefix)) {
        return lettersIndex(dev.substring(prefix.length()));
      }
    }
    return -1;
  }

  private static int lettersIndex(String letters) {
    if (letters.isEmpty() || letters.length() > MAX_LETTERS) {
      return -1;
    }
    int index = 0;
    for (int i = 0; i < letters.length(); i++) {
      char c = letters.charAt(i);
      if (c < 'a' || c > 'z') {
        return -1;
      }
      index = (index + (i == 0 ? 0 : 1)) * 26 + (c - 'a');
    }
    return index;
  }

  static String busOf(String dev, String device) {
    if (dev.startsWith("hd")) {
      return "ide";
    }
    if (dev.startsWith("sd")) {
      return "scsi";
    }
    if (dev.startsWith("fd") || device.equals("floppy")) {
      return "fdc";
    }
    if (dev.startsWith("xvd")) {
      return "xen";
    }
    return dev.startsWith("ubd") ? "uml" : "virtio";
  }

  /// The alias libvirt gives a disk.
  static String alias(String dev, String bus) {
    int index = indexOf(dev);
    return switch (bus) {
      case "ide" -> "ide0-%d-%d".formatted(index / 2, index % 2);
      case "fdc" -> "fdc0-0-" + index;
      case "scsi" -> "scsi%d-0-0-%d".formatted(index / 7, index % 7);
      case "sata" -> "sata0-0-" + index;
      default -> "%s-disk%d".formatted(bus, index);
    };
  }
}
