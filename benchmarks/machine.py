"""What the figures were measured on, and how busy it was with other things."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime

import msgspec
import zmq

PLACE = "/var/tmp"
"""Where folders are made that are thrown away: on a disk, where users have their state (/tmp may be in memory), and with a
short path, since the addresses of sockets are limited."""


def roomy() -> str:
    """Where a hundred thousand folders are made: in memory where it can be.

    A disk that has been used a lot may search for a free inode for half a millisecond, four times a run, which would make
    the history take minutes. What reads it afterwards would find it in the page cache anyway.
    """
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else PLACE


def describe() -> dict[str, str]:
    """The machine and the versions that matter, for people and for comparison."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "libzmq": f"{zmq.zmq_version()} (pyzmq {zmq.pyzmq_version()})",
        "msgspec": msgspec.__version__,
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def idle_share(seconds: float = 1.0) -> float:
    """The share of all CPU time that is idle, over a moment in which we do nothing."""
    before = _times()
    time.sleep(seconds)
    after = _times()
    spent = [now - then for then, now in zip(before, after, strict=True)]
    return (spent[3] + spent[4]) / max(1, sum(spent))


def wait_until_quiet(patience: float, share: float = 0.9) -> float:
    """Wait, for so many seconds at most, until the machine is mostly idle; how idle it was in the end."""
    deadline = time.monotonic() + patience
    while (idle := idle_share()) < share and time.monotonic() < deadline:
        pass
    return idle


def _times() -> list[int]:
    with open("/proc/stat", encoding="ascii") as file:
        return [int(word) for word in file.readline().split()[1:9]]
