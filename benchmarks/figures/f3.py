"""F3: a command run, from submit to its first line at a subscriber."""

from __future__ import annotations

import subprocess
import time

from benchmarks import peers
from benchmarks.daemon import Sparrow, milliseconds_since, sparrow
from benchmarks.rows import Failed, Goal, Plan, Row, median_of

TITLE = "a command's first line"
_ECHO = ["/bin/echo", "here"]


def measure(plan: Plan) -> list[Row]:
    """The baseline is a bare Popen: no record, no isolation. The peers' line is where their user finds it."""
    size = plan.size(20, 8)
    row = Row("F3", "`/bin/echo`: submit → its first line", "ms", "`subprocess.Popen`", goal=Goal(5, "at most"))
    goals = {name: Goal(1, "at most") for name in ("Circus", "Supervisord", "Tmux")}
    with sparrow() as bench, peers.present(plan) as here:
        beside = peers.Beside(here, row, lambda peer: peer.first_line(), goals, plan.size(10, 3))
        for _ in range(plan.rounds):
            row.baseline.append(median_of(size, bare))
            row.ours.append(median_of(size, lambda: submitted(bench)))
            beside.round()
    return [row, *beside.rows()]


def bare() -> float:
    start = time.perf_counter()
    with subprocess.Popen(_ECHO, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"here\n":
            raise Failed("echo printed nothing")
        return milliseconds_since(start)


def submitted(bench: Sparrow) -> float:
    start = time.perf_counter()
    run = bench.client.submit(argv=_ECHO)
    bench.hear_topic(f"{run.id}/Output")
    taken = milliseconds_since(start)
    bench.finish(run)
    return taken
