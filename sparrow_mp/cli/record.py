"""The records on disk as the command line needs them: which run is meant, whether it has ended, when, how large it is.

They are read without a supervisor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sparrow_mp.events import decode_header
from sparrow_mp.paths import Places
from sparrow_mp.regular import read_regular
from sparrow_mp.transcript import EVENTS, INPUTS, META, last_event


@dataclass(frozen=True)
class Record:
    """One run's folder."""

    run: str
    folder: Path

    @property
    def ended(self) -> bool:
        """Whether nothing will be added. A record of sparrow-cli has no summary, but a last event."""
        if (self.folder / META).exists():
            return True
        last = last_event(self.folder)
        return last is not None and b'"RunFinished"' in last[:40]

    @property
    def ended_at(self) -> datetime:
        """When it ended, as the file system tells it."""
        for name in (META, EVENTS, "."):
            try:
                return datetime.fromtimestamp((self.folder / name).stat().st_mtime, UTC)
            except FileNotFoundError:
                continue
        return datetime.now(UTC)  # it has been deleted meanwhile

    @property
    def bytes(self) -> int:
        """What it takes on the disk; 0 where it has been deleted meanwhile."""
        try:
            return sum(path.lstat().st_blocks * 512 for path in self.folder.iterdir())
        except FileNotFoundError:
            return 0


def records(places: Places) -> Iterator[Record]:
    """Every record there is."""
    try:
        names = sorted(entry.name for entry in os.scandir(places.transcripts) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return
    for name in names:
        yield Record(name, places.transcript(name))


def time_of(line: bytes) -> str:
    """The time of an event; empty where it has none, or the line is no event."""
    try:
        return decode_header(line).ts
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def read_inputs(folder: Path) -> dict[str, Any]:
    """What the run was given; empty where that cannot be read."""
    try:
        inputs = msgspec.json.decode(read_regular(folder / INPUTS, 16 << 20))
    except (OSError, msgspec.DecodeError):
        return {}
    return inputs if isinstance(inputs, dict) else {}
