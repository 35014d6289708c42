// SPDX-License-Identifier: Apache-2.0
package io.tidemark.daemon;

import static org.assertj.core.api.Assertions.assertThat;

import io.tidemark.domain.ErrorCode;
import io.tidemark.domain.ErrorDomain;
import io.tidemark.domain.LibvirtException;
import io.tidemark.rpc.ProcedureRow;
import io.tidemark.rpc.Program;
import io.tidemark.rpc.Remote;
import io.tidemark.rpc.RpcException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class FailuresTest {
  private static final ProcedureRow ROW = Remote.DOMAIN_BLOCK_COPY.row();

  @ParameterizedTest
  @EnumSource
  void everyRefusalKeepsNumberDomainAndText(ErrorCode code) {
    RpcException error =
        Failures.of(ROW, new LibvirtException(code, ErrorDomain.HYPERVISOR, "why not"));
    assertThat(error.code()).isEqualTo(code.number());
    assertThat(error.domain()).isEqualTo(10);
    assertThat(error).hasMessage("why not");
  }

  @Test
  void anythingElseIsAnInternalError() {
    for (Throwable bug :
        new Throwable[] {new IllegalStateException("x"), new StackOverflowError()}) {
      RpcException error = Failures.of(ROW, bug);
      assertThat(error.code()).isEqualTo(1);
      assertThat(error.domain()).isZero();
      assertThat(error).hasMessageStartingWith("internal error: ");
    }
  }

  @Test
  void errorOfTheConnectionPassesAsItIs() {
    RpcException error = RpcException.connection("hypervisor connection not open");
    assertThat(Failures.of(ROW, error)).isSameAs(error);
  }

  @ParameterizedTest
  @CsvSource({
    "345, 20, virDomainBlockCopy",
    "411, 69, virDomainCheckpointCreateXML",
    "185, 35, virDomainSnapshotCreateXML",
    "281, 0, virConnectListAllStoragePools",
    "77, 18, virStoragePoolDefineXML"
  })
  void refusalsNameTheCallAndItsPartOfLibvirt(int number, int domain, String call) {
    ProcedureRow row = ProcedureRow.of(Program.REMOTE, number).orElseThrow();
    RpcException error = Failures.unsupported(row);
    assertThat(error.code()).isEqualTo(3);
    assertThat(error.domain()).isEqualTo(domain);
    assertThat(error)
        .hasMessage("this function is not supported by the connection driver: " + call);
    assertThat(Failures.readOnly(row))
        .hasMessage("operation forbidden: read only access prevents " + call);
  }
}
