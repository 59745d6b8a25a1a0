"""What the runs of the benchmarks do. Settings come as BENCH_… in the environment."""

from __future__ import annotations

import os
import time

from sparrow_mp.events import Custom, Message
from sparrow_mp.run.context import RunContext

TEXT = "x" * 57
"""Makes a Message of 200 bytes on the wire, line break included, while its seq has six digits."""


def one(run: RunContext) -> None:
    """Say one thing, and end."""
    run.emit(Message(role="assistant", text="here"))


def nothing(run: RunContext) -> None:
    """End at once."""


def idle(run: RunContext) -> None:
    """Say one thing, then wait to be ended."""
    run.emit(Message(role="assistant", text="here"))
    run.next_message()


def flood(run: RunContext) -> None:
    """Emit BENCH_EVENTS messages, one by one. The first event says when that began."""
    count = int(os.environ["BENCH_EVENTS"])
    _begin(run)
    emit, text = run.emit, _text()
    for _ in range(count):
        emit(Message(role="assistant", text=text))


def flood_many(run: RunContext) -> None:
    """Emit BENCH_EVENTS messages, a hundred at a time. The first event says when that began."""
    count = int(os.environ["BENCH_EVENTS"])
    _begin(run)
    text = _text()
    for _ in range(count // 100):
        run.emit_many([Message(role="assistant", text=text) for _ in range(100)])


def flood_at_once(run: RunContext) -> None:
    """As flood_many, or one by one with BENCH_SINGLE, once somebody opens the pipe BENCH_GATE for writing."""
    run.emit(Custom(name="ready", data=None))
    with open(os.environ["BENCH_GATE"], "rb"):
        pass
    (flood if "BENCH_SINGLE" in os.environ else flood_many)(run)


def flood_on(run: RunContext) -> None:
    """Emit as much as there is room for, until it is ended."""
    events = [Message(role="assistant", text=TEXT)] * 100
    while not run.interrupted:
        run.emit_many(events)


def tick(run: RunContext) -> None:
    """Emit BENCH_EVENTS events, each with the moment at which it was, BENCH_PAUSE seconds apart."""
    pause = float(os.environ["BENCH_PAUSE"])
    for _ in range(int(os.environ["BENCH_EVENTS"])):
        time.sleep(pause)
        run.emit(Custom(name="tick", data={"at": time.monotonic_ns()}))


def tick_late(run: RunContext) -> None:
    """As tick, after a quarter of a second in which whoever started it can subscribe."""
    time.sleep(0.25)
    tick(run)


def _text() -> str:
    """BENCH_TEXT letters, by default those of TEXT."""
    return "x" * int(os.environ.get("BENCH_TEXT", len(TEXT)))


def _begin(run: RunContext) -> None:
    run.emit(Custom(name="begin", data={"at": time.monotonic_ns()}))
