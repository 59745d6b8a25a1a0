"""What the live runs use just now: CPU and memory of each run's whole process tree.

One look is one pass over ``/proc/*/stat``, in slices of half a millisecond in the loop: a thread would have to share the
interpreter with the loop, and made everybody's events late. There is a look only when somebody asks, and looking never takes
more than a twentieth of the time. Whoever asks is answered from the last look, or from the one that is under way if that
is done soon.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from sparrow_supervisor.loop import Loop

_log = logging.getLogger(__name__)

_FRESH_S = 1.0
_REST = 20
"""After a look there is none for so many times as long as it took."""
_SLICE_S = 0.0005
_PATIENCE_S = 0.015
"""How long an answer waits for the look that it asked for."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Use(NamedTuple):
    """One run's use: ``cpu_percent`` of one processor since the last look, ``memory_bytes`` resident.

    The CPU is that of all its processes, its monitor's included and of those that have ended. The memory is that of all but
    the monitor, whose pages are the zygote's, shared with all other runs.
    """

    cpu_percent: float
    memory_bytes: int


class Stat(NamedTuple):
    """One process, as the kernel tells of it: its parent, the CPU that it and the children it has waited for have used, what
    is resident, and when it began (all times in seconds, the last since boot).
    """

    parent: int
    cpu_s: float
    memory_bytes: int
    began: float


class _Sum(NamedTuple):
    cpu_s: float
    memory_bytes: int
    began: float


Answer = Callable[[Mapping[str, Use]], None]


class UsageWatch:
    """Answers what runs use; ``monitors`` says which there are just now (pid by run)."""

    def __init__(self, loop: Loop, monitors: Callable[[], dict[str, int]]) -> None:
        self._loop = loop
        self._monitors = monitors
        self._sums: dict[int, _Sum] = {}
        self._looked_at = 0.0
        self._looked_for = 0.0
        self._uses: dict[str, Use] = {}
        self._look: Iterator[None] | None = None
        self._waiting: dict[object, Answer] = {}

    def ask(self, then: Answer) -> None:
        """Hand over what the live runs use (by run): at once, or within 15 ms. A run that has only just begun
        may be missing.
        """
        monitors = self._monitors()
        if self._look is None and self._is_stale(monitors):
            self._looked_for = 0.0
            self._look = self._all(monitors)
            self._loop.again(self._go_on)
        if self._look is None:
            then(self._uses)
            return
        token = object()
        self._waiting[token] = then
        self._loop.later(_PATIENCE_S, lambda: self._answer(token))

    def _is_stale(self, monitors: Mapping[str, int]) -> bool:
        age = time.monotonic() - self._looked_at
        return age > self._looked_for * _REST and (age > _FRESH_S or not monitors.keys() <= self._uses.keys())

    def _answer(self, token: object) -> None:
        then = self._waiting.pop(token, None)
        if then is not None:
            then(self._uses)

    def _go_on(self) -> None:
        """One slice of the look."""
        assert self._look is not None
        began = time.perf_counter()
        until = began + _SLICE_S
        try:
            for _ in self._look:
                if time.perf_counter() > until:
                    self._looked_for += time.perf_counter() - began
                    self._loop.again(self._go_on)
                    return
        except OSError as error:  # few descriptors are left: whoever asks next has another look begun
            _log.warning("what runs use cannot be seen: %s", error)
        self._looked_for += time.perf_counter() - began
        self._look = None
        for token in list(self._waiting):
            self._loop.guard(lambda token=token: self._answer(token))  # type: ignore[misc]

    def _all(self, monitors: Mapping[str, int]) -> Iterator[None]:
        """Look at all processes; stops after each of them."""
        found: dict[int, Stat] = {}
        for pid in _pids():
            stat = read_stat(pid)
            if stat is not None:
                found[pid] = stat
            yield
        sums: dict[int, _Sum] = {}
        yield from _add_up(found, set(monitors.values()), sums)
        now, since_boot = time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
        passed = now - self._looked_at
        uses: dict[str, Use] = {}
        for run, pid in monitors.items():
            total, before = sums.get(pid), self._sums.get(pid)
            if total is None:
                continue
            if before is not None and before.began == total.began:
                share = (total.cpu_s - before.cpu_s) / passed
            else:
                share = total.cpu_s / max(0.1, since_boot - total.began)  # since it began, as ps(1) has it
            uses[run] = Use(round(max(0.0, share) * 100, 1), total.memory_bytes)
        self._sums, self._uses, self._looked_at = sums, uses, now


def _pids() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def read_stat(pid: int) -> Stat | None:
    """What the kernel tells of a process; None where it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return parse_stat(os.read(fd, 4096))
    except (OSError, ValueError, IndexError):
        return None
    finally:
        os.close(fd)


def parse_stat(line: bytes) -> Stat:
    """The line of proc_pid_stat(5). The name in it may hold anything, a line break and `)` as well. Raises ValueError, IndexError."""
    fields = line[line.rindex(b")") + 2 :].split()
    return Stat(
        parent=int(fields[1]),
        cpu_s=(int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) * _TICK_S,
        memory_bytes=int(fields[21]) * _PAGE_BYTES,
        began=int(fields[19]) * _TICK_S,
    )


def _add_up(found: Mapping[int, Stat], roots: set[int], sums: dict[int, _Sum]) -> Iterator[None]:
    """Fill ``sums``: what each of the roots and everything below it uses. Stops after each process."""
    above: dict[int, int] = {pid: pid for pid in roots}
    cpu = dict.fromkeys(roots & found.keys(), 0.0)
    memory = dict.fromkeys(cpu, 0)
    for pid, stat in found.items():
        root = _root_of(pid, found, above)
        if root in cpu:
            cpu[root] += stat.cpu_s
            memory[root] += stat.memory_bytes if pid != root else 0
        yield
    for root in cpu:
        sums[root] = _Sum(cpu[root], memory[root], found[root].began)


def _root_of(pid: int, found: Mapping[int, Stat], above: dict[int, int]) -> int:
    """The root above a process (or itself), 0 where there is none; what is learnt is kept in ``above``."""
    path = []
    while pid not in above:
        above[pid] = 0  # also ends a circle, which processes that come and go meanwhile may seem to form
        path.append(pid)
        stat = found.get(pid)
        pid = stat.parent if stat is not None else 0
        if pid == 0:
            break
    root = above.get(pid, 0)
    for each in path:
        above[each] = root
    return root
