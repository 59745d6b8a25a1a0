"""F5: the memory of idle Python runs. PSS: what processes share is divided among them, so that sums are true."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.daemon import ROOT, Sparrow, sparrow
from benchmarks.rows import Failed, Goal, Plan, Row, alternate

TITLE = "memory of an idle Python run"
_FRESH = """
import importlib, sys
from sparrow_mp.run import engines, monitor
for value in engines.BUILT_IN.values():
    importlib.import_module(value.partition(":")[0])
import benchmarks.engines
print("here", flush=True)
sys.stdin.read()
"""


def measure(plan: Plan) -> list[Row]:
    """As many fresh interpreters as runs, one after the other and never together, since they would share pages."""
    count = plan.size(100, 20)
    with sparrow() as bench:
        baseline, ours = alternate(plan.rounds, lambda: _fresh(count), lambda: _idle(bench, count))
    against = "a fresh interpreter with the same imports"
    what = f"{count} of them, each: monitor and engine together"
    return [
        Row("F5", what, "MB", against, baseline, ours, goal=Goal(0.35, "at most")),
        Row("F5", "the same, in megabytes", "MB", against, baseline, ours, goal=Goal(4, "at most", "ours")),
    ]


def pss(pid: int) -> float:
    """A process's proportional set size in MB (10⁶ bytes)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise Failed("the kernel does not tell the PSS of a process")


def _fresh(count: int) -> float:
    processes = [
        subprocess.Popen([sys.executable, "-c", _FRESH], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != b"here\n":
                raise Failed("a fresh interpreter did not start")
        return sum(pss(process.pid) for process in processes) / count
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _idle(bench: Sparrow, count: int) -> float:
    runs = [bench.start("idle") for _ in range(count)]
    waiting = {f"{run.id}/Message".encode() for run in runs}
    while waiting:
        waiting.discard(bench.hear()[0])
    engines = [record.pid for record in bench.client.list()]
    if len(engines) != count or None in engines:
        raise Failed(f"{count} runs were started and {len(engines)} are there")
    total = sum(pss(pid) + pss(parent(pid)) for pid in engines if pid is not None)
    for run in runs:
        run.interrupt(now=True)
    ended = {f"{run.id}/RunFinished".encode() for run in runs}
    while ended:
        ended.discard(bench.hear()[0])
    return total / count


def parent(pid: int) -> int:
    """The engine's parent: its monitor."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
