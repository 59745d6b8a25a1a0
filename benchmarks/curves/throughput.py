"""Events a second against the size of an event, and against the number of runs that emit at once."""

from __future__ import annotations

import statistics

from benchmarks import crowd
from benchmarks.curves.curve import Curve
from benchmarks.daemon import sparrow
from benchmarks.relay import relay
from benchmarks.rows import Plan

_SIZES = (150, 200, 500, 1_000, 4_000, 16_000, 64_000)
_RUNS = (1, 3, 10, 30, 100, 300, 1_000)
_BESIDES = 143
"""The bytes of a Message on the wire that are not its text."""


def by_size(plan: Plan) -> list[Curve]:
    """One run; the same events through a bare relay beside it."""
    events = Curve(
        "throughput-size", "Throughput of one run against the size of an event", "bytes an event", "events/s"
    )
    events.log_y = True
    bytes_ = Curve("throughput-bytes", "The same in bytes", "bytes an event", "MB/s")
    bare = "bare PAIR → PUB → SUB"
    events.baselines, bytes_.baselines = {bare}, {bare}
    with sparrow() as bench:
        for size in _SIZES[: plan.size(len(_SIZES), 3)]:
            count = max(500, min(plan.size(200_000, 20_000), plan.size(60_000_000, 5_000_000) // size)) // 100 * 100
            text = size - _BESIDES
            ours = [crowd.emitted_whole(bench, 1, count, text=text) for _ in range(plan.size(3, 1))]
            with relay(size=size) as other:
                theirs = [other.flood(count) for _ in range(plan.size(3, 1))]
            for name, samples in (("emit_many() of 100", ours), (bare, theirs)):
                events.add(name, size, statistics.median(samples))
                bytes_.add(name, size, statistics.median(samples) * size / 1e6)
    return [events, bytes_]


def by_runs(plan: Plan) -> list[Curve]:
    """So many runs share a fixed number of events. To the record: a subscriber of a thousand runs may lag, and miss some."""
    curve = Curve("throughput-runs", "Throughput of runs that emit at once, all together", "runs", "events/s recorded")
    total = plan.size(300_000, 30_000)
    for count in _RUNS if not plan.quick else (1, 10, 30):
        each = total // count // 100 * 100
        for name, single in (("emit_many() of 100", False), ("emit() one by one", True)):
            with sparrow() as bench:
                curve.add(name, count, crowd.recorded(bench, count, each, single=single))
    return [curve]
