"""What the live runs use just now: CPU and memory of each run's whole process tree.

Looking through all processes takes milliseconds, so a thread does it, only when somebody asks, and at most once a second.
It decides nothing, and the loop never waits for it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sparrow_supervisor.loop import Loop

_log = logging.getLogger(__name__)

_FRESH_S = 1.0


class Use(NamedTuple):
    """One run's use: ``cpu_percent`` of one processor since the last look, ``memory_bytes`` resident."""

    cpu_percent: float
    memory_bytes: int


class _Sum(NamedTuple):
    """What a tree's processes have used, and when the run's monitor began (seconds since 1970)."""

    cpu_s: float
    memory_bytes: int
    began: float


class UsageWatch:
    """Answers what runs use; ``ask`` calls back in the loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lock = threading.Condition()
        self._asked: list[tuple[Mapping[str, int], Callable[[dict[str, Use]], None]]] = []
        self._answered: list[tuple[Callable[[dict[str, Use]], None], dict[str, Use]]] = []
        self._before: dict[int, tuple[float, _Sum]] = {}
        self._latest: tuple[float, dict[int, Use]] = (0.0, {})
        self._ending = False
        self._thread: threading.Thread | None = None
        self._bell_in, self._bell_out = socket.socketpair()
        self._bell_in.setblocking(False)
        loop.watch(self._bell_in.fileno(), self._rung)

    def ask(self, monitors: Mapping[str, int], then: Callable[[dict[str, Use]], None]) -> None:
        """Look at the runs with these monitors (pid by run), and hand over what they use, soon and in the loop."""
        with self._lock:
            self._asked.append((dict(monitors), then))
            self._lock.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_when_asked, name="usage", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread; what was asked is not answered any more."""
        with self._lock:
            self._ending = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join()
        self._loop.unwatch(self._bell_in.fileno())
        self._bell_in.close()
        self._bell_out.close()

    def _rung(self) -> None:
        self._bell_in.recv(4096)
        with self._lock:
            answered, self._answered = self._answered, []
        for then, uses in answered:
            then(uses)

    def _look_when_asked(self) -> None:
        while True:
            with self._lock:
                while not self._asked and not self._ending:
                    self._lock.wait()
                if self._ending:
                    return
                asked, self._asked = self._asked, []
            wanted = {pid for monitors, _ in asked for pid in monitors.values()}
            at, uses = self._latest
            if time.monotonic() - at > _FRESH_S or not wanted <= uses.keys():
                uses = self._look_quietly(wanted)
            with self._lock:
                for monitors, then in asked:
                    self._answered.append((then, {run: uses[pid] for run, pid in monitors.items() if pid in uses}))
            self._bell_out.send(b"!")

    def _look_quietly(self, roots: set[int]) -> dict[int, Use]:
        try:
            return self._look(roots)
        except Exception:  # whoever asked is answered, whatever the processes of this machine look like
            _log.exception("the use of the runs cannot be told")
            return {}

    def _look(self, roots: set[int]) -> dict[int, Use]:
        now = time.monotonic()
        sums = _sums(roots)
        uses: dict[int, Use] = {}
        for pid, total in sums.items():
            before = self._before.get(pid)
            if before is not None and now > before[0]:
                share = (total.cpu_s - before[1].cpu_s) / (now - before[0])
            else:
                share = total.cpu_s / max(0.1, time.time() - total.began)  # since it began, as ps(1) has it
            uses[pid] = Use(round(max(0.0, share) * 100, 1), total.memory_bytes)
        self._before = {pid: (now, total) for pid, total in sums.items()}
        self._latest = (now, uses)
        return uses


def _sums(roots: set[int]) -> dict[int, _Sum]:
    """What each of these processes and everything below it has used, from one pass over all processes."""
    import psutil  # here, since only a supervisor that is asked needs it

    parents: dict[int, int] = {}
    used: dict[int, tuple[float, int]] = {}
    began: dict[int, float] = {}
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                parents[process.pid] = process.ppid()
                times = process.cpu_times()
                used[process.pid] = (times.user + times.system, process.memory_info().rss)
                if process.pid in roots:
                    began[process.pid] = process.create_time()
        except psutil.Error:
            continue
    totals = {pid: [0.0, 0.0] for pid in roots if pid in used}
    for pid, (cpu_s, memory) in used.items():
        root = _root_of(pid, parents, roots)
        if root in totals:
            totals[root][0] += cpu_s
            totals[root][1] += memory
    return {pid: _Sum(cpu_s, int(memory), began[pid]) for pid, (cpu_s, memory) in totals.items()}


def _root_of(pid: int, parents: Mapping[int, int], roots: set[int]) -> int:
    """The run's monitor above a process (or itself); 0 where there is none."""
    seen = 0
    while pid not in roots and pid in parents and seen < 1000:
        pid = parents[pid]
        seen += 1
    return pid if pid in roots else 0
