// SPDX-License-Identifier: Apache-2.0
/// The `tidemark` command.
@org.jspecify.annotations.NullMarked
module io.tidemark.cli {
  requires static org.jspecify;
  requires io.tidemark.block;
  requires io.tidemark.qcow2;
  requires io.tidemark.nbd;
  requires io.tidemark.daemon;
  requires io.tidemark.rpc;
  requires info.picocli;
  requires org.slf4j;

  exports io.tidemark.cli;

  provides System.LoggerFinder with
      io.tidemark.cli.LoggerFinder;

  opens io.tidemark.cli to
      info.picocli;
}
