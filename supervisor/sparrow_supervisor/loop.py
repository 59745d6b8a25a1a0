"""The loop that everything in the supervisor runs in: descriptors, work that is left, and moments. It never waits elsewhere.

A callback that has more to do than one turn allows asks to be called again (``again``), and shares a few milliseconds of each
turn with others that have; who has little to do is called in every turn (``soon``). So nobody who does much makes anybody
wait who does little. Whoever is fed by a flood (``flooded``) can also be made to rest after each of its turns (``rest``): what
is not taken then the sender cannot produce, which leaves the processors to everybody else. To ask is also what an edge-triggered descriptor (ZeroMQ's) needs, since it will not tell twice.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import select
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

_TURN_S = 0.005

_LONGEST_WAIT_S = 3600.0
"""The kernel takes no more than 24 days."""

Callback = Callable[[], None]


class Loop:
    """Calls back until stopped. A callback that raises is logged, and stops nothing."""

    rest = 0.0
    """How long those rest who are fed by floods, as a multiple of the time that their part of the turn took."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._soon: dict[Callback, None] = {}
        self._again: dict[Callback, None] = {}
        self._flooded: dict[Callback, None] = {}
        self._rests_until = 0.0
        self._timers: list[tuple[float, int, Callback]] = []
        self._count = itertools.count()
        self._stopped = False

    def watch(self, fd: int, callback: Callback) -> None:
        """Call back whenever the descriptor is readable."""
        self._epoll.register(fd, select.EPOLLIN)
        self._readers[fd] = callback

    def unwatch(self, fd: int) -> None:
        """No longer call back for a descriptor. Must come before it is closed."""
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def soon(self, callback: Callback) -> None:
        """Call back in the next turn, once, however often this is asked."""
        self._soon[callback] = None

    def again(self, callback: Callback) -> None:
        """Call back when it is its turn among all who have much to do, once, however often this is asked."""
        self._again[callback] = None

    def flooded(self, callback: Callback) -> None:
        """The same for one whose work is made by somebody who does not stop."""
        self._flooded[callback] = None

    def later(self, seconds: float, callback: Callback) -> None:
        """Call back once, after so many seconds."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), callback))

    def stop(self) -> None:
        """Have ``run`` return after this turn."""
        self._stopped = True

    def run(self) -> None:
        """Turn until stopped."""
        while not self._stopped:
            self._work()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                self.guard(heapq.heappop(self._timers)[2])
            for fd, _ in self._epoll.poll(self._timeout()):
                reader = self._readers.get(fd)
                if reader is not None:
                    self.guard(reader)
        self._readers.clear()  # what is closed from here on asks to be unwatched, and need not know that we have ended
        self._epoll.close()

    def _work(self) -> None:
        """Do what is left from the last turn, and for a bounded time what is much: then it is the descriptors' turn again."""
        soon, self._soon = self._soon, {}
        for callback in soon:
            self.guard(callback)
        self._share(self._again)
        began = time.monotonic()
        if self._flooded and began >= self._rests_until:
            self._share(self._flooded)
            now = time.monotonic()
            self._rests_until = now + (now - began) * self.rest

    def _share(self, work: dict[Callback, None]) -> None:
        """Do some of it, for a bounded time."""
        until = time.monotonic() + _TURN_S
        for _ in range(len(work)):
            callback = next(iter(work))
            del work[callback]
            self.guard(callback)
            if time.monotonic() > until:
                return

    def _timeout(self) -> float | None:
        if self._soon or self._again or self._stopped:
            return 0.0
        due = [self._timers[0][0]] if self._timers else []
        due += [self._rests_until] if self._flooded else []
        return max(0.0, min(min(due) - time.monotonic(), _LONGEST_WAIT_S)) if due else None

    @staticmethod
    def guard(callback: Callback, fatal: Callable[[Exception], bool] = lambda _: False) -> None:
        """Call it; where it fails, log that and go on, unless ``fatal`` says that there is no going on."""
        try:
            callback()
        except Exception as error:  # no input, from wherever, stops us: what a callback did not foresee is logged
            if fatal(error):
                raise
            _log.exception("a callback failed; the supervisor goes on")
