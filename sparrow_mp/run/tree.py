"""The process tree below one process: find it, and end all of it.

The caller is a child subreaper, so nothing that was started below it can leave its tree while it lives. Killing such a
tree for good takes three things (each alone leaves survivors): stop what is found before killing it, so that nothing can
fork away; look again until nothing is new; and believe nothing but this proof: after reaping, one read of the caller's
own children shows none. Every signal goes through a pidfd whose process was seen to be in the tree *after* it was opened,
so no stranger that got a reused pid is ever hit.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Callable, Collection

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """From now on orphans among the descendants become children of this process. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """From now on SIGKILL comes to this process when ``parent`` dies; at once where it has died already. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def children(pid: int) -> list[int]:
    """The children of a process, zombies included, of all its threads; none where it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def descendants(root: int, spare: Collection[int] = ()) -> list[int]:
    """All processes below ``root``, parents first; what is in ``spare``, and below it, is left out."""
    found: list[int] = []
    todo = [root]
    while todo:
        for child in children(todo.pop()):
            if child not in spare:
                found.append(child)
                todo.append(child)
    return found


def end_tree(reap: Callable[[], None], spare: Collection[int] = (), limit: float = 10.0) -> list[int]:
    """SIGKILL everything below this process and see it gone; what is still there after ``limit`` seconds.

    ``reap`` collects the exit status of every child that has ended.
    """
    own = os.getpid()
    deadline = time.monotonic() + limit
    while True:
        held: dict[int, int] = {}
        try:
            while fresh := [pid for pid in descendants(own, spare) if pid not in held]:
                for pid in fresh:
                    fd = _hold(pid, held.keys() | {own})
                    held[pid] = fd
                    _send(fd, signal.SIGSTOP)
                if time.monotonic() > deadline:
                    break
            for fd in held.values():
                _send(fd, signal.SIGKILL)
            _wait_for(held.values(), reap, deadline)
        finally:
            for fd in held.values():
                if fd >= 0:
                    os.close(fd)
        reap()
        left = [pid for pid in children(own) if pid not in spare]
        if not left or time.monotonic() > deadline:
            return left


def signal_tree(*numbers: int, spare_group: int = 0) -> None:
    """Send signals to everything below this process, once, but not to the members of one process group."""
    own = os.getpid()
    tree = descendants(own)
    for pid in tree:
        fd = _hold(pid, {own, *tree})
        if fd >= 0:
            if _group(pid) != spare_group:
                for number in numbers:
                    _send(fd, number)
            os.close(fd)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _hold(pid: int, parents: Collection[int]) -> int:
    """A pidfd of a process that is in the tree, -1 where it has gone or is a stranger."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return -1
    if _parent(pid) in parents and not _ended(fd):
        return fd
    os.close(fd)
    return -1


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def _ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _send(fd: int, number: int) -> None:
    if fd >= 0:
        try:
            signal.pidfd_send_signal(fd, number)
        except (ProcessLookupError, PermissionError):
            pass  # gone, or somebody else's (sudo): then it is told as what could not be ended


def _wait_for(fds: Collection[int], reap: Callable[[], None], deadline: float) -> None:
    """Until all of these processes have ended; they are reaped as they fall to us."""
    poll = select.poll()
    waiting = {fd for fd in fds if fd >= 0}
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting and time.monotonic() < deadline:
        for fd, _ in poll.poll(50):
            poll.unregister(fd)
            waiting.discard(fd)
        reap()
