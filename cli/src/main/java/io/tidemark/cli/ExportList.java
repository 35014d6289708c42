// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import io.tidemark.nbd.ClientOptions;
import io.tidemark.nbd.ExportInfo;
import io.tidemark.nbd.NbdClient;
import io.tidemark.nbd.NbdUri;
import java.io.PrintWriter;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/// `tidemark export list`: what an NBD server offers, with nbdinfo's names.
@Command(
    name = "list",
    description = "Lists the exports of an NBD server, with the names that nbdinfo gives.",
    mixinStandardHelpOptions = true,
    exitCodeOnInvalidInput = Tidemark.USAGE)
final class ExportList implements Callable<Integer> {
  @Spec CommandSpec spec = CommandSpec.create();

  @Option(names = "--output", paramLabel = "FORMAT", description = "human or json.")
  OutputFormat output = OutputFormat.HUMAN;

  @Option(names = "--json", description = "The same as --output json.")
  boolean json;

  @Parameters(
      paramLabel = "URI",
      description =
          "nbd://HOST[:PORT] or nbd+unix://?socket=PATH; an export name is not looked at.")
  String uri = "";

  @Override
  public Integer call() throws Exception {
    NbdUri server = NbdUri.parse(uri);
    List<ExportInfo> exports = NbdClient.list(server, ClientOptions.defaults());
    PrintWriter out = spec.commandLine().getOut();
    if (json || output == OutputFormat.JSON) {
      out.println(ImageJson.text(json(server, exports)));
    } else {
      exports.forEach(export -> print(out, server, export));
    }
    return ExitStatus.DONE.code();
  }

  private static String uri(NbdUri server, ExportInfo export) {
    return new NbdUri(server.socket(), server.host(), server.port(), export.name(), server.tls())
        .toString();
  }

  private static Map<String, Boolean> abilities(ExportInfo export) {
    var abilities = new LinkedHashMap<String, Boolean>();
    abilities.put("is_rotational", export.rotational());
    abilities.put("is_read_only", export.readOnly());
    abilities.put("can_cache", export.canCache());
    abilities.put("can_df", export.canDf());
    abilities.put("can_fast_zero", export.canFastZero());
    abilities.put("can_flush", export.canFlush());
    abilities.put("can_fua", export.canFua());
    abilities.put("can_multi_conn", export.canMultiConn());
    abilities.put("can_trim", export.canTrim());
    abilities.put("can_zero", export.canZero());
    return abilities;
  }

  private static Map<String, Integer> blockSizes(ExportInfo export) {
    var sizes = new LinkedHashMap<String, Integer>();
    sizes.put("block_size_minimum", export.minBlock());
    sizes.put("block_size_preferred", export.preferredBlock());
    sizes.put("block_size_maximum", export.maxPayload());
    return sizes;
  }

  private static void print(PrintWriter out, NbdUri server, ExportInfo export) {
    out.println("export=" + Printable.quoted(export.name()) + ":");
    if (!export.description().isEmpty()) {
      out.println("\tdescription: " + Printable.plain(export.description()));
    }
    out.println("\texport-size: " + export.size() + " (" + ImageSize.human(export.size()) + ")");
    out.println("\turi: " + uri(server, export));
    if (!export.contexts().isEmpty()) {
      out.println("\tcontexts:");
      export.contexts().forEach(name -> out.println("\t\t" + Printable.plain(name)));
    }
    abilities(export).forEach((name, can) -> out.println("\t" + name + ": " + can));
    blockSizes(export).forEach((name, bytes) -> out.println("\t" + name + ": " + bytes));
  }

  private static ImageJson.Members json(NbdUri server, List<ExportInfo> exports) {
    ImageJson.Members all = new ImageJson.Members();
    ImageJson.Elements list = all.putArray("exports");
    for (ExportInfo export : exports) {
      ImageJson.Members one = list.addObject();
      one.put("export-name", export.name());
      one.put("description", export.description());
      one.put("uri", uri(server, export));
      ImageJson.Elements contexts = one.putArray("contexts");
      export.contexts().forEach(contexts::add);
      abilities(export).forEach(one::put);
      blockSizes(export).forEach(one::put);
      one.put("export-size", export.size());
    }
    return all;
  }
}
