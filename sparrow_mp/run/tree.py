"""The process tree below one process: find it, and end all of it.

The caller is a child subreaper, so nothing that was started below it can leave its tree while it lives. Killing such a
tree for good takes three things (each alone leaves survivors): stop what is found before killing it, so that nothing can
fork away; look again until nothing is new; and believe nothing but this proof: after reaping, one read of the caller's
own children shows none. Every signal goes through a pidfd whose process was seen to be in the tree *after* it was opened,
so no stranger that got a reused pid is ever hit.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_WALL = 0x40000000
"""__WALL of waitpid(2): children of every kind, whatever signal their end is told by."""
_PATIENCE_S = 0.5
"""How long what was killed may take to end before the tree is looked at again: one that cannot end must not keep others."""
_LONGEST_WAIT_S = 0.05
_PAUSE_S = 0.0002
"""Between two looks that found nobody to hold: all had moved on, or are zombies that somebody else has to let go of."""
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper(yes: bool = True) -> None:
    """From now on orphans among the descendants become children of this process, or no longer do. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(yes))


def die_with_parent(parent: int) -> None:
    """From now on SIGKILL comes to this process when ``parent`` dies; at once where it has died already. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)  # itself


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def children(pid: int) -> list[int]:
    """The children of a process, zombies included, of all its threads; none where it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
        except OSError:
            continue  # this thread has ended: its children are another's now
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


class _Held:
    """Pidfds of living processes below this one, each seen to be in the tree after its pidfd was opened."""

    def __init__(self) -> None:
        self._own = os.getpid()
        self._fds: dict[int, int] = {}
        self.full = False
        """Whether there was no descriptor for one more: what is held has to be let go of first."""

    def find(self, spare: Collection[int] = ()) -> Iterator[tuple[int, int]]:
        """Walk the tree, parents first, and hold what is not held: each such pid and pidfd, before its children are read."""
        todo = [self._own]
        while todo:
            for pid in children(todo.pop()):
                if pid in spare:
                    continue
                if pid not in self._fds:
                    fd = self._hold(pid)
                    if self.full:
                        return
                    if fd >= 0:
                        yield pid, fd
                todo.append(pid)

    def send(self, number: int) -> None:
        """A signal to all of them."""
        for fd in self._fds.values():
            _send(fd, number)

    def forget_ended(self) -> None:
        """Let go of those that have ended."""
        for pid, fd in list(self._fds.items()):
            if _ended(fd):
                os.close(fd)
                del self._fds[pid]

    def wait(self, until: float) -> bool:
        """Until one of them has ended, at the longest until that moment (mono seconds); whether none is held."""
        self.forget_ended()
        if not self._fds:
            select.select([], [], [], _PAUSE_S)
            return True
        poll = select.poll()  # not select(), which knows no descriptor over 1,023
        for fd in self._fds.values():
            poll.register(fd, select.POLLIN)
        poll.poll(max(0.0, min(_LONGEST_WAIT_S, until - time.monotonic())) * 1000)
        self.forget_ended()
        return not self._fds

    def close(self) -> None:
        """Let go of all."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self.full = False

    def _hold(self, pid: int) -> int:
        """A pidfd of a living process that is in the tree; -1 where it has ended, or is a stranger."""
        try:
            fd = os.pidfd_open(pid)
        except OSError as error:
            self.full = error.errno in (errno.EMFILE, errno.ENFILE)
            return -1
        if self._is_member(pid, fd):
            self._fds[pid] = fd
            return fd
        os.close(fd)
        return -1

    def _is_member(self, pid: int, fd: int) -> bool:
        try:
            return os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL) is None
        except ChildProcessError:
            pass  # no child of this process: a child of one that is held, then
        parent = _parent(pid)
        # Read before these looks: who has not ended by now had its number when the line was read.
        if _ended(fd):
            return False
        above = self._fds.get(parent, -1)
        return parent == self._own or (above >= 0 and not _ended(above))


class Sweep:
    """Ends everything below this process. It is done in steps, so that who has other work too can get to it in between.

    ``reap`` collects the exit status of every child that has ended; ``spare`` is left alone, and what is below it.
    """

    def __init__(self, reap: Callable[[], None], spare: Collection[int] = ()) -> None:
        self._reap = reap
        self._spare = spare
        self._held = _Held()
        self._look_again_at: float | None = None
        """The moment until which those that were killed may take to end; None while there are some to be stopped."""

    @property
    def left(self) -> list[int]:
        """The children that this process has, zombies included. If there is none, there is no tree."""
        return [pid for pid in children(os.getpid()) if pid not in self._spare]

    def step(self, until: float) -> bool:
        """Go on with it until that moment (mono seconds); whether nothing is left."""
        while True:
            self._reap()
            if not self.left:
                self.close()
                return True
            if time.monotonic() >= until:
                return False
            if self._look_again_at is None and self._stopped_all(until):
                self._held.send(signal.SIGKILL)
                self._look_again_at = time.monotonic() + _PATIENCE_S
            if self._look_again_at is not None:
                ended = self._held.wait(until)
                if ended or time.monotonic() >= self._look_again_at:
                    self._look_again_at = None

    def close(self) -> None:
        """Let go of what is held."""
        self._held.close()
        self._look_again_at = None

    def _stopped_all(self, until: float) -> bool:
        """Stop whatever is new; whether nothing is, so that they can be killed."""
        while time.monotonic() < until:
            new = 0
            for _, fd in self._held.find(self._spare):
                _send(fd, signal.SIGSTOP)
                new += 1
            if not new or self._held.full:
                self._held.full = False
                return True
            self._reap()  # or a chain that hops leaves so many zombies that looking takes longer than hopping
        return False


def end_tree(reap: Callable[[], None], spare: Collection[int] = (), limit: float = 10.0) -> list[int]:
    """SIGKILL everything below this process and see it gone; what is still there after ``limit`` seconds.

    ``reap`` collects the exit status of every child that has ended.
    """
    sweep = Sweep(reap, spare)
    deadline = time.monotonic() + limit
    try:
        while not sweep.step(deadline):
            if time.monotonic() >= deadline:
                return sweep.left
    finally:
        sweep.close()
    return []


def signal_tree(*numbers: int, spare_group: int = 0) -> None:
    """Send signals to everything below this process, once, but not to the members of one process group."""
    with _holding() as held:
        for pid, fd in list(held.find()):  # all are found before the first one ends and leaves its children to us
            if _group(pid) != spare_group:
                for number in numbers:
                    _send(fd, number)


@contextmanager
def _holding() -> Iterator[_Held]:
    held = _Held()
    try:
        yield held
    finally:
        held.close()


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return -1


def _ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _send(fd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(fd, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone, or somebody else's (sudo): then it is told as what could not be ended
