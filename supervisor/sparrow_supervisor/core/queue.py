"""Who waits for a place, in the order in which they get one: the higher priority first, within one the clients take turns.

So nobody's one run waits for another's two hundred. The runs of one client come in their order. It is fair queueing: each run
is given the number of a turn when it comes: the one after its client's last, or the one that is being served where that is over.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

_MANY = 1000


class Queue:
    """The runs that wait, and some that do no longer: who has added them knows which."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, str]] = []
        self._arrivals = 0
        self._given: dict[tuple[int, str], int] = {}
        """The last turn that a client was given within a priority."""
        self._served: dict[int, int] = {}
        """The turn of the last one of a priority that got its place."""

    def add(self, run: str, priority: int, client: str) -> None:
        """A run has come."""
        self._arrivals += 1
        turn = max(self._given.get((priority, client), 0) + 1, self._served.get(priority, 0))
        self._given[priority, client] = turn
        if len(self._given) > _MANY:  # a client whose turns are over is as one that comes for the first time
            self._given = {key: last for key, last in self._given.items() if last > self._served.get(key[0], 0)}
        heapq.heappush(self._heap, (-priority, turn, self._arrivals, run))

    def pop(self, waits: Callable[[str], bool]) -> str | None:
        """Take out the next one that still waits; None where there is none."""
        while self._heap:
            priority, turn, _, run = heapq.heappop(self._heap)
            if waits(run):
                self._served[-priority] = turn
                return run
        return None

    def runs(self) -> list[str]:
        """All of them, in their order."""
        return [run for _, _, _, run in sorted(self._heap)]

    def before(self, run: str) -> list[str] | None:
        """Those that are before this one; None where it is not there."""
        mine = next((entry for entry in self._heap if entry[3] == run), None)
        return None if mine is None else [entry[3] for entry in self._heap if entry < mine]
