"""Who may write to an outbox: one at a time, of all threads of all processes.

The long way is two locks. A POSIX record lock on the file's first byte: the kernel drops it when its holder dies, and a child
that the engine forked does not share it (flock's and OFD locks live on in such a child). And a lock among the threads of a
process, which a record lock does not keep out.

Taking the record lock and giving it back is two calls of the kernel for each event. The engine, which writes most, has a short
way without it for as long as it is *open*, which two bytes of the page and the order of their accesses take care of:

- the engine, having its thread lock, says that it is *writing*, and goes on only where the way is still open;
- whoever else wants to write takes the record lock, closes the way, and goes on only where the engine is not writing;
- between the two, that one has the kernel put a fence into both processes (membarrier), so that at least one sees the other;
  the engine, which is the one that is fast, needs none of its own;
- the engine opens the way when it has written the long way: when nobody else is writing, since it has the record lock.

An engine that was killed while it said that it was writing is known by another record lock, on the second byte, which it has
for as long as it lives. One that was only stopped is writing still: whoever must not wait for it then does without.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import threading
import time

from sparrow_mp.run.layout import OPEN, WRITING

_WRITERS, _ENGINE = 0, 1
"""The bytes of the file that are locked."""
_LOOKS = 100
"""How often it is seen whether the engine still writes, which it does for a few microseconds at a time."""
_PAUSE_S = 0.001
_KEEPS_ORDER = os.uname().machine == "x86_64"
"""Whether others see a processor's stores in the order in which they were made. Elsewhere nobody takes the short way."""
_SYS_MEMBARRIER = 324
_GLOBAL_EXPEDITED, _REGISTER_GLOBAL_EXPEDITED = 2, 4
_libc = ctypes.CDLL(None)


def fence() -> None:
    """Have what was stored before be seen by an engine's later loads, and what it stored before by the loads after this."""
    _membarrier(_GLOBAL_EXPEDITED)


def _membarrier(command: int) -> bool:
    """Whether the kernel did it; where it cannot, it has refused the engine's registration as well."""
    return _KEEPS_ORDER and _libc.syscall(_SYS_MEMBARRIER, command, 0, 0) == 0


class Turns:
    """One process's part in it."""

    def __init__(self, fd: int, page: mmap.mmap) -> None:
        self.threads = threading.Lock()
        self._fd = fd
        self._page = page
        self._engine: bool | None = None
        """Whether this process is known as the engine, which one process may be; None before it has asked."""

    def take(self, *, wait: bool) -> bool:
        """Have the turn, from which on only ``give`` lets others write. False where it would have to be waited for."""
        self.threads.acquire()
        try:
            while not self._take(wait=wait):
                if not wait:
                    self.threads.release()
                    return False
                time.sleep(_PAUSE_S)
        except BaseException:  # whatever a signal handler raises goes on up, once the turn is given back
            self.threads.release()
            raise
        return True

    def give(self) -> None:
        """Let others write."""
        try:
            self._lock(fcntl.LOCK_UN, _WRITERS)
        finally:
            self.threads.release()

    def open_short_way(self) -> bool:
        """In its turn, the engine lets itself write without one, until somebody else takes one. False where it may not."""
        if self._engine is None:
            fenced = _membarrier(_REGISTER_GLOBAL_EXPEDITED)
            self._engine = fenced and self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, _ENGINE)
        if self._engine:
            self._page[OPEN] = 1
        return self._engine

    def _take(self, *, wait: bool) -> bool:
        if not self._lock(fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, _WRITERS):
            return False
        self._page[OPEN] = 0
        fence()
        if not self._page[WRITING] or self._engine_stops() or self._engine_is_gone():
            return True
        self._lock(fcntl.LOCK_UN, _WRITERS)
        return False

    def _engine_stops(self) -> bool:
        """Whether the engine says within a moment that it no longer writes."""
        return not all(self._page[WRITING] for _ in range(_LOOKS))

    def _engine_is_gone(self) -> bool:
        """Whether it was the engine's end that kept it from saying that it no longer writes."""
        if not self._engine:
            if not self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, _ENGINE):
                return False
            self._lock(fcntl.LOCK_UN, _ENGINE)
        self._page[WRITING] = 0
        return True

    def _lock(self, how: int, byte: int) -> bool:
        try:
            fcntl.lockf(self._fd, how, 1, byte)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True
