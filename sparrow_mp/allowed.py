"""What was allowed for always: the lines of `allowed.jsonl`, of which the last one about a thing counts.

Lines are only added, each in one write, also to take something back: many runs may do it at the same time, and none has to
wait for another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from sparrow_mp.events import Risk
from sparrow_mp.regular import open_regular, read_regular

_MOST_BYTES = 16 << 20


class Allowed(msgspec.Struct, frozen=True, order=True):
    """In that folder that tool may do what is of that risk."""

    workspace: str
    tool: str
    risk: Risk


class _Line(msgspec.Struct, omit_defaults=True):
    """One line of the file. ``taken_back``: from here on it is not allowed any more."""

    workspace: str
    tool: str
    risk: Risk
    taken_back: bool = False


def read_allowed(path: Path) -> set[Allowed]:
    """What the file says now. A line that is none is passed over: it allows nothing. Raises OSError."""
    found: set[Allowed] = set()
    try:
        data = read_regular(path, _MOST_BYTES)
    except FileNotFoundError:
        return found
    for text in data.splitlines():
        try:
            line = msgspec.json.decode(text, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        entry = Allowed(line.workspace, line.tool, line.risk)
        if line.taken_back:
            found.discard(entry)
        else:
            found.add(entry)
    return found


def allow(path: Path, entry: Allowed) -> None:
    """Allow it from now on. Raises OSError."""
    _add(path, [entry], taken_back=False)


def take_back(path: Path, entries: Iterable[Allowed]) -> None:
    """Allow them no longer. Raises OSError."""
    _add(path, entries, taken_back=True)


def _add(path: Path, entries: Iterable[Allowed], *, taken_back: bool) -> None:
    lines = [_Line(entry.workspace, entry.tool, entry.risk, taken_back) for entry in entries]
    data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    fd = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            data = b"\n" + data  # an editor, or a full disk, has left the last line without its end
        if os.write(fd, data) != len(data):
            raise OSError(f"{path}: the disk is full")
    finally:
        os.close(fd)
