// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.BackingReference;
import io.tidemark.block.BlockException;
import io.tidemark.block.CreateOptions;
import io.tidemark.block.FormatNode;
import io.tidemark.block.ImageOpener;
import io.tidemark.block.ImageSource;
import io.tidemark.block.OpenOptions;
import io.tidemark.qcow2.Qcow2Image;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image create`.
@Command(
    name = "create",
    description = "Makes an empty image; a file that is there already is overwritten.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageCreate implements Callable<Integer> {
  private static final Set<PosixFilePermission> MODE = PosixFilePermissions.fromString("rw-r--r--");

  @Spec CommandSpec spec = CommandSpec.create();

  @Option(names = "-f", paramLabel = "FORMAT", description = "raw (the default) or qcow2")
  String format = "raw";

  @Option(names = "-b", paramLabel = "FILE", description = "backing file, recorded as given")
  Optional<String> backingFile = Optional.empty();

  @Option(names = "-F", paramLabel = "FORMAT", description = "format of the backing file")
  Optional<String> backingFormat = Optional.empty();

  @Option(names = "-u", description = "do not open the backing file")
  boolean unsafe;

  @Option(
      names = "-o",
      paramLabel = "NAME=VALUE,…",
      description = "options of the format; help lists them")
  List<String> options = new ArrayList<>();

  @Option(
      names = {"-q", "--quiet"},
      description = "print only errors")
  boolean quiet;

  @Parameters(index = "0", paramLabel = "FILE", arity = "0..1", description = "the image to make")
  Optional<String> file = Optional.empty();

  @Parameters(
      index = "1",
      paramLabel = "SIZE",
      arity = "0..1",
      description = "virtual size: bytes, or with k, M, G, T, P, E; default is the backing file's")
  Optional<String> size = Optional.empty();

  @Override
  public Integer call() throws Exception {
    String name = file.orElse("");
    FormatOptions wanted = new FormatOptions(name, format);
    if (FormatOptions.helpAsked(options)) {
      spec.commandLine().getOut().print(wanted.help());
      return ExitStatus.DONE.code();
    }
    if (file.isEmpty()) {
      throw new CommandException("expecting an image file name");
    }
    wanted.addAll(name, options);
    if (backingFile.isPresent()) {
      wanted.put(name, "backing_file", backingFile.get());
    }
    if (backingFormat.isPresent()) {
      wanted.put(name, "backing_fmt", backingFormat.get());
    }
    if (size.isPresent()) {
      wanted.put(name, "size", size.get());
    }
    Path path = ImageFiles.path(name);
    ImageFiles files = new ImageFiles();
    Optional<BackingReference> backing = backing(files, path, wanted);
    if (wanted.size().isEmpty()) {
      throw new CommandException(name + ": image creation needs a size");
    }
    if (!quiet) {
      spec.commandLine()
          .getOut()
          .println("Formatting '" + name + "', fmt=" + format + " " + wanted.shown());
    }
    create(
        files.opener(),
        path,
        format,
        new CreateOptions(wanted.size().get(), backing, wanted.forFormat()));
    return ExitStatus.DONE.code();
  }

  /// Makes the image in a new file (mode 0644 less the umask, as qemu-img), or in the one that is
  /// there. A file made by a call that then fails is removed.
  static void create(ImageOpener opener, Path path, String format, CreateOptions options)
      throws IOException {
    boolean made = !Files.exists(path);
    if (made) {
      Files.createFile(path, PosixFilePermissions.asFileAttribute(MODE));
    }
    try {
      opener.createOver(path, format, options);
      Optional<Path> logs = LogFolder.present();
      if (logs.isPresent()) {
        Qcow2Image.forgetLog(path, logs.get());
      }
    } catch (IOException | RuntimeException failure) {
      if (made) {
        Files.deleteIfExists(path);
      }
      throw failure;
    }
  }

  /// The backing file to record; its size becomes the image's when none was given.
  static Optional<BackingReference> backing(
      ImageFiles files, Path image, FormatOptions wanted, boolean unsafe)
      throws BlockException, CommandException {
    if (wanted.backingFile().isEmpty()) {
      if (wanted.backingFormat().isPresent()) {
        throw new CommandException(image + ": backing format cannot be used without backing file");
      }
      return Optional.empty();
    }
    BackingReference reference =
        new BackingReference(wanted.backingFile().get(), wanted.backingFormat());
    ImageSource source = ImageOpener.resolve(ImageSource.of(image), reference);
    Optional<Path> backing = source.localFile().filter(Files::exists);
    if (reference.format().isEmpty()) {
      String hint =
          backing.isPresent() ? " (it looks like " + files.opener().probe(backing.get()) + ")" : "";
      throw new CommandException(
          image + ": backing file specified without backing format: add -F" + hint);
    }
    if (unsafe && wanted.size().isPresent()) {
      return Optional.of(reference);
    }
    if (Files.exists(image) && backing.isPresent() && sameFile(image, backing.get())) {
      throw new CommandException(image + ": cannot be its own backing file");
    }
    try (FormatNode node = files.opener().open(source, reference.format(), OpenOptions.reading())) {
      if (wanted.size().isEmpty()) {
        wanted.put(image.toString(), "size", Long.toString(node.virtualSize()));
      }
    }
    return Optional.of(reference);
  }

  private Optional<BackingReference> backing(ImageFiles files, Path image, FormatOptions wanted)
      throws BlockException, CommandException {
    return backing(files, image, wanted, unsafe);
  }

  private static boolean sameFile(Path one, Path other) throws CommandException {
    try {
      return Files.isSameFile(one, other);
    } catch (IOException failure) {
      throw new CommandException(Tidemark.text(failure));
    }
  }
}
