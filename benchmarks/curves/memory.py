"""Memory against the number of idle runs: what each has by itself (PSS), and what the supervisor needs for all."""

from __future__ import annotations

from benchmarks.curves.curve import Curve
from benchmarks.daemon import Sparrow, sparrow
from benchmarks.figures.f5 import parent, pss
from benchmarks.rows import Failed, Plan

_COUNTS = (1, 3, 10, 30, 100, 300, 1_000)


def by_runs(plan: Plan) -> list[Curve]:
    """The runs of one point stay for the next."""
    curve = Curve("memory", "Memory of idle Python runs (PSS)", "runs at once", "MB")
    with sparrow() as bench:
        running = 0
        for count in _COUNTS if not plan.quick else (1, 10, 30):
            _start(bench, count - running)
            running = count
            pids = [record.pid for record in bench.client.list() if record.pid is not None]
            if len(pids) != count:
                raise Failed(f"{count} runs were started and {len(pids)} are there")
            total = sum(pss(pid) + pss(parent(pid)) for pid in pids)
            curve.add("a run: monitor and engine", count, total / count)
            curve.add("the supervisor, for all of them", count, pss(bench.client.status()["pid"]))
    return [curve]


def _start(bench: Sparrow, count: int) -> None:
    waiting = {f"{bench.start('idle').id}/Message".encode() for _ in range(count)}
    while waiting:
        waiting.discard(bench.hear()[0])
