// SPDX-License-Identifier: Apache-2.0
package io.tidemark.domain;

import io.tidemark.domain.spi.DriverException;
import io.tidemark.domain.spi.ImageService;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// Finds the images of a disk's chain by the names that clients use: a path, absolute or as the
/// image above records it, or `vda[3]` by number.
///
/// @param target the disk's
/// @param layers active layer first; empty for a disk that does not run
record ChainLookup(ImageService images, String target, List<Layer> layers) {
  // Nine digits fit an int; nothing has more.
  private static final Pattern INDEXED = Pattern.compile("([^\\[\\]]*)\\[([0-9]{1,9})\\]");

  /// Place in the chain of the image that is meant.
  ///
  /// @param name absent: the last image
  /// @param beneath only images below this place are looked at; -1: all
  int find(Optional<String> name, int beneath) throws LibvirtException {
    int index = name.isPresent() ? indexOf(name.get()) : 0;
    for (int at = beneath + 1; at < layers.size(); at++) {
      boolean found;
      if (name.isEmpty()) {
        found = at == layers.size() - 1;
      } else if (index > 0) {
        found = layers.get(at).index() == index;
      } else {
        found = isCalled(at, name.get());
      }
      if (found) {
        return at;
      }
    }
    throw notFound(name, index, beneath);
  }

  /// The number in `vda[3]`; 0 when the name is not of that form.
  private int indexOf(String name) throws LibvirtException {
    Matcher matcher = INDEXED.matcher(name);
    if (!matcher.matches()) {
      return 0;
    }
    int index = Integer.parseInt(matcher.group(2));
    if (index > 0 && !matcher.group(1).equals(target)) {
      throw ErrorCode.INVALID_ARG.in(
          ErrorDomain.STORAGE,
          "requested target '%s' does not match target '%s'".formatted(matcher.group(1), target));
    }
    return index;
  }

  private boolean isCalled(int at, String name) {
    String file = layers.get(at).file();
    if (name.equals(file) || relativeName(at).filter(name::equals).isPresent()) {
      return true;
    }
    if (name.isEmpty()) {
      return false;
    }
    try {
      Path above = Path.of(at > 0 ? layers.get(at - 1).file() : file);
      return images.same(above.resolveSibling(name), Path.of(file));
    } catch (InvalidPathException _) {
      return false;
    }
  }

  private LibvirtException notFound(Optional<String> name, int index, int beneath) {
    String text;
    if (index > 0) {
      text = "could not find backing store index '%d' in chain for '%s'".formatted(index, target);
    } else if (name.isEmpty()) {
      text = "could not find base image in chain for '%s'".formatted(target);
    } else if (beneath >= 0 && beneath < layers.size()) {
      text =
          "could not find image '%s' beneath '%s' in chain for '%s'"
              .formatted(name.get(), layers.get(beneath).file(), target);
    } else {
      text = "could not find image '%s' in chain for '%s'".formatted(name.get(), target);
    }
    return ErrorCode.INVALID_ARG.in(ErrorDomain.STORAGE, text);
  }

  /// The relative name by which the image above records this one; absent when it has none.
  private Optional<String> relativeName(int at) {
    if (at == 0) {
      return Optional.empty();
    }
    Layer above = layers.get(at - 1);
    try {
      return images
          .inspect(Path.of(above.file()), above.format())
          .backing()
          .map(ImageService.Backing::name)
          .filter(ChainLookup::isRelative);
    } catch (DriverException | InvalidPathException _) {
      return Optional.empty();
    }
  }

  /// A colon before the first slash ends a protocol's name.
  private static boolean isRelative(String name) {
    int colon = name.indexOf(':');
    int slash = name.indexOf('/');
    return !name.isEmpty() && slash != 0 && (colon < 0 || (slash >= 0 && slash < colon));
  }

  /// How the image above `first` is to name `base`, when all names between are relative: each is
  /// taken from the folder of the one before.
  ///
  /// @param first place in the chain; not after `base`
  String relativeName(int first, int base) throws LibvirtException {
    String path = "";
    for (int at = first; at <= base; at++) {
      String name =
          relativeName(at)
              .orElseThrow(() ->
                  ErrorCode.OPERATION_INVALID.because("can't keep relative backing relationship"));
      path = path.substring(0, path.lastIndexOf('/') + 1) + name;
    }
    return path;
  }
}
