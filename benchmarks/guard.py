"""The regression guard: the ratios of a run of the benchmark beside those of the last release, and what got worse.

A row's noise is what its own rounds show: in each round baseline and ours are measured one after the other, so each round
has a ratio. A row got worse where every round of the one run is worse than every round of the other (with five rounds each
that happens by chance in one row of 252) and the medians differ by more than a twentieth.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

_LEAST_ROUNDS = 3
"""With fewer the noise cannot be told."""
_LEAST_CHANGE = 0.05
_MORE_IS_BETTER = ("/s",)
"""How the units end of which more is better; of the others (ms, MB) less is."""

Verdict = Literal["worse", "better", "same", "unclear"]
_TOLD: tuple[Verdict, ...] = ("worse", "better")


class Samples(msgspec.Struct):
    ours: list[float]
    baseline: list[float]


class Row(msgspec.Struct):
    """A row of latest.json, as far as it matters here."""

    figure: str
    what: str
    against: str
    unit: str
    samples: Samples

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes rows of two runs the same. A peer of another version is another peer."""
        return self.figure, self.what, self.against

    def goodness(self) -> list[float]:
        """The ratio of each round, turned so that more is better."""
        pairs = [
            (ours, base) for ours, base in zip(self.samples.ours, self.samples.baseline, strict=False) if ours and base
        ]
        more = self.unit.endswith(_MORE_IS_BETTER)
        return [ours / base if more else base / ours for ours, base in pairs]


class Report(msgspec.Struct):
    """What is read of latest.json."""

    machine: dict[str, str]
    rows: list[Row]


@dataclass(frozen=True)
class Change:
    """A row in both runs, and how many times as good as in the release it is now."""

    row: Row
    verdict: Verdict
    times: float

    def __str__(self) -> str:
        what = f"{self.row.figure} {self.row.what} (beside {self.row.against})"
        return f"{what}: {self.times:.2f} times as good as in the last release"


def load(path: Path) -> Report:
    """Read latest.json or release.json. Raises OSError, and msgspec.DecodeError where it is something else."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def compare(release: Sequence[Row], now: Sequence[Row]) -> list[Change]:
    """Each row that both have, in the order of the release."""
    here = {row.key: row for row in now}
    return [_judged(row, here[row.key]) for row in release if row.key in here]


def _judged(release: Row, now: Row) -> Change:
    before, after = release.goodness(), now.goodness()
    if not before or not after:
        return Change(now, "unclear", 1.0)
    times = statistics.median(after) / statistics.median(before)
    verdict: Verdict = "same"
    if min(len(before), len(after)) < _LEAST_ROUNDS:
        verdict = "unclear"
    elif max(after) < min(before) and times < 1 - _LEAST_CHANGE:
        verdict = "worse"
    elif min(after) > max(before) and times > 1 + _LEAST_CHANGE:
        verdict = "better"
    return Change(now, verdict, times)


def told(changes: Sequence[Change], release: Report, now: Report) -> str:
    """The comparison in words: what got worse first, then what got better."""
    by: dict[Verdict, list[Change]] = {"worse": [], "better": [], "same": [], "unclear": []}
    for change in changes:
        by[change.verdict].append(change)
    head = (
        f"Compared with the last release ({release.machine.get('date', 'no date')}): {len(by['worse'])} worse,"
        f" {len(by['better'])} better, {len(by['same'])} the same within the noise of both,"
        f" {len(by['unclear'])} with too few rounds to tell."
    )
    lines = [head, *(f"{verdict}: {change}" for verdict in _TOLD for change in by[verdict])]
    if release.machine.get("CPU") != now.machine.get("CPU"):
        lines.append("The release was measured on another kind of machine, which may be all that there is to it.")
    return "\n".join(lines)
