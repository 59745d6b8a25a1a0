"""F7: the latency of one event while nothing else happens, from emit() to a SUB. Both read CLOCK_MONOTONIC."""

from __future__ import annotations

import time

import msgspec

from benchmarks.daemon import Sparrow, sparrow
from benchmarks.relay import relay
from benchmarks.rows import Failed, Goal, Plan, Row, percentile

TITLE = "latency of one event"
PAUSE = 0.005


def measure(plan: Plan) -> list[Row]:
    """The bare relay's latency beside it, to see what two hops cost anyway."""
    against = "bare pyzmq PAIR → PUB → SUB"
    half = Row("F7", "idle, `emit()` → SUB, p50", "ms", against, goal=Goal(1, "at most", "ours"))
    tail = Row("F7", "the same, p99", "ms", against, goal=Goal(5, "at most", "ours"))
    count = plan.size(400, 100)
    with sparrow() as bench, relay() as bare:
        for _ in range(plan.rounds):
            for samples, rows in (
                (bare.ticks(count, PAUSE), (half.baseline, tail.baseline)),
                (ticks(bench, count), (half.ours, tail.ours)),
            ):
                rows[0].append(percentile(samples, 0.5))
                rows[1].append(percentile(samples, 0.99))
    return [half, tail]


def ticks(bench: Sparrow, count: int) -> list[float]:
    run = bench.start("tick", events=count, pause=PAUSE)
    topic = f"{run.id}/Custom".encode()
    heard: list[tuple[int, bytes]] = []
    while len(heard) < count:
        got, payload = bench.hear()
        moment = time.monotonic_ns()
        if got == topic:
            heard += [(moment, line) for line in payload.splitlines()]
    bench.finish(run)
    late = [(moment - msgspec.json.decode(line)["data"]["at"]) / 1e6 for moment, line in heard]
    if min(late) < 0:
        raise Failed("an event came before it was emitted")
    return late
