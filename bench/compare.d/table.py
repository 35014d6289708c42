# SPDX-License-Identifier: Apache-2.0
"""What every row shares: the setting, rounds that take turns, the table."""
import dataclasses
import math
import pathlib
import statistics
import sys
from typing import Optional

OURS = "tidemark"


@dataclasses.dataclass(frozen=True)
class Setting:
    folder: pathlib.Path  # for files and sockets; removed at the end
    tidemark: pathlib.Path
    quick: bool
    rounds: int
    only: Optional[str]

    def wants(self, workload):
        return self.only is None or self.only in workload

    def mib(self, full, quick):
        return quick if self.quick else full


def interleaved(setting, contestants, measure, what, warm_up=True):
    """One warm-up of each (none when quick), then rounds in turns, every other one backwards. Returns medians by name."""
    found = {name: [] for name in contestants}
    for turn in range(-1 if warm_up and not setting.quick else 0, setting.rounds):
        for name in list(contestants) if turn % 2 == 0 else reversed(list(contestants)):
            value = measure(contestants[name])
            print(f"\r\033[K{what}: {name} {value:.1f}", end="", file=sys.stderr, flush=True)
            if turn >= 0:
                found[name].append(value)
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


def ratio(values, more_is_better):
    """Ours to the best peer, above 1 where ours is better; None without a peer."""
    peers = [value for name, value in values.items() if name != OURS and value > 0]  # 0: it could not
    if not peers or not values.get(OURS):
        return None
    return values[OURS] / max(peers) if more_is_better else min(peers) / values[OURS]


def mean(ratios):
    known = [value for value in ratios if value]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else None


def table(title, unit, lines, more_is_better, digits=0, summary=True):
    """A Markdown table. `lines` are (workload, {contestant: figure})."""
    names = [OURS] + sorted({name for _, values in lines for name in values if name != OURS})
    text = [f"### {title}", "", f"In {unit}, {'more' if more_is_better else 'less'} is better.", ""]
    text.append("| | " + " | ".join(names) + " | ×best |")
    text.append("|---|" + "---:|" * (len(names) + 1))
    ratios = []
    for workload, values in lines:
        quotient = ratio(values, more_is_better)
        ratios.append(quotient)
        cells = [f"{values[name]:.{digits}f}" if values.get(name) else "–" for name in names]
        text.append(f"| {workload} | " + " | ".join(cells) + f" | {f'{quotient:.2f}' if quotient else '–'} |")
    overall = mean(ratios)
    if summary and overall and len(lines) > 1:
        text += ["", f"Geometric mean of the ratios: {overall:.2f}."]
    return "\n".join(text) + "\n"
