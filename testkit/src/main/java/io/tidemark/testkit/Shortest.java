// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

/// Shortens a case that fails: of all its beginnings, the shortest that fails is reported.
public final class Shortest {
  /// A case that can be run for as many steps as one likes, each time from the start.
  public interface Case {
    void run(int steps) throws Exception;
  }

  private Shortest() {}

  /// Runs the case; when it fails, runs every shorter beginning, shortest first, and fails with the
  /// first that fails as well.
  public static void run(int steps, Case test) throws Exception {
    try {
      test.run(steps);
    } catch (Exception | AssertionError whole) {
      for (int shorter = 1; shorter < steps; shorter++) {
        try {
          test.run(shorter);
        } catch (Exception | AssertionError failure) {
          var report =
              new AssertionError("fails with " + shorter + " of " + steps + " steps", failure);
          report.addSuppressed(whole);
          throw report;
        }
      }
      throw whole;
    }
  }
}
