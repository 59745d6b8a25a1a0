"""The loop that everything in the supervisor runs in: descriptors, work that is left, and moments. It never waits elsewhere.

A callback that has more to do than one turn allows asks to be called again (``soon``), so that no socket starves another.
That is also what an edge-triggered descriptor (ZeroMQ's) needs, since it will not tell twice.
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

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._soon: dict[Callback, None] = {}
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
        """Do what is left from the last turns, for a bounded time: then it is the descriptors' turn again."""
        until = time.monotonic() + _TURN_S
        for _ in range(len(self._soon)):
            callback = next(iter(self._soon))
            del self._soon[callback]
            self.guard(callback)
            if time.monotonic() > until:
                return

    def _timeout(self) -> float | None:
        if self._soon or self._stopped:
            return 0.0
        if not self._timers:
            return None
        return max(0.0, min(self._timers[0][0] - time.monotonic(), _LONGEST_WAIT_S))

    @staticmethod
    def guard(callback: Callback) -> None:
        """Call it; where it fails, log that and go on."""
        try:
            callback()
        except Exception:  # no input, from wherever, stops the supervisor: what a callback did not foresee is logged
            _log.exception("a callback failed; the supervisor goes on")
