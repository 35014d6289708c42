// SPDX-License-Identifier: Apache-2.0
package io.tidemark.block;

import static io.tidemark.block.Extent.State.DATA;
import static io.tidemark.block.Extent.State.UNALLOCATED;
import static io.tidemark.block.Extent.State.ZERO;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

class ExtentsTest {
  private final MemoryNode base =
      new MemoryNode("base", 600)
          .extent(100, DATA)
          .extent(100, UNALLOCATED)
          .extent(100, DATA)
          .extent(300, DATA);
  private final MemoryNode mid =
      new MemoryNode("mid", 400).over(base).extent(100, UNALLOCATED).extent(300, UNALLOCATED);
  private final MemoryNode top =
      new MemoryNode("top", 800)
          .over(mid)
          .extent(50, DATA)
          .extent(200, UNALLOCATED)
          .extent(50, ZERO)
          .extent(500, UNALLOCATED);

  private static List<String> walk(BlockNode node, long offset, long length) throws BlockException {
    var seen = new ArrayList<String>();
    Extents.walk(node, offset, length, (e, d, layer) -> seen.add(text(e, d, layer)));
    return seen;
  }

  private static String text(Extent e, int depth, BlockNode layer) {
    return e.offset() + "+" + e.length() + " " + e.state() + " " + depth + " " + layer.name();
  }

  @Test
  void theTopmostLayerThatHoldsARangeAnswers() throws BlockException {
    assertThat(walk(top, 0, 400))
        .containsExactly(
            "0+50 DATA 0 top",
            "50+50 DATA 2 base",
            "100+100 UNALLOCATED 2 base",
            "200+50 DATA 2 base",
            "250+50 ZERO 0 top",
            "300+100 DATA 2 base");
  }

  @Test
  void whatLiesPastAShorterBackingNodeIsNotAskedOfDeeperLayers() throws BlockException {
    assertThat(walk(top, 350, 450))
        .containsExactly("350+50 DATA 2 base", "400+400 UNALLOCATED 0 top");
  }

  @Test
  void aWalkAboveABaseLeavesToItWhatItAnswersForAndZeroesTheRest() throws BlockException {
    var seen = new ArrayList<String>();
    Extents.walkAbove(top, base, 0, 800, (e, d, layer) -> seen.add(text(e, d, layer)));
    assertThat(seen)
        .containsExactly(
            "0+50 DATA 0 top",
            "50+200 UNALLOCATED 1 mid",
            "250+50 ZERO 0 top",
            "300+100 UNALLOCATED 1 mid",
            "400+400 ZERO 0 top");
    seen.clear();
    Extents.walkAbove(top, mid, 0, 800, (e, d, layer) -> seen.add(text(e, d, layer)));
    assertThat(seen)
        .containsExactly(
            "0+50 DATA 0 top",
            "50+200 UNALLOCATED 0 top",
            "250+50 ZERO 0 top",
            "300+500 UNALLOCATED 0 top");
  }

  @Test
  void aBaseThatIsNotBeneathIsRefused() {
    assertThatThrownBy(() -> Extents.walkAbove(mid, top, 0, 100, (_, _, _) -> true))
        .isInstanceOf(IllegalArgumentException.class);
    assertThatThrownBy(() -> Extents.walkAbove(mid, mid, 0, 100, (_, _, _) -> true))
        .isInstanceOf(IllegalArgumentException.class);
  }

  @Test
  void neighboursAreOneOnlyWhenTheirPlacesContinue() throws BlockException {
    var node = new MemoryNode("n", 300);
    node.layout.add(new Extent(0, 100, DATA, 0, false));
    node.layout.add(new Extent(100, 100, DATA, 100, false));
    node.layout.add(new Extent(200, 100, DATA, 1000, false));
    assertThat(walk(node, 0, 300)).containsExactly("0+200 DATA 0 n", "200+100 DATA 0 n");
  }

  @Test
  void aVisitorThatHasEnoughIsNotCalledAgain() throws BlockException {
    for (int most = 1; most <= 6; most++) {
      int limit = most;
      var seen = new ArrayList<Extent>();
      Extents.walk(
          top,
          0,
          800,
          (e, _, _) -> {
            seen.add(e);
            return seen.size() < limit;
          });
      assertThat(seen).hasSize(limit);
    }
  }

  @Test
  void anEmptyRangeHasNoExtents() throws BlockException {
    assertThat(walk(top, 100, 0)).isEmpty();
  }
}
