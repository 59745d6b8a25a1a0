"""F10: 1,000 runs at once, and 100,000 that have ended: whether they all run, and how long `sparrow ps` takes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine
from benchmarks.daemon import milliseconds_since, sparrow
from benchmarks.history import lengthen
from benchmarks.rows import Failed, Goal, Plan, Row, alternate

TITLE = "1,000 runs at once, 100,000 in the history"
_AGAINST = '`python -c "import click, zmq, msgspec"`'


def measure(plan: Plan) -> list[Row]:
    """The runs and the history are made once; what is measured five times is `sparrow ps`."""
    return [_live(plan), _ended(plan)]


def _live(plan: Plan) -> Row:
    count = plan.size(1000, 50)
    row = Row("F10", f"`sparrow ps` with {count:,} runs at once", "ms", _AGAINST, goal=Goal(1000, "at most", "ours"))
    with sparrow() as bench:
        start = time.perf_counter()
        waiting = {f"{bench.start('idle').id}/Message".encode() for _ in range(count)}
        while waiting:
            waiting.discard(bench.hear()[0])
        begun = time.perf_counter() - start
        row.baseline, row.ours = alternate(plan.rounds, _import, lambda: _ps(count))
        start = time.perf_counter()
        bench.client.shutdown(now=True, timeout=120)
        ended = time.perf_counter() - start
    row.note = (
        f"all of the {count:,} ran at once and were listed; to start them took {begun:.1f} s, to end them and the"
        f" supervisor {ended:.1f} s"
    )
    return row


def _ended(plan: Plan) -> Row:
    count = plan.size(100_000, 1_000)
    row = Row("F10", f"`sparrow ps` with {count:,} that have ended", "ms", _AGAINST, goal=Goal(1000, "at most", "ours"))
    with sparrow(machine.roomy()) as bench:
        lengthen(bench, count)
        start = time.perf_counter()
        bench.client.start()
        begun = time.perf_counter() - start
        running = bench.start("idle")
        row.baseline, row.ours = alternate(plan.rounds, _import, lambda: _ps(1))
        found = len(bench.client.list(all=True))
        if found < count:
            raise Failed(f"{count} runs have ended and {found} are listed")
        running.interrupt(now=True)
    row.note = (
        f"one runs, the others are copies of runs with records of their own; the supervisor's start took {begun:.2f} s"
    )
    return row


def _import() -> float:
    return _timed([sys.executable, "-c", "import click, zmq, msgspec"], lambda _: True)


def _ps(count: int) -> float:
    return _timed([str(Path(sys.executable).with_name("sparrow")), "ps", "-q"], lambda out: out.count(b"\n") == count)


def _timed(argv: list[str], right: Callable[[bytes], bool]) -> float:
    start = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    taken = milliseconds_since(start)
    if done.returncode or not right(done.stdout):
        raise Failed(f"{Path(argv[0]).name} failed, or did not list all runs: {done.stderr.decode(errors='replace')}")
    return taken
