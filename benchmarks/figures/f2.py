"""F2: a Python run, from submit to the first thing it says at a subscriber."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.daemon import Sparrow, milliseconds_since, sparrow
from benchmarks.rows import Failed, Goal, Plan, Row, alternate, median_of

TITLE = "a Python run's first event"
_FRESH = "import zmq, msgspec; print('here', flush=True)"


def measure(plan: Plan) -> list[Row]:
    """The baseline is a fresh interpreter that imports what a run has, and prints."""
    size = plan.size(10, 4)
    with sparrow() as bench:
        baseline, ours = alternate(
            plan.rounds, lambda: median_of(size, _fresh), lambda: median_of(2 * size, lambda: _submitted(bench))
        )
    return [
        Row(
            "F2",
            "submit → the engine's own first event",
            "ms",
            "a fresh interpreter that imports zmq and msgspec and prints",
            baseline,
            ours,
            faster=True,
            goal=Goal(10, "at least"),
        ),
        Row(
            "F2",
            "the same where the engine imports pydantic-ai",
            "ms",
            "a fresh interpreter that imports pydantic-ai",
            goal_text="at least 100 ×",
            note="not measured: there is no zygote with that loaded yet",
        ),
    ]


def _fresh() -> float:
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", _FRESH], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"here\n":
            raise Failed("a fresh interpreter printed nothing")
        return milliseconds_since(start)


def _submitted(bench: Sparrow) -> float:
    start = time.perf_counter()
    run = bench.start("one")
    bench.hear_topic(f"{run.id}/Message")
    taken = milliseconds_since(start)
    bench.finish(run)
    return taken
