"""PUB: tells whoever subscribed. It can lose messages, and everybody knows where to read what it lost."""

from __future__ import annotations

import os

import zmq

from sparrow_mp import wire
from sparrow_mp.paths import Places, check_address
from sparrow_supervisor.doorkeeper import Doorkeeper
from sparrow_supervisor.loop import Loop

_HIGH_WATER = 1_000
_MESSAGE_BYTES = 32 << 10
"""A longer one is cut between events. With the high water mark this bounds what is kept for a subscriber that takes nothing."""
_LONGEST_SUBSCRIPTION = 1024
"""Bytes of a topic's beginning. Each costs memory here as long as its subscriber is there."""


class Hub:
    """The event socket."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], places: Places, loop: Loop) -> None:
        """Bind. Raises zmq.ZMQError, StateError."""
        check_address(places.runtime / "events.sock", "the event socket")
        self._socket = context.socket(zmq.PUB)
        self._socket.set(zmq.LINGER, 200)
        self._socket.set(zmq.SNDHWM, _HIGH_WATER)
        self._socket.set(zmq.MAXMSGSIZE, _LONGEST_SUBSCRIPTION)
        self._socket.set(zmq.IPC_FILTER_UID, os.geteuid())
        self._path = places.runtime / "events.sock"
        self._doorkeeper = Doorkeeper(loop, self._socket, self._path)
        self._socket.bind(places.events)
        self._changed: dict[str, int] = {}

    def publish(self, run: str, kind: str, lines: bytes, last: int) -> None:
        """Consecutive events of one run and type, one a line, the last of which is ``last``: one message, or a few."""
        topic = f"{run}/{kind}".encode()
        start = 0
        while len(lines) - start > _MESSAGE_BYTES:
            end = (
                (lines.rfind(b"\n", start, start + _MESSAGE_BYTES) + 1) or (lines.find(b"\n", start) + 1) or len(lines)
            )
            self._socket.send_multipart((topic, lines[start:end]), zmq.NOBLOCK, copy=True)
            start = end
        if start < len(lines):
            self._socket.send_multipart((topic, lines[start:] if start else lines), zmq.NOBLOCK, copy=True)
        self._changed[run] = last

    def heads(self) -> None:
        """The last seq of each run that changed since the last time: a lost tail shows no hole."""
        if self._changed:
            changed, self._changed = self._changed, {}
            self._socket.send_multipart((b"heads", wire.encode({"type": "Heads", "runs": changed})), zmq.NOBLOCK)

    def close(self) -> None:
        """Close, and see that no socket file stays."""
        self._doorkeeper.close()
        self._socket.close()
        self._path.unlink(missing_ok=True)
