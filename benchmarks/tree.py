"""A tree of 20 processes, how to find it, and when it is gone."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from threading import Thread

from benchmarks.rows import Failed

SIZE = 20
_SCRIPT = """
for group in 1 2 3 4; do (sleep 1000 & sleep 1000 & sleep 1000 & wait) & done
sleep 1000 & sleep 1000 & sleep 1000 & wait
"""
ARGV = ["sh", "-c", _SCRIPT]
"""Itself, four shells with three each, and three of its own."""
MARK = "BENCH_TREE"
"""The variable by which its processes are found."""
_PATIENCE_S = 20


def killed(mark: str, kill: Callable[[], object]) -> float:
    """Milliseconds from before ``kill`` is called until each process of the tree is dead."""
    descriptors = [os.pidfd_open(pid) for pid in _grown(mark)]
    try:
        moments: list[float] = []
        watcher = Thread(target=lambda: moments.append(_dead(descriptors)))
        watcher.start()
        start = time.perf_counter()
        kill()
        watcher.join()
        if moments[0] < start:
            raise Failed("the tree ended before it was to")
        return (moments[0] - start) * 1000
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _grown(mark: str) -> list[int]:
    """Its processes, once all are there."""
    deadline = time.monotonic() + _PATIENCE_S
    while len(found := _marked(f"{MARK}={mark}".encode())) != SIZE:
        if time.monotonic() > deadline:
            raise Failed(f"a tree of {SIZE} has {len(found)} processes")
        time.sleep(0.01)
    return found


def _marked(word: bytes) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if word in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
    return found


def _dead(descriptors: list[int]) -> float:
    """When the last of these processes died (time.perf_counter()). After 20 s it stops waiting."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    left = set(descriptors)
    while left:
        ready = poll.poll(_PATIENCE_S * 1000)
        if not ready:
            return 0.0
        for descriptor, _ in ready:
            poll.unregister(descriptor)
            left.discard(descriptor)
    return time.perf_counter()
