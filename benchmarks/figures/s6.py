"""S6: one run floods; how late the events of others are, beside how late they are without it."""

from __future__ import annotations

import time

import msgspec

from benchmarks.daemon import Sparrow, sparrow
from benchmarks.rows import Failed, Goal, Plan, Row, percentile

TITLE = "others while one run floods"
_OTHERS = 3
_PAUSE = 0.01


def measure(plan: Plan) -> list[Row]:
    """The subscriber takes the others' events alone: what it would make of the flood is its own affair."""
    against = "the same runs with nobody flooding"
    half = Row("S6", f"{_OTHERS} runs while one floods: p50 of their events' latency", "ms", against)
    half.goal_text = "none: for comparison"
    tail = Row("S6", "the same, p99", "ms", against, goal=Goal(20, "at most", "ours"))
    count = plan.size(200, 50)
    with sparrow() as bench:
        for _ in range(plan.rounds):
            _sample(bench, count, (half.baseline, tail.baseline))
            flood = bench.start("flood_on")
            bench.hear_only(f"{flood.id}/Message")
            bench.hear()
            _sample(bench, count, (half.ours, tail.ours))
            bench.hear_only(f"{flood.id}/RunFinished")
            flood.interrupt()
            bench.hear_topic(f"{flood.id}/RunFinished")
    return [half, tail]


def _sample(bench: Sparrow, count: int, into: tuple[list[float], list[float]]) -> None:
    late = _ticks(bench, count)
    into[0].append(percentile(late, 0.5))
    into[1].append(percentile(late, 0.99))


def _ticks(bench: Sparrow, count: int) -> list[float]:
    """How late each of their events is, in ms. Raises Failed where one is missing."""
    runs = [bench.start("tick_late", events=count, pause=_PAUSE) for _ in range(_OTHERS)]
    bench.hear_only(*(run.id for run in runs))
    late: list[float] = []
    ends = {f"{run.id}/RunFinished".encode() for run in runs}
    while ends:
        topic, payload = bench.hear()
        moment = time.monotonic_ns()
        if topic.endswith(b"/Custom"):
            late += [(moment - msgspec.json.decode(line)["data"]["at"]) / 1e6 for line in payload.splitlines()]
        ends.discard(topic)
    if len(late) != count * _OTHERS:
        raise Failed(f"{count * _OTHERS} events were emitted and {len(late)} came")
    return late
