"""The index: which runs there are and in what state, in SQLite. The transcripts are the truth; this is to find them by."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec

from sparrow_mp.errors import AmbiguousRun, NoSuchRun
from sparrow_mp.events import Tokens
from sparrow_mp.wire import RunRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, name TEXT, status TEXT NOT NULL, engine TEXT NOT NULL, agent TEXT NOT NULL, task TEXT NOT NULL,
    cwd TEXT NOT NULL, labels TEXT NOT NULL, terms TEXT NOT NULL, created TEXT NOT NULL, created_at REAL NOT NULL,
    started REAL, started_ts TEXT, ended TEXT, pid INTEGER, monitor_pid INTEGER, monitor TEXT, asked TEXT,
    exit_code INTEGER, signal INTEGER, reason TEXT, events INTEGER NOT NULL DEFAULT 0, cost_usd REAL NOT NULL DEFAULT 0,
    tokens TEXT NOT NULL DEFAULT '{"input":0,"output":0}', job TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_live ON runs (run) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS runs_created ON runs (created_at);
CREATE INDEX IF NOT EXISTS runs_name ON runs (name) WHERE name IS NOT NULL;
CREATE TABLE IF NOT EXISTS pending (id TEXT PRIMARY KEY, run TEXT NOT NULL, frame BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_run ON pending (run);
PRAGMA user_version = 1;
"""


class Index:
    """One connection, used by the supervisor alone. Every change is committed when the method returns."""

    def __init__(self, path: Path) -> None:
        """Open or make the index. Raises sqlite3.Error."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(fd)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Give the connection back."""
        self._db.close()

    def insert(self, **fields: Any) -> None:
        """A new run."""
        names = ", ".join(fields)
        marks = ", ".join("?" * len(fields))
        self._db.execute(f"INSERT INTO runs ({names}) VALUES ({marks})", tuple(fields.values()))

    def save(self, run: str, **fields: Any) -> None:
        """New values for a run."""
        names = ", ".join(f"{name} = ?" for name in fields)
        self._db.execute(f"UPDATE runs SET {names} WHERE run = ?", (*fields.values(), run))

    def delete(self, run: str) -> None:
        """Forget a run that has ended."""
        self._db.execute("DELETE FROM runs WHERE run = ? AND ended IS NOT NULL", (run,))

    def forget_all_but(self, recorded: Collection[str]) -> None:
        """Forget the ended runs whose records are gone: they were deleted while no supervisor was there."""
        ended = self._db.execute("SELECT run FROM runs WHERE ended IS NOT NULL").fetchall()
        gone = [(run,) for (run,) in ended if run not in recorded]
        self._db.executemany("DELETE FROM runs WHERE run = ?", gone)

    def live(self) -> list[sqlite3.Row]:
        """The rows of all runs that have not ended, oldest first."""
        return self._db.execute("SELECT * FROM runs WHERE ended IS NULL ORDER BY created_at, run").fetchall()

    def row(self, run: str) -> sqlite3.Row | None:
        """A run's row by its whole id."""
        row: sqlite3.Row | None = self._db.execute("SELECT * FROM runs WHERE run = ?", (run,)).fetchone()
        return row

    def resolve(self, ref: str) -> sqlite3.Row:
        """The run of an id, a name (a live one, else the newest) or an unambiguous prefix. Raises NoSuchRun, AmbiguousRun."""
        row = self.row(ref)
        if row is not None:
            return row
        named = self._db.execute(
            "SELECT * FROM runs WHERE name = ? ORDER BY ended IS NOT NULL, created_at DESC LIMIT 2", (ref,)
        ).fetchall()
        if len(named) == 2 and named[1]["ended"] is None:
            raise AmbiguousRun(f"two live runs have the name {ref}: {named[0]['run'][:8]} and {named[1]['run'][:8]}")
        if named:
            return _row(named[0])
        if ref and all(char in "0123456789abcdefABCDEF-" for char in ref):
            prefix = ref.lower()
            matches = self._db.execute(
                "SELECT * FROM runs WHERE run >= ? AND run < ? LIMIT 6", (prefix, prefix + "g")
            ).fetchall()
            if len(matches) == 1:
                return _row(matches[0])
            if matches:
                some = ", ".join(match["run"][: max(8, len(ref) + 2)] for match in matches[:5])
                raise AmbiguousRun(
                    f"{ref} fits more than one run ({some}{', …' if len(matches) > 5 else ''}); use more of it"
                )
        raise NoSuchRun(f"No active run with id {ref}")

    def rows(
        self, *, everything: bool, status: str | None, label: str | None, limit: int | None
    ) -> Iterator[sqlite3.Row]:
        """Rows in the order of their creation, the newest ``limit`` of them."""
        where, values = ["1"], []
        if not everything and status is None:
            where.append("ended IS NULL")
        if status is not None:
            where.append("status = ?")
            values.append(status)
        if label is not None:
            where.append("EXISTS (SELECT 1 FROM json_each(labels) WHERE value = ?)")
            values.append(label)
        query = f"SELECT * FROM runs WHERE {' AND '.join(where)} ORDER BY created_at DESC, run LIMIT ?"
        found: list[sqlite3.Row] = self._db.execute(query, (*values, -1 if limit is None else limit)).fetchall()
        return reversed(found)

    def counts(self) -> dict[str, int]:
        """How many runs there are of each status."""
        return dict(self._db.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall())

    # ── injections and approvals that the run has not confirmed ──

    def add_pending(self, request: str, run: str, frame: bytes) -> None:
        """Keep what is on its way to a run."""
        self._db.execute("INSERT INTO pending VALUES (?, ?, ?)", (request, run, frame))

    def drop_pending(self, request: str) -> None:
        """The run has it."""
        self._db.execute("DELETE FROM pending WHERE id = ?", (request,))

    def drop_pending_of(self, run: str) -> None:
        """The run has ended."""
        self._db.execute("DELETE FROM pending WHERE run = ?", (run,))

    def pending(self, run: str) -> list[tuple[str, bytes]]:
        """What a run has still to confirm, oldest first."""
        return self._db.execute("SELECT id, frame FROM pending WHERE run = ? ORDER BY id", (run,)).fetchall()


def _row(value: Any) -> sqlite3.Row:
    row: sqlite3.Row = value
    return row


def record_of(row: sqlite3.Row) -> RunRecord:
    """A row as the contract's record, less what only a live run has."""
    return RunRecord(
        run=row["run"],
        name=row["name"],
        status=row["status"],
        engine=row["engine"],
        agent=row["agent"],
        task=row["task"],
        cwd=row["cwd"],
        labels=msgspec.json.decode(row["labels"], type=list[str]),
        pid=row["pid"] if row["ended"] is None else None,
        created=row["created"],
        started=row["started_ts"],
        ended=row["ended"],
        exit_code=row["exit_code"],
        signal=row["signal"],
        reason=row["reason"],
        events=row["events"],
        cost_usd=row["cost_usd"],
        tokens=msgspec.json.decode(row["tokens"], type=Tokens),
        job=row["job"],
    )
