"""Hearing, over the event socket, that there is something new to read."""

from __future__ import annotations

import time
from collections.abc import Callable

import zmq

from sparrow_mp import connect
from sparrow_mp.paths import Places, supervisor_alive

RESTART_SECONDS = 3.0
"""How long a stream gives a crashed supervisor to come back by itself before it starts one."""

MAX_AT_ONCE = 1000
"""How many messages are taken before the records are looked at again."""


class Caretaker:
    """Notices, while a stream hears nothing, that the supervisor has moved or crashed."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.at = connect.addresses(places)
        self._down_since: float | None = None

    def moved(self) -> bool:
        """Whether ``at`` is another address than before."""
        before, self.at = self.at, connect.addresses(self._places)
        return self.at.events != before.events

    def is_missed(self) -> bool:
        """Whether a supervisor crashed, and nobody has restarted it for a while."""
        if supervisor_alive(self._places) or not connect.crashed(self._places):
            self._down_since = None
        elif self._down_since is None:
            self._down_since = time.monotonic()
        elif time.monotonic() - self._down_since > RESTART_SECONDS:
            self._down_since = None
            return True
        return False


class Ears:
    """A subscription to the topics that begin with ``topic``. What it misses does no harm.

    ``revive`` is called where a supervisor crashed and stays away.
    """

    def __init__(self, places: Places, topic: str, revive: Callable[[], None]) -> None:
        self._topic = topic.encode()
        self._caretaker = Caretaker(places)
        self._revive = revive
        self._socket = self._subscribe()
        self.heard: list[tuple[bytes, bytes]] = []

    def listen(self, seconds: float) -> bool:
        """Wait for a message at most so long, and take those that are there into ``heard``. False where there is none."""
        self.heard = []
        if not self._socket.poll(milliseconds(seconds), zmq.POLLIN):
            if seconds >= 0.5:
                self._look_after()
            return False
        for _ in range(MAX_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            if len(frames) == 2:
                self.heard.append((frames[0], frames[1]))
        return True

    def close(self) -> None:
        """Unsubscribe."""
        self._socket.close()

    def _subscribe(self) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, self._topic)
        socket.connect(self._caretaker.at.events)
        return socket

    def _look_after(self) -> None:
        if self._caretaker.moved():
            self._socket.close()
            self._socket = self._subscribe()
        if self._caretaker.is_missed():
            self._revive()


def milliseconds(seconds: float) -> int:
    """For poll(): rounded up, so that a short wait is not none."""
    return max(0, int(seconds * 1000 + 0.999))
