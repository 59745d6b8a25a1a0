"""F2: a Python run, from submit to the first thing it says at a subscriber."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.daemon import Sparrow, milliseconds_since, sparrow
from benchmarks.rows import Failed, Goal, Plan, Row, alternate, median_of

TITLE = "a Python run's first event"
_FRESH = "import zmq, msgspec; print('here', flush=True)"
_HEAVY = "pydantic_ai"
_TASK = f"""
import {_HEAVY}
from sparrow_mp.events import Message

def main(run):
    run.emit(Message(role="assistant", text="here"))
"""
_PATIENCE_S = 60


def measure(plan: Plan) -> list[Row]:
    """The baseline is a fresh interpreter that imports what a run has, and prints."""
    size = plan.size(10, 4)
    with sparrow() as bench:
        baseline, ours = alternate(
            plan.rounds, lambda: median_of(size, fresh), lambda: median_of(2 * size, lambda: submitted(bench))
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
        _heavy(plan),
    ]


def _heavy(plan: Plan) -> Row:
    """The same with an engine that imports pydantic-ai, which a zygote of its own has loaded by then."""
    size = plan.size(10, 4)
    with sparrow() as bench:
        folder = Path(os.environ["SPARROW_STATE_DIR"])
        (folder / "task.py").write_text(_TASK)
        Path(os.environ["SPARROW_CONFIG"]).write_text(f'[engines.python]\npreload = ["{_HEAVY}"]\n')
        bench.client.reload()
        deadline = time.monotonic() + _PATIENCE_S
        while not bench.client.status().get("warm_zygotes"):
            if time.monotonic() > deadline:
                raise Failed(f"no zygote has loaded {_HEAVY}")
            bench.finish(bench.client.submit("task.py:main", engine="python", cwd=folder, env=dict(os.environ)))
        baseline, ours = alternate(
            plan.rounds,
            lambda: median_of(max(2, size // 2), lambda: fresh(f"import {_HEAVY}; print('here', flush=True)")),
            lambda: median_of(2 * size, lambda: submitted(bench, folder)),
        )
    return Row(
        "F2",
        "the same where the engine imports pydantic-ai",
        "ms",
        "a fresh interpreter that imports pydantic-ai and prints",
        baseline,
        ours,
        faster=True,
        goal=Goal(100, "at least"),
    )


def fresh(code: str = _FRESH) -> float:
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"here\n":
            raise Failed("a fresh interpreter printed nothing")
        return milliseconds_since(start)


def submitted(bench: Sparrow, folder: Path | None = None) -> float:
    """One run of benchmarks.engines:one, or of task.py in this folder."""
    env = dict(os.environ)
    start = time.perf_counter()
    run = (
        bench.start("one")
        if folder is None
        else bench.client.submit("task.py:main", engine="python", cwd=folder, env=env)
    )
    bench.hear_topic(f"{run.id}/Message")
    taken = milliseconds_since(start)
    bench.finish(run)
    return taken
