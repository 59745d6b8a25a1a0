"""F11: the command line as whole processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.daemon import milliseconds_since, sparrow
from benchmarks.rows import Failed, Goal, Plan, Row

TITLE = "the command line"


def measure(plan: Plan) -> list[Row]:
    """Baseline and ours by turns, process by process."""
    script = Path(sys.executable).with_name("sparrow")
    if not script.exists():
        raise Failed(f"there is no {script.name} beside this Python: install this checkout in its environment")
    size = plan.size(10, 5)
    version = Row("F11", "`sparrow --version`", "ms", '`python -c "import click"`', goal=Goal(1.3, "at most"))
    listing = Row("F11", "`sparrow ps`", "ms", '`python -c "import click, zmq, msgspec"`', goal=Goal(1.5, "at most"))
    with sparrow():
        for _ in range(plan.rounds):
            _round(version, [sys.executable, "-c", "import click"], [str(script), "--version"], size)
            _round(listing, [sys.executable, "-c", "import click, zmq, msgspec"], [str(script), "ps"], size)
    return [version, listing]


def _round(row: Row, baseline: list[str], ours: list[str], size: int) -> None:
    pairs = [(_timed(baseline), _timed(ours)) for _ in range(size)]
    row.baseline.append(statistics.median(pair[0] for pair in pairs))
    row.ours.append(statistics.median(pair[1] for pair in pairs))


def _timed(argv: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    taken = milliseconds_since(start)
    if done.returncode:
        raise Failed(f"{argv[0]} failed: {done.stderr.decode(errors='replace')}")
    return taken
