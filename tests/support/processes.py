"""Looking at processes from outside, through /proc."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path


def pids() -> Iterator[int]:
    """Every process that there is."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    return state(pid) not in ("", "Z", "X")


def state(pid: int) -> str:
    """The letter of proc(5); empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def parent(pid: int) -> int:
    """The parent's pid; 0 where there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def title(pid: int) -> str:
    """The command line as ps shows it; empty where there is no such process."""
    return _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()


def descriptors(pid: int) -> list[str]:
    """What the process has open."""
    return list(_links(f"/proc/{pid}/fd"))


def belongs(pid: int, marker: str, folder: Path) -> bool:
    """Whether a process comes from a house: by a variable that is inherited, by what it has open, by where it is."""
    if state(pid) in ("", "X"):
        return False
    if marker.encode() in _read(f"/proc/{pid}/environ"):
        return True
    place = str(folder)
    if place in title(pid):
        return True
    try:
        if os.readlink(f"/proc/{pid}/cwd").startswith(place):
            return True
    except OSError:
        pass
    return any(link.startswith(place) for link in _links(f"/proc/{pid}/fd"))


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; a process that has gone is not an error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _links(folder: str) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(f"{folder}/{name}")
        except OSError:
            continue
