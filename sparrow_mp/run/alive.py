"""Who is a run's monitor, and does it live? A POSIX lock in the run's folder says so, and cannot be wrong.

The kernel drops it when the monitor dies, does not hand it to what the monitor forks, and tells anyone the holder's pid. So
no pid is ever written down, and none can have been reused.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from sparrow_mp.regular import open_regular, read_regular
from sparrow_mp.wire import PROTOCOL

_FLOCK = struct.Struct("@hhqqi")
"""struct flock of fcntl(2): type, whence, start, length, pid."""


HELD = 75
"""The exit code of a monitor that found another one holding its run."""


def hold(folder: Path) -> int:
    """Be the monitor of the run with this folder, for as long as this process lives; the descriptor.

    Raises BlockingIOError where another one is, OSError where the folder cannot be used.
    """
    fd = open_regular(folder / "alive", os.O_RDWR | os.O_CREAT)
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.pwrite(fd, b"%d" % PROTOCOL, 0)
    return fd


def protocol_of(folder: Path) -> int:
    """What the monitor of the run with this folder speaks, which another version of sparrow may have started."""
    try:
        return int(read_regular(folder / "alive", 20))
    except (OSError, ValueError):
        return PROTOCOL


def monitor_of(folder: Path) -> tuple[int, int] | None:
    """The pid and a pidfd of the monitor of the run with this folder; None where it is not alive."""
    try:
        fd = open_regular(folder / "alive", os.O_RDWR)
    except OSError:
        return None
    try:
        pid = _holder(fd)
        if pid is None:
            return None
        pidfd = os.pidfd_open(pid)
        if _holder(fd) == pid:  # still: so the pidfd is its own
            return pid, pidfd
        os.close(pidfd)
    except OSError:
        return None
    finally:
        os.close(fd)
    return None


def _holder(fd: int) -> int | None:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else pid
