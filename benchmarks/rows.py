"""A row of the report, the goal it is held to, and how the samples of a row are taken."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


class Failed(Exception):
    """A figure could not be measured, or what was measured is not true (an event is missing, a program failed)."""


@dataclass(frozen=True)
class Plan:
    """How thorough to be. A figure takes one sample of its baseline and one of ours a round, by turns."""

    rounds: int = 5
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """How many of something a sample takes."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Goal:
    """A bound on the ratio, or on our own figure (``of``)."""

    bound: float
    kind: Literal["at least", "at most"]
    of: Literal["ratio", "ours"] = "ratio"

    def score(self, ratio: float | None, ours: float) -> float | None:
        """How many times as good as the goal: 1 and more is met. None where there is no ratio to judge."""
        value = ratio if self.of == "ratio" else ours
        if value is None:
            return None
        return value / self.bound if self.kind == "at least" else self.bound / value


@dataclass
class Row:
    """One line of the report: medians, and the samples they come from. ``ours`` is None where it was not measured."""

    figure: str
    what: str
    unit: str
    against: str
    baseline: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    faster: bool = False
    """Whether the ratio is baseline/ours (how much faster a duration is) and not ours/baseline."""
    goal: Goal | None = None
    goal_text: str = ""
    note: str = ""
    idle_before: float | None = None
    """The share of all CPU time that was idle just before: how quiet the machine was."""

    @property
    def our_median(self) -> float | None:
        return statistics.median(self.ours) if self.ours else None

    @property
    def baseline_median(self) -> float | None:
        return statistics.median(self.baseline) if self.baseline else None

    @property
    def ratio(self) -> float | None:
        """The ratio of the medians, in the terms of the promise."""
        ours, baseline = self.our_median, self.baseline_median
        if not ours or not baseline:
            return None
        return baseline / ours if self.faster else ours / baseline

    @property
    def score(self) -> float | None:
        if self.goal is None or self.our_median is None:
            return None
        return self.goal.score(self.ratio, self.our_median)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where that was not judged."""
        score = self.score
        return None if score is None else score >= 1


def alternate(rounds: int, baseline: Callable[[], float], ours: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Samples of both, taken by turns, so that a noisy minute hits both."""
    baselines, mine = [], []
    for _ in range(rounds):
        baselines.append(baseline())
        mine.append(ours())
    return baselines, mine


def median_of(count: int, sample: Callable[[], float]) -> float:
    """The median of several samples: one round of something short."""
    return statistics.median(sample() for _ in range(count))


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
