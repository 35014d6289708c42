// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.block.FormatNode;
import io.tidemark.qcow2.CheckResult;
import io.tidemark.qcow2.Qcow2Image;
import io.tidemark.qcow2.Repair;
import io.tidemark.qcow2.RepairResult;
import java.io.IOException;
import java.io.PrintWriter;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark image check`, with qemu-img's codes: 0 sound, 1 the check could not be completed, 2
/// corruptions, 3 leaks only, 63 the format has nothing to check.
@Command(
    name = "check",
    description = "Holds every reference in an image against every refcount.",
    mixinStandardHelpOptions = true,
    versionProvider = Tidemark.Version.class,
    exitCodeOnInvalidInput = 1)
final class ImageCheck implements Callable<Integer> {
  private static final int INCOMPLETE = 1;
  private static final int CORRUPT = 2;
  private static final int LEAKS = 3;
  private static final int UNSUPPORTED = 63;

  @Spec CommandSpec spec = CommandSpec.create();

  @Mixin InputOptions input = new InputOptions();

  @Mixin OutputOption output = new OutputOption();

  @Option(
      names = {"-r", "--repair"},
      paramLabel = "leaks|all",
      description = "put right what was found: leaked clusters only, or all")
  Optional<Repair> repair = Optional.empty();

  @Option(
      names = {"-q", "--quiet"},
      description = "print only errors")
  boolean quiet;

  @Mixin ShareOption share = new ShareOption();

  @Option(names = "-T", paramLabel = "CACHE", description = "accepted for qemu-img's sake")
  Optional<String> cache = Optional.empty();

  @Parameters(paramLabel = "FILE")
  String file = "";

  @Override
  public Integer call() throws IOException, CommandException {
    if (cache.isPresent()) {
      CacheMode.of("-T", cache.get());
    }
    boolean repairing = repair.isPresent();
    if (repairing && share.forceShare) {
      throw new CommandException("-r changes the image and cannot share it: leave out -U");
    }
    // A repair makes it writable by itself: so it gets at images that others may not write to.
    try (FormatNode node = input.openLayer(file, share.reading().toJudge())) {
      if (!(node instanceof Qcow2Image image)) {
        throw new CommandException(
            file + ": format '" + node.format() + "' has nothing to check", UNSUPPORTED);
      }
      if (repairing) {
        return repair(image.repair(repair.get()));
      }
      CheckResult found = image.check();
      findings(found.findings());
      return report(found, 0, 0);
    }
  }

  private int repair(RepairResult done) {
    findings(done.findings());
    if (done.leaksFixed() > 0 || done.corruptionsFixed() > 0) {
      if (!output.json() && !quiet) {
        PrintWriter out = spec.commandLine().getOut();
        out.println("The following inconsistencies were found and repaired:\n");
        out.println("    " + done.leaksFixed() + " leaked clusters");
        out.println("    " + done.corruptionsFixed() + " corruptions\n");
        out.println("Double checking the fixed image now...");
      }
      findings(done.after().findings());
    }
    return report(done.after(), done.leaksFixed(), done.corruptionsFixed());
  }

  private void findings(List<String> lines) {
    PrintWriter err = spec.commandLine().getErr();
    lines.forEach(err::println);
  }

  private int report(CheckResult result, long leaksFixed, long corruptionsFixed) {
    PrintWriter out = spec.commandLine().getOut();
    if (output.json()) {
      out.println(ImageJson.text(json(result, leaksFixed, corruptionsFixed)));
    } else if (!quiet) {
      out.print(human(result));
    }
    if (result.checkErrors() > 0) {
      return INCOMPLETE;
    }
    if (result.corruptions() > 0) {
      return CORRUPT;
    }
    return result.leaks() > 0 ? LEAKS : ExitStatus.DONE.code();
  }

  private static String human(CheckResult result) {
    StringBuilder text = new StringBuilder();
    if (result.corruptions() == 0 && result.leaks() == 0 && result.checkErrors() == 0) {
      text.append("No errors were found on the image.\n");
    }
    if (result.corruptions() > 0) {
      text.append("\n" + result.corruptions() + " errors were found on the image.\n");
      text.append("Data may be corrupted, or further writes to the image may corrupt it.\n");
    }
    if (result.leaks() > 0) {
      text.append("\n" + result.leaks() + " leaked clusters were found on the image.\n");
      text.append("This means waste of disk space, but no harm to data.\n");
    }
    if (result.checkErrors() > 0) {
      text.append(
          "\n" + result.checkErrors() + " internal errors have occurred during the check.\n");
    }
    if (result.totalClusters() != 0 && result.allocatedClusters() != 0) {
      text.append(
          String.format(
              Locale.ROOT,
              "%d/%d = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n",
              result.allocatedClusters(),
              result.totalClusters(),
              percent(result.allocatedClusters(), result.totalClusters()),
              percent(result.fragmentedClusters(), result.allocatedClusters()),
              percent(result.compressedClusters(), result.allocatedClusters())));
    }
    if (result.imageEndOffset() > 0) {
      text.append("Image end offset: " + result.imageEndOffset() + "\n");
    }
    return text.toString();
  }

  private static double percent(long part, long whole) {
    return 100.0 * part / whole;
  }

  private ImageJson.Members json(CheckResult result, long leaksFixed, long corruptionsFixed) {
    ImageJson.Members json = new ImageJson.Members();
    json.put("image-end-offset", result.imageEndOffset());
    putCount(json, "total-clusters", result.totalClusters());
    putCount(json, "corruptions", result.corruptions());
    putCount(json, "leaks", result.leaks());
    json.put("check-errors", result.checkErrors());
    putCount(json, "corruptions-fixed", corruptionsFixed);
    putCount(json, "leaks-fixed", leaksFixed);
    putCount(json, "allocated-clusters", result.allocatedClusters());
    putCount(json, "fragmented-clusters", result.fragmentedClusters());
    putCount(json, "compressed-clusters", result.compressedClusters());
    return json.put("filename", file).put("format", "qcow2");
  }

  /// Counts of zero are left out.
  private static void putCount(ImageJson.Members json, String name, long count) {
    if (count != 0) {
      json.put(name, count);
    }
  }
}
