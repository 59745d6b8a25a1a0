"""Keeps the number of connections to one of our ZeroMQ sockets below a limit.

libzmq ends the whole process where it cannot have a descriptor for a connection that it accepts (``ipc_listener.cpp``), and
accepts whoever comes. So whoever is one too many is cut off here, long before the descriptors are used up; its library
connects again by itself.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from pathlib import Path

import zmq

from sparrow_supervisor.loop import Loop
from sparrow_supervisor.room import room

_log = logging.getLogger(__name__)

_AT_ONCE = 1000
_SILENCE_S = 10.0
HANDSHAKE_MS = 5000
"""How long a connection may say nothing before it is closed."""
_EVENT = struct.Struct("=hi")  # which, and its descriptor


class Doorkeeper:
    """Counts by the socket's own reports: libzmq says of each connection when it comes and when it goes."""

    def __init__(self, loop: Loop, watched: zmq.Socket[bytes], path: Path) -> None:
        """To be made before the socket is bound to ``path``. Raises zmq.ZMQError."""
        self._most = room().connections
        self._loop = loop
        self._path = os.fspath(path)
        self._watched = watched
        self._inside: set[int] = set()
        self._complained = 0.0
        watched.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self._reports = watched.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._fd = int(self._reports.get(zmq.FD))
        loop.watch(self._fd, self._hear)
        loop.soon(self._hear)

    def close(self) -> None:
        """To be called before the socket is closed."""
        self._loop.unwatch(self._fd)
        self._watched.disable_monitor()

    def _hear(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                report = self._reports.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return  # nothing more, or closed
            event, fd = _EVENT.unpack(report[0])
            if event == zmq.EVENT_DISCONNECTED:
                self._inside.discard(fd)
            elif len(self._inside) < self._most:
                self._inside.add(fd)
            else:
                self._cut_off(fd)
        self._loop.soon(self._hear)

    def _cut_off(self, fd: int) -> None:
        """Shut the connection; libzmq then sees its end and closes it.

        By the time of its report it may have ended, and its number be another's. That of another connection to this socket
        is no harm (it connects again), and anything else has another name.
        """
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                if connection.family == socket.AF_UNIX and connection.getsockname() == self._path:
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended by itself
        now = time.monotonic()
        if now - self._complained > _SILENCE_S:
            self._complained = now
            _log.warning("%s has %d connections, which is the limit; others are cut off", self._path, self._most)
