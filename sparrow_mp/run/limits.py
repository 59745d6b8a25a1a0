"""What a run may use, and when it has used more: decided here, from figures and moments that are handed in.

It is the monitor that keeps these limits, since it is there for as long as the run is, with a supervisor or without.
"""

from __future__ import annotations

from typing import NamedTuple

from sparrow_mp.events import Status
from sparrow_mp.wire import RunSpec

SOONEST_S = 0.05
LATEST_S = 5.0
"""The tree is looked at no more and no less often than this, as far as it is from a limit."""
_BYTES_A_SECOND = 2 << 30
"""As fast as memory can be filled, about: it says how soon a tree can be at its limit."""
_PROCESSES_A_SECOND = 1000
_SHARE = 0.05
"""The part of a processor that looking may take."""
NEARLY = 0.8
"""The part of its budget at which a run is told of."""


class Breach(NamedTuple):
    """A limit that was reached: how the run has to end, why, whether at once, without its grace period, and whether what it
    has printed and is not recorded yet is left out.
    """

    status: Status
    reason: str
    at_once: bool
    mutes: bool = False


class Limits:
    """One run's. Seconds are monotonic; sizes are bytes."""

    def __init__(self, spec: RunSpec, began: float) -> None:
        self._spec = spec
        self._timeout_at = None if spec.timeout is None else began + spec.timeout
        self._look_at = self._next_look(began, 0, 0, 0.0)
        self._nearly_spent = False
        self._reached: set[str] = set()
        self._cost = 0.0

    @property
    def due(self) -> float | None:
        """The moment at which time alone makes something necessary: a look at the tree, or the end of the time."""
        return min((at for at in (self._timeout_at, self._look_at) if at is not None), default=None)

    def wants_look(self, now: float) -> bool:
        """Whether the tree is to be looked at: then ``used`` takes what was seen."""
        return self._look_at is not None and now >= self._look_at

    def used(self, now: float, memory: int, processes: int, took_s: float) -> Breach | None:
        """The tree has so many processes and so much memory, and to see that took so long."""
        self._look_at = self._next_look(now, memory, processes, took_s)
        spec = self._spec
        if spec.memory is not None and memory > spec.memory:
            return out_of_memory(spec.memory, memory)
        if spec.max_processes is not None and processes > spec.max_processes:
            return too_many_processes(spec.max_processes)
        return None

    def spent(self, usd: float) -> bool:
        """Its cost so far; whether it is to be told that its budget is nearly spent, which is so once."""
        self._cost = usd
        near = self._spec.budget is not None and usd >= NEARLY * self._spec.budget
        first = near and not self._nearly_spent
        self._nearly_spent = self._nearly_spent or near
        return first

    def reached(self, now: float, printed: int, transcript: int) -> Breach | None:
        """What it has reached, and had not before: by now, by so many bytes that it has printed and that its events have."""
        spec = self._spec
        if spec.max_output is not None and printed > spec.max_output and self._first("output"):
            return Breach(
                "over_limit", f"it printed more than {_size(spec.max_output)} (max_output)", at_once=True, mutes=True
            )
        if spec.max_transcript is not None and transcript > spec.max_transcript and self._first("transcript"):
            limit = _size(spec.max_transcript)
            return Breach(
                "over_limit", f"its transcript has more than {limit} (max_transcript)", at_once=True, mutes=True
            )
        if spec.budget is not None and self._cost >= spec.budget and self._first("budget"):
            return Breach(
                "over_budget", f"it cost {self._cost:.4f} USD of a budget of {spec.budget:.4f}", at_once=False
            )
        if self._timeout_at is not None and now >= self._timeout_at:
            self._timeout_at = None
            return Breach("timed_out", f"it ran longer than {spec.timeout:g} s", at_once=False)
        return None

    def _first(self, limit: str) -> bool:
        if limit in self._reached:
            return False
        self._reached.add(limit)
        return True

    def _next_look(self, now: float, memory: int, processes: int, took_s: float) -> float | None:
        """Not later than it can be at a limit, as far as anybody can say."""
        spec = self._spec
        waits: list[float] = []
        if spec.memory is not None:
            waits.append((spec.memory - memory) / _BYTES_A_SECOND)
        if spec.max_processes is not None:
            waits.append((spec.max_processes - processes) / _PROCESSES_A_SECOND)
        if not waits:
            return None
        return now + max(SOONEST_S, min(LATEST_S, took_s / _SHARE), min(LATEST_S, *waits))


def out_of_memory(limit: int, used: int | None = None) -> Breach:
    """It used more memory than it may; ``used`` None where only the kernel saw how much."""
    seen = f"it used {_size(used)} of memory" if used is not None else "it used all of the memory that it may"
    return Breach("out_of_memory", f"{seen}; the limit is {_size(limit)}", at_once=True)


def too_many_tasks(limit: int) -> Breach:
    """The kernel let it have no more processes and threads: so many for each process that it may have."""
    return Breach(
        "over_limit", f"it wanted more than {limit} processes and threads at once (max_processes)", at_once=True
    )


def too_many_processes(limit: int) -> Breach:
    """It had more processes at once than it may."""
    return Breach("over_limit", f"it had more than {limit} processes at once (max_processes)", at_once=True)


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"
