"""F4: runs a second, from the first submit to the last recorded end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.daemon import Sparrow, sparrow
from benchmarks.rows import Failed, Goal, Plan, Row, alternate
from sparrow_mp.client import Run

TITLE = "runs a second"


def measure(plan: Plan) -> list[Row]:
    """All runs are submitted at once; the baselines run one after another, as a shell would."""
    count, few = plan.size(100, 30), plan.size(30, 10)
    with sparrow() as bench:
        python = alternate(
            plan.rounds,
            lambda: _one_by_one([sys.executable, "-c", "pass"], few),
            lambda: _together(bench, lambda: bench.start("nothing"), count),
        )
        command = alternate(
            plan.rounds,
            lambda: _one_by_one(["/bin/true"], 3 * few),
            lambda: _together(bench, lambda: bench.client.submit(argv=["/bin/true"]), count),
        )
    return [
        Row(
            "F4",
            "Python runs, submit → recorded end",
            "runs/s",
            "`python -c pass`, one after another",
            *python,
            goal=Goal(3, "at least"),
        ),
        Row(
            "F4",
            "command runs (`/bin/true`)",
            "runs/s",
            "`subprocess.run`, one after another",
            *command,
            goal_text="ahead of supervisord and pm2",
            note="supervisord and pm2 are not measured here",
        ),
    ]


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
