"""Tells systemd how a service of ours is doing: sd_notify(3), a datagram of NAME=value lines.

READY=1  STATUS=words for people  WATCHDOG=1  STOPPING=1  EXTEND_TIMEOUT_USEC=…  MAINPID=…
BARRIER=1 with a descriptor, which systemd closes once it has dealt with all that came before
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import MutableMapping

_log = logging.getLogger(__name__)

_BARRIER_S = 5.0
_OF_THE_UNIT = (
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "SYSTEMD_EXEC_PID",
    "RUNTIME_DIRECTORY",
    "MANAGERPID",
)
"""What systemd says to a service alone: nothing that it starts should take it for its own."""


class Notify:
    """Who listens, and how long systemd waits for a sign of life (seconds; None: it does not)."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self.address = address
        self.watchdog_s = watchdog_s

    @classmethod
    def take(cls, env: MutableMapping[str, str]) -> Notify:
        """Read the environment, and take out of it what is meant for this process. Without an address nobody is told."""
        taken = {name: env.pop(name, "") for name in _OF_THE_UNIT}
        watched, owner = taken["WATCHDOG_USEC"], taken["WATCHDOG_PID"]
        ours = watched.isdecimal() and int(watched) > 0 and owner in ("", str(os.getpid()))
        return cls(taken["NOTIFY_SOCKET"], int(watched) / 1e6 if ours else None)

    def tell(self, **words: object) -> None:
        """Say NAME=value for each. Never waits; that nobody takes it is no fault."""
        try:
            with self._connection() as connection:
                connection.send(
                    "".join(f"{name}={_line(value)}\n" for name, value in words.items()).encode("utf-8", "replace")
                )
        except OSError as error:
            _log.debug("systemd was not told: %s", error)

    def barrier(self) -> None:
        """Wait until systemd has dealt with what it was told, for some seconds at most."""
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            with self._connection() as connection:
                socket.send_fds(connection, [b"BARRIER=1"], [theirs])
            os.close(theirs)
            theirs = -1
            poll = select.poll()
            poll.register(ours, 0)  # the other end's closing is always told
            poll.poll(int(_BARRIER_S * 1000))
        except OSError as error:
            _log.debug("systemd was not told: %s", error)
        finally:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)

    def _connection(self) -> socket.socket:
        """Raises OSError. An address that begins with @ is abstract: the kernel writes that as a NUL."""
        if self.address[:1] not in ("/", "@"):
            raise OSError(f"no address of a Unix socket: {self.address!r}")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            connection.connect("\0" + self.address[1:] if self.address[0] == "@" else self.address)
        except BaseException:  # whatever it is goes on up, once nothing is left open
            connection.close()
            raise
        return connection


def _line(value: object) -> str:
    """One line: what it says is not to be taken for another word."""
    return " ".join(str(value).split())
