"""A monitor that is there before it is asked for, with its engine's process: a run that gets it begins at once.

Forking both and having them ready takes longer than all else that a run's beginning takes. So the zygote makes a spare one when
it has nothing else to do. Where runs come faster than that, each is forked when it is asked for, as ever.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import msgspec

_log = logging.getLogger(__name__)

_PAUSE_S = 0.01
"""After a run has begun: what it does first is not to wait for a processor because of a spare one."""
_RETRY_S = 5.0


class _Spare(NamedTuple):
    pidfd: int
    end: socket.socket


class Spares:
    """At most one. ``be_one`` is called in a fork with the end that it is told by, and does not return."""

    def __init__(self, be_one: Callable[[socket.socket], NoReturn]) -> None:
        self._be_one = be_one
        self._due = time.monotonic()
        self.alive: dict[int, _Spare] = {}
        """By pid: they are no strays."""

    @property
    def timeout(self) -> float | None:
        """Seconds until one is to be made; None where there is one."""
        return None if self.alive else max(0.0, self._due - time.monotonic())

    def turn(self) -> None:
        """Make one where it is time."""
        if self.alive or time.monotonic() < self._due:
            return
        self.wait(_RETRY_S)
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return  # as many descriptors as there may be: they are for runs
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            return
        if pid == 0:
            ours.close()
            self._be_one(theirs)
        theirs.close()
        try:
            self.alive[pid] = _Spare(os.pidfd_open(pid), ours)
        except OSError:
            ours.close()  # which ends it

    def wait(self, seconds: float = _PAUSE_S) -> None:
        """Make none for so long."""
        self._due = time.monotonic() + seconds

    def give(self, folder: str, last_seq: int) -> tuple[int, int] | None:
        """Have a spare one be the monitor of the run with this folder: its pid and pidfd, or None where there is none."""
        while self.alive:
            pid, spare = self.alive.popitem()
            try:
                with spare.end:
                    spare.end.sendall(msgspec.json.encode((folder, last_seq)) + b"\n")
                return pid, spare.pidfd
            except OSError:  # somebody has killed it, and it is not reaped yet
                os.close(spare.pidfd)
        return None

    def reaped(self, pid: int) -> None:
        """This child has ended, which may have been a spare one."""
        spare = self.alive.pop(pid, None)
        if spare is not None:
            _log.warning("the spare monitor, process %d, has ended", pid)
            spare.end.close()
            os.close(spare.pidfd)
            self.wait(_RETRY_S)

    def close(self) -> None:
        """In a fork: let go of them. In the zygote that is their end, and ``dismiss`` waits for it."""
        for spare in self.alive.values():
            spare.end.close()
            os.close(spare.pidfd)

    def dismiss(self) -> None:
        """The zygote ends, and they with it."""
        for pid, spare in self.alive.items():
            spare.end.close()
            try:
                signal.pidfd_send_signal(spare.pidfd, signal.SIGCONT)  # should somebody have stopped it
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            os.close(spare.pidfd)
        self.alive.clear()
