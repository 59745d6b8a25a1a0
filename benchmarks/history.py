"""A long history: runs that have ended, copied from a few that really ran, each with an id and a day of its own."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.daemon import Sparrow
from sparrow_mp.paths import Places

_DAY = re.compile(rb"20\d\d-\d\d-\d\d(?=T)")
_A_DAY = 2_000
"""How many runs a day had."""


def lengthen(bench: Sparrow, count: int, day: int = 1) -> int:
    """End the supervisor, if there is one, and add ``count`` ended runs to what it will find.

    They are ``day`` days old and older; gives the day after the oldest, for a further call. What a record and a row
    consist of is taken as it is found: the id and the dates are all that differs.
    """
    places = bench.client.places
    if not bench.client.is_running():
        bench.client.start()
    templates = [bench.client.submit(f"seq {lines}", engine="shell") for lines in (5, 20, 50)]
    for run in templates:
        run.wait(30)
    bench.client.shutdown(now=True)
    originals = [_Original(places, run.id) for run in templates]
    done = 0
    with closing(sqlite3.connect(places.index)) as index, index:
        while done < count:
            for original in itertools.islice(itertools.cycle(originals), min(_A_DAY, count - done)):
                original.copy(places, index, day)
                done += 1
            day += 1
    return day


class _Original:
    """A run that is copied: its files, and its row."""

    def __init__(self, places: Places, run: str) -> None:
        self._run = run.encode()
        folder = places.transcript(run)
        self._files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        with closing(sqlite3.connect(places.index)) as index:
            index.row_factory = sqlite3.Row
            self._row = dict(index.execute("SELECT * FROM runs WHERE run = ?", (run,)).fetchone())
        self._insert = f"INSERT INTO runs VALUES ({', '.join('?' * len(self._row))})"

    def copy(self, places: Places, index: sqlite3.Connection, days: int) -> None:
        """One more run, so many days older."""
        run = str(uuid.uuid4())
        date = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d").encode()

        def moved(data: bytes) -> bytes:
            return _DAY.sub(date, data.replace(self._run, run.encode()))

        folder = places.transcript(run)
        folder.mkdir(mode=0o700)
        for name, data in self._files.items():
            _write(folder / name, moved(data))
        index.execute(self._insert, [_moved(name, value, moved, days) for name, value in self._row.items()])


def _moved(name: str, value: object, moved: Callable[[bytes], bytes], days: int) -> object:
    """A value of the row: texts hold the id and dates, and two columns are seconds since 1970."""
    if isinstance(value, str):
        return moved(value.encode()).decode()
    if isinstance(value, float) and name in ("created_at", "started"):
        return value - days * 86_400
    return value


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
