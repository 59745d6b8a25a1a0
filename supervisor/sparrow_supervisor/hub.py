"""PUB: tells whoever subscribed. It can lose messages, and everybody knows where to read what it lost."""

from __future__ import annotations

import os

import zmq

from sparrow_mp import wire
from sparrow_mp.paths import Places, check_address

_HIGH_WATER = 1_000


class Hub:
    """The event socket."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], places: Places) -> None:
        """Bind. Raises zmq.ZMQError, StateError."""
        check_address(places.runtime / "events.sock", "the event socket")
        self._socket = context.socket(zmq.PUB)
        self._socket.set(zmq.LINGER, 200)
        self._socket.set(zmq.SNDHWM, _HIGH_WATER)
        self._socket.set(zmq.MAXMSGSIZE, 1 << 16)
        self._socket.set(zmq.IPC_FILTER_UID, os.geteuid())
        self._socket.bind(places.events)
        self._path = places.runtime / "events.sock"
        self._changed: dict[str, int] = {}

    def publish(self, run: str, kind: str, lines: bytes, last: int) -> None:
        """One message: consecutive events of one run and type, one a line, the last of which is ``last``."""
        self._socket.send_multipart((f"{run}/{kind}".encode(), lines), zmq.NOBLOCK, copy=True)
        self._changed[run] = last

    def heads(self) -> None:
        """The last seq of each run that changed since the last time: a lost tail shows no hole."""
        if self._changed:
            changed, self._changed = self._changed, {}
            self._socket.send_multipart((b"heads", wire.encode({"type": "Heads", "runs": changed})), zmq.NOBLOCK)

    def close(self) -> None:
        """Close, and see that no socket file stays."""
        self._socket.close()
        self._path.unlink(missing_ok=True)
