"""F4: runs a second, from the first submit to the last recorded end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks import peers
from benchmarks.daemon import Sparrow, sparrow
from benchmarks.rows import Failed, Goal, Plan, Row
from sparrow_mp.client import Run

TITLE = "runs a second"


def measure(plan: Plan) -> list[Row]:
    """All runs are submitted at once; the bare baselines run one after another, as a shell would."""
    count, few = plan.size(100, 30), plan.size(30, 10)
    python = Row("F4", "Python runs, submit → recorded end", "runs/s", "`python -c pass`, one after another")
    python.goal = Goal(3, "at least")
    command = Row("F4", "command runs (`/bin/true`)", "runs/s", "`subprocess.run`, one after another")
    command.goal_text = "none: for comparison"
    with sparrow() as bench, peers.present(plan) as here:
        beside = peers.Beside(here, command, lambda peer: peer.runs_a_second(), {"Supervisord": Goal(1, "at least")})
        for _ in range(plan.rounds):
            python.baseline.append(_one_by_one([sys.executable, "-c", "pass"], few))
            python.ours.append(_together(bench, lambda: bench.start("nothing"), count))
            command.baseline.append(_one_by_one(["/bin/true"], 3 * few))
            command.ours.append(_together(bench, lambda: bench.client.submit(argv=["/bin/true"]), count))
            beside.round()
    return [python, command, *beside.rows()]


def _one_by_one(argv: list[str], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        subprocess.run(argv, check=True)
    return count / (time.perf_counter() - start)


def _together(bench: Sparrow, submit: Callable[[], Run], count: int) -> float:
    start = time.perf_counter()
    left = {f"{submit().id}/RunFinished".encode() for _ in range(count)}
    while left:
        topic, payload = bench.hear()
        if topic in left:
            if b'"status":"completed"' not in payload:
                raise Failed(f"a run did not go well: {payload.decode(errors='replace')}")
            left.discard(topic)
    return count / (time.perf_counter() - start)
