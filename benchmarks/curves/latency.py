"""How long one event takes while nothing else happens, and how long a run's start takes: all samples, not medians."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.curves.curve import Curve
from benchmarks.daemon import sparrow
from benchmarks.figures import f2, f3, f7
from benchmarks.relay import relay
from benchmarks.rows import Plan

_SHARE = "% of them take at most that"


def of_events(plan: Plan) -> list[Curve]:
    """Ours and a bare relay's, a third at a time by turns."""
    curve = Curve("latency", "Latency of one event, idle: emit() → SUB", "ms", _SHARE, marks=False)
    ours: list[float] = []
    theirs: list[float] = []
    with sparrow() as bench, relay() as bare:
        for _ in range(3):
            theirs += bare.ticks(plan.size(700, 60), f7.PAUSE)
            ours += f7.ticks(bench, plan.size(700, 60))
    curve.distribution("sparrow", ours)
    curve.distribution("bare PAIR → PUB → SUB", theirs)
    curve.baselines = {"bare PAIR → PUB → SUB"}
    return [curve]


def of_starts(plan: Plan) -> list[Curve]:
    """From submit to the first event of a Python run and the first line of a command, beside bare processes."""
    curve = Curve("starts", "From submit to the first event", "ms", _SHARE, marks=False)
    with sparrow() as bench:
        ways: dict[str, Callable[[], float]] = {
            "a Python run": lambda: f2.submitted(bench),
            "a command run (/bin/echo)": lambda: f3.submitted(bench),
            "a fresh interpreter (zmq, msgspec)": f2.fresh,
            "a bare Popen of /bin/echo": f3.bare,
        }
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(plan.size(80, 10)):
            for name, sample in ways.items():
                samples[name].append(sample())
    for name, values in samples.items():
        curve.distribution(name, values)
    curve.baselines = set(list(ways)[2:])
    return [curve]
