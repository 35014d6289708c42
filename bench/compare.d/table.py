# SPDX-License-Identifier: Apache-2.0
"""What every row shares: the setting, rounds that take turns, the table."""
import dataclasses
import math
import os
import pathlib
import statistics
import sys
import time
from typing import Optional

OURS = "tidemark"


@dataclasses.dataclass(frozen=True)
class Setting:
    folder: pathlib.Path  # for files and sockets; removed at the end
    tidemark: pathlib.Path
    quick: bool
    asked: Optional[int]  # rounds
    only: Optional[str]

    def wants(self, workload):
        return self.only is None or self.only in workload

    def size(self, full, quick):
        return quick if self.quick else full

    def rounds(self, usual=3):
        return self.asked or (1 if self.quick else usual)


def interleaved(contestants, measure, what, rounds, warm_up=0):
    """So many turns of each to warm up, then rounds in turns, every other one backwards. Returns each one's figures, by name."""
    found = {name: [] for name in contestants}
    for turn in range(-warm_up, rounds):
        for name in list(contestants) if turn % 2 == 0 else reversed(list(contestants)):
            value = measure(contestants[name])
            shown = f" {value:.1f}" if isinstance(value, (int, float)) else ""
            print(f"\r\033[K{what}: {name}{shown}", end="", file=sys.stderr, flush=True)
            if turn >= 0:
                found[name].append(value)
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    return found


def _stolen_seconds():
    """What the host has taken of the machine's processors while they had work; 0 where there is no host."""
    with open("/proc/stat") as stat:
        return int(stat.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def undisturbed(measure):
    """Measures again, once, where the host takes more than a twentieth; then the figure it disturbed less."""
    found = []
    while len(found) < 2 and (not found or found[-1][0] > 0.05):
        begin, before = time.perf_counter(), _stolen_seconds()
        value = measure()
        share = (_stolen_seconds() - before) / (time.perf_counter() - begin) / os.cpu_count()
        found.append((share, value))
    return min(found, key=lambda one: one[0])[1]


def part(found, key):
    """Of figures that were measured together, one."""
    return {name: [figures[key] for figures in rounds] for name, rounds in found.items()}


def middle(rounds):
    """The median; 0, which stands for "it could not", when most are."""
    return statistics.median_low(rounds) if 0 in rounds else statistics.median(rounds)


def ratio(values, more_is_better):
    """Ours to the best peer, above 1 where ours is better; None without a peer."""
    peers = [value for name, value in values.items() if name != OURS and value > 0]
    if not peers or not values.get(OURS):
        return None
    return values[OURS] / max(peers) if more_is_better else min(peers) / values[OURS]


def mean(ratios):
    known = [value for value in ratios if value]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else None


def _half(found, values, more_is_better):
    """Where the middle half of the rounds' ratios lie, to the peer that is best by its median; None of fewer than four."""
    peers = {name: value for name, value in values.items() if name != OURS and value > 0}
    if not peers or len(found[OURS]) < 4:
        return None
    best = (max if more_is_better else min)(peers, key=peers.get)
    ratios = [ratio({OURS: ours, best: peer}, more_is_better) for ours, peer in zip(found[OURS], found[best])]
    if None in ratios:
        return None
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{low:.2f} – {high:.2f}"


def table(title, unit, lines, more_is_better, digits=0, summary=True):
    """A Markdown table of medians. `lines` are (workload, {contestant: figures of its rounds})."""
    names = [OURS] + sorted({name for _, found in lines for name in found if name != OURS})
    medians = [{name: middle(rounds) for name, rounds in found.items()} for _, found in lines]
    halves = [_half(found, values, more_is_better) for (_, found), values in zip(lines, medians)]
    spread = any(halves)
    rounds = max((len(found[OURS]) for _, found in lines), default=0)
    of_rounds = f"; medians of {rounds} rounds" if rounds > 1 else ""
    text = [f"### {title}", "", f"In {unit}, {'more' if more_is_better else 'less'} is better{of_rounds}.", ""]
    text.append("| | " + " | ".join(names) + " | ×best |" + " half of the rounds |" * spread)
    text.append("|---|" + "---:|" * (len(names) + 1) + "---|" * spread)
    ratios = [ratio(values, more_is_better) for values in medians]
    for (workload, _), values, quotient, half in zip(lines, medians, ratios, halves):
        cells = [f"{values[name]:.{digits}f}" if values.get(name) else "–" for name in names]
        text.append(f"| {workload} | " + " | ".join(cells) + f" | {f'{quotient:.2f}' if quotient else '–'} |"
                    + f" {half or '–'} |" * spread)
    overall = mean(ratios)
    if summary and overall and len(lines) > 1:
        text += ["", f"Geometric mean of the ratios: {overall:.2f}."]
    return "\n".join(text) + "\n"
