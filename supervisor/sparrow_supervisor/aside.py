"""A thread beside the loop, for small work on files that would take the loop too long: one piece after another.

It decides nothing: each piece is handed to it, and what comes of it is handed back to the loop.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from sparrow_supervisor.loop import Loop

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Bell:
    """Lets another thread have something called in the loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)
        loop.watch(self._in.fileno(), self._rung)

    def call(self, callback: Callable[[], None]) -> None:
        """Have it called in the loop. From any thread."""
        self._calls.put(callback)
        try:
            self._out.send(b"!")
        except BlockingIOError:
            pass  # it rings already
        except OSError:
            pass  # the loop has ended

    def close(self) -> None:
        """Call nothing any more."""
        self._loop.unwatch(self._in.fileno())
        self._in.close()
        self._out.close()

    def _rung(self) -> None:
        self._in.recv(4096)
        while True:
            try:
                callback = self._calls.get_nowait()
            except queue.Empty:
                return
            self._loop.guard(callback)


class Aside:
    """The thread. It is begun with the first piece of work."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._work: queue.SimpleQueue[Callable[[], Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, work: Callable[[], _T], then: Callable[[_T | Exception], None]) -> None:
        """Do the work in the thread, and then hand what came of it, or what it raised, to ``then`` in the loop."""

        def piece() -> Callable[[], None]:
            result: _T | Exception
            try:
                result = work()
            except Exception as error:  # handed over: whoever asked knows what to make of it
                result = error
            return lambda: then(result)

        self._work.put(piece)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="aside", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread when it has done what it was given."""
        self._work.put(None)
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        while (piece := self._work.get()) is not None:
            self._bell.call(piece())
