"""The channel between an engine and its monitor: a socket pair that carries JSON objects, one a line.

Engine → monitor: ``started``, ``rejected`` (with ``code``), ``result``, ``raised``, ``ask`` (an approval's id),
``withdraw`` (it is no longer waited for; ``in_time`` where that is not for its time limit),
``cost`` (USD so far, where the run has a budget).
Monitor → engine: ``message`` (an injected text), ``decision`` (with ``id``), ``interrupt`` (the words, maybe empty).
"""

from __future__ import annotations

import socket
from typing import Any

import msgspec

MAX_RESULT_BYTES = 512 << 10
"""The largest result that fits into RunFinished."""


class Channel:
    """One end. Sending from the engine waits; the monitor's end never does and keeps what the engine does not take."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.closed = False
        self._in = b""
        self._out = b""

    def fileno(self) -> int:
        """For select and epoll."""
        return self.socket.fileno()

    def send(self, **body: Any) -> None:
        """Say something, waiting for room. A peer that is gone is not an error."""
        try:
            self.socket.setblocking(True)
            self.socket.sendall(msgspec.json.encode(body) + b"\n")
        except OSError:
            self.closed = True

    def post(self, **body: Any) -> None:
        """Say something without waiting; ``pump`` sends what is left."""
        self._out += msgspec.json.encode(body) + b"\n"
        self.pump()

    @property
    def unread(self) -> int:
        """How many bytes that were posted are still to be sent, since the peer does not read."""
        return len(self._out)

    def pump(self) -> None:
        """Send what the peer takes now."""
        try:
            while self._out:
                sent = self.socket.send(self._out, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                self._out = self._out[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._out = b""
            self.closed = True

    def receive(self) -> list[dict[str, Any]]:
        """What has come since, without waiting; ``closed`` is set where the peer has closed. A line that is none is dropped."""
        bodies: list[dict[str, Any]] = []
        while True:
            try:
                data = self.socket.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return bodies
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return bodies
            *lines, self._in = (self._in + data).split(b"\n")
            for line in lines:
                try:
                    body = msgspec.json.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue
                if isinstance(body, dict):
                    bodies.append(body)
