"""F3: a command run, from submit to its first line at a subscriber."""

from __future__ import annotations

import subprocess
import time

from benchmarks.daemon import Sparrow, milliseconds_since, sparrow
from benchmarks.rows import Failed, Goal, Plan, Row, alternate, median_of

TITLE = "a command's first line"
_ECHO = ["/bin/echo", "here"]


def measure(plan: Plan) -> list[Row]:
    """The baseline is a bare Popen: no record, no isolation."""
    size = plan.size(20, 8)
    with sparrow() as bench:
        baseline, ours = alternate(
            plan.rounds, lambda: median_of(size, _bare), lambda: median_of(size, lambda: _submitted(bench))
        )
    row = Row(
        "F3",
        "`/bin/echo`: submit → its first line",
        "ms",
        "`subprocess.Popen`",
        baseline,
        ours,
        goal=Goal(5, "at most"),
    )
    row.note = "the other half of the promise (ahead of circus, supervisord, pm2, tmux) is not measured here"
    return [row]


def _bare() -> float:
    start = time.perf_counter()
    with subprocess.Popen(_ECHO, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"here\n":
            raise Failed("echo printed nothing")
        return milliseconds_since(start)


def _submitted(bench: Sparrow) -> float:
    start = time.perf_counter()
    run = bench.client.submit(argv=_ECHO)
    bench.hear_topic(f"{run.id}/Output")
    taken = milliseconds_since(start)
    bench.finish(run)
    return taken
