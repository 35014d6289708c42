// SPDX-License-Identifier: Apache-2.0
package io.tidemark.testkit;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;

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

  /// Drops what is not needed of a list that fails: halves first, then single elements, until
  /// nothing more can go or `attempts` are made.
  ///
  /// @param fails whether a shorter list fails as well
  public static <T> List<T> of(List<T> failing, int attempts, Predicate<List<T>> fails) {
    List<T> least = failing;
    int left = attempts;
    for (int length = Math.max(1, least.size() / 2); length > 0; length /= 2) {
      for (int at = 0; at + length <= least.size() && left > 0; left--) {
        var fewer = new ArrayList<>(least);
        fewer.subList(at, at + length).clear();
        if (fails.test(fewer)) {
          least = fewer;
        } else {
          at += length;
        }
      }
    }
    return least;
  }
}
