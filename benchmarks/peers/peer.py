"""What a peer is to the benchmark, and waiting for what it writes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import Failed


class Unfit(Exception):
    """A peer is not to be had here, or has nothing that could be compared fairly; the text says why."""


@dataclass(frozen=True)
class Printer:
    """A command that prints lines."""

    argv: Sequence[str]
    """Words without a space in them."""
    count: int
    """How many lines."""
    size: int
    """All of them, in bytes."""


@dataclass(frozen=True)
class Work:
    """What peers are asked for, known before they are started, since some read it from a configuration file."""

    folder: Path
    """A folder of the peer's own."""
    runs: int
    """How many runs of /bin/true a sample of ``runs_a_second`` has."""
    printers: Mapping[str, Printer]
    """What prints, by a name of one word."""


class Peer:
    """A supervisor of somebody else's, running. A method that it does not have raises Unfit with the reason."""

    name: str
    """What it is called, with its version once that is known."""

    def __init__(self, work: Work) -> None:
        """Start it. Raises Unfit where it is not to be had."""
        self.work = work
        self.note = ""
        """What has to be known to read its figures."""

    def first_line(self) -> float:
        """Milliseconds from the request to start /bin/echo until its line is where this peer's user finds it."""
        raise Unfit("it has nothing to compare")

    def runs_a_second(self) -> float:
        """Runs of /bin/true from the first request until the end of the last is recorded."""
        raise Unfit("it has nothing to compare")

    def lines_a_second(self, printer: str) -> float:
        """Lines that one of ``work.printers`` prints, from the request to start it until all of them are in its log."""
        raise Unfit("it has nothing to compare")

    def close(self) -> None:
        """End it and all that it started."""


def until(true: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    """Look every tenth of a millisecond. Raises Failed where it takes longer than ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not come within {timeout:g} s")
        time.sleep(0.0001)


def size(path: Path) -> int:
    """The size of a file; 0 where there is none yet."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def grown_by(path: Path, more: int, before: int, what: str) -> None:
    """Wait until a file has ``more`` bytes more than ``before``, and not one too many."""
    until(lambda: size(path) >= before + more, what)
    if size(path) != before + more:
        raise Failed(f"{what}: {path.name} grew by {size(path) - before} bytes and should by {more}")
