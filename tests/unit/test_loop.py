"""The loop: who has much to do makes nobody wait who has little."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

from sparrow_supervisor.loop import Loop


def test_many_who_have_much_to_do_share_a_turn_and_others_come_in_each() -> None:
    loop = Loop()
    turns: list[str] = []

    def hungry(name: str) -> None:
        turns.append(name)
        until = time.monotonic() + 0.004
        while time.monotonic() < until:
            pass
        loop.again(callbacks[name])

    def small() -> None:
        turns.append("small")
        if turns.count("small") == 30:
            loop.stop()
        loop.soon(small)

    names = [f"run {number}" for number in range(10)]
    callbacks = {name: partial(hungry, name) for name in names}
    for callback in callbacks.values():
        loop.again(callback)
    loop.soon(small)
    loop.run()
    between = "".join("s" if name == "small" else "h" for name in turns).split("s")
    assert max(map(len, between)) <= 2, "somebody with little to do waited for many who have much"
    counts = [turns.count(name) for name in names]
    assert max(counts) - min(counts) <= 1, "not everybody had the same share"


def test_descriptors_are_looked_at_in_each_turn() -> None:
    loop = Loop()
    seen: list[int] = []
    reading, writing = os.pipe()

    def hungry() -> None:
        os.write(writing, b"!")
        loop.again(hungry)

    def readable() -> None:
        seen.append(len(os.read(reading, 100)))
        if len(seen) == 5:
            loop.stop()

    loop.watch(reading, readable)
    loop.again(hungry)
    loop.run()
    assert seen == [1] * 5
    os.close(reading)
    os.close(writing)


def test_a_callback_that_raises_stops_nothing() -> None:
    loop = Loop()

    def fail() -> None:
        raise ValueError("on purpose")

    loop.soon(fail)
    loop.again(loop.stop)
    loop.run()


def test_who_is_fed_by_a_flood_rests_and_nobody_else_does() -> None:
    loop = Loop()
    loop.rest = 2.0
    turns: list[str] = []

    def work(name: str, again: Callable[[Callable[[], None]], None]) -> None:
        turns.append(name)
        until = time.monotonic() + 0.006  # more than its part of a turn
        while time.monotonic() < until:
            pass
        if turns.count("flood") == 10:
            loop.stop()
        again(callbacks[name])

    callbacks = {"flood": partial(work, "flood", loop.flooded), "other": partial(work, "other", loop.again)}
    loop.flooded(callbacks["flood"])
    began = time.monotonic()
    loop.run()
    assert time.monotonic() - began >= 10 * 0.006 + 9 * 2 * 0.006
    assert turns == ["flood"] * 10
    turns.clear()
    loop = Loop()
    loop.rest = 2.0
    callbacks = {"flood": partial(work, "flood", loop.flooded), "other": partial(work, "other", loop.again)}
    for start, name in ((loop.flooded, "flood"), (loop.again, "other")):
        start(callbacks[name])
    loop.run()
    assert turns.count("other") > turns.count("flood")
