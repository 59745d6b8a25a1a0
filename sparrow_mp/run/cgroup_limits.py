"""The limits of a run's cgroup, where its controllers are handed to us as well: then the kernel itself keeps them.

It knows at once what ``meter`` learns at its next look, and lets nothing past it meanwhile. A cgroup without these files has no
such controller, and the looks have to do.
"""

from __future__ import annotations

import logging
from pathlib import Path

_log = logging.getLogger(__name__)

_TASKS_A_PROCESS = 8
"""The kernel counts threads as well, so this many are let in for each process: it is there to stop a fork bomb."""
_FEWEST_TASKS = 64
"""One process of Node or of a JVM begins with some twenty threads."""
_NEARLY = 0.9


def set_limits(leaf: Path, memory: int | None, processes: int | None) -> None:
    """Have the kernel keep these limits in a cgroup. None, or no controller: no limit."""
    if memory is not None and _set(leaf / "memory.max", str(memory)):
        _set(leaf / "memory.swap.max", "0")  # or the machine would swap before anything is reached
        _set(leaf / "memory.oom.group", "1")  # all of the run or nothing
    if processes is not None:
        tasks = max(_FEWEST_TASKS, processes * _TASKS_A_PROCESS)
        room = _number(leaf.parent / "pids.max")
        if room is not None:
            tasks = min(tasks, max(1, room // 2))  # or a bomb would take what all the runs have between them first
        _set(leaf / "pids.max", str(tasks))


def out_of_memory(leaf: Path) -> bool:
    """Whether the kernel has killed something in there for want of memory."""
    return _count(leaf / "memory.events", "oom_kill") > 0


def out_of_tasks(leaf: Path) -> int | None:
    """How many processes and threads it may have, where the kernel has refused it one more; else None.

    Before Linux 6.11 a fork that is refused for a limit further up is counted here as well, where no limit was reached: so
    the kernel is believed where this cgroup has had about as many as it may.
    """
    most = _number(leaf / "pids.max")
    if most is None or not _count(leaf / "pids.events", "max"):
        return None
    had = max(_number(leaf / "pids.peak") or 0, _number(leaf / "pids.current") or 0)  # there is a peak since Linux 6.1
    return most if had >= _NEARLY * most else None


def _set(file: Path, value: str) -> bool:
    try:
        with open(file, "r+") as opened:  # never made: in a cgroup it is there or it is not
            opened.write(value)
    except FileNotFoundError:
        return False
    except OSError as error:
        _log.warning("%s cannot be set to %s: %s", file, value, error.strerror)
        return False
    return True


def _number(file: Path) -> int | None:
    """None where there is none: no such file, or no limit ("max")."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _count(file: Path, name: str) -> int:
    try:
        fields = dict(line.split() for line in file.read_text().splitlines())
        return int(fields.get(name, 0))
    except (OSError, ValueError):
        return 0
