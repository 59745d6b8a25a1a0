"""The index: which runs there are and in what state, in SQLite. The transcripts are the truth; this is to find them by."""

from __future__ import annotations

import itertools
import math
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sparrow_mp.errors import AmbiguousRun, NoSuchRun
from sparrow_mp.events import Tokens
from sparrow_mp.regular import open_regular
from sparrow_mp.wire import RunRecord

_PAGE = 100
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, name TEXT, status TEXT NOT NULL, engine TEXT NOT NULL, agent TEXT NOT NULL, task TEXT NOT NULL,
    cwd TEXT NOT NULL, labels TEXT NOT NULL, terms TEXT NOT NULL, created TEXT NOT NULL, created_at REAL NOT NULL,
    started REAL, started_ts TEXT, ended TEXT, pid INTEGER, monitor_pid INTEGER, monitor TEXT, asked TEXT,
    exit_code INTEGER, signal INTEGER, reason TEXT, events INTEGER NOT NULL DEFAULT 0, cost_usd REAL NOT NULL DEFAULT 0,
    tokens TEXT NOT NULL DEFAULT '{"input":0,"output":0}', job TEXT
) WITHOUT ROWID;
DROP INDEX IF EXISTS runs_live;
CREATE INDEX IF NOT EXISTS runs_alive ON runs (created_at, run) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS runs_created ON runs (created_at);
CREATE INDEX IF NOT EXISTS runs_status ON runs (status);
CREATE INDEX IF NOT EXISTS runs_ended ON runs (ended, run) WHERE ended > '';
CREATE INDEX IF NOT EXISTS runs_name ON runs (name) WHERE name IS NOT NULL;
CREATE TABLE IF NOT EXISTS pending (id TEXT PRIMARY KEY, run TEXT NOT NULL, frame BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_run ON pending (run);
CREATE TABLE IF NOT EXISTS sums (run TEXT PRIMARY KEY, seq INTEGER NOT NULL, totals BLOB NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS sums_ended AFTER UPDATE OF ended ON runs WHEN NEW.ended IS NOT NULL BEGIN
    DELETE FROM sums WHERE run = NEW.run;
END;
CREATE TABLE IF NOT EXISTS past (
    status TEXT PRIMARY KEY, runs INTEGER NOT NULL, events INTEGER NOT NULL, cost_usd REAL NOT NULL,
    input INTEGER NOT NULL, output INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO past
    SELECT status, count(*), sum(events), sum(cost_usd),
        CAST(total(json_extract(tokens, '$.input')) AS INTEGER), CAST(total(json_extract(tokens, '$.output')) AS INTEGER)
    FROM (SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM past)) CROSS JOIN runs WHERE ended > '' GROUP BY status;
CREATE TRIGGER IF NOT EXISTS past_ended AFTER UPDATE OF ended ON runs WHEN OLD.ended IS NULL AND NEW.ended > '' BEGIN
    {add}
END;
CREATE TRIGGER IF NOT EXISTS past_found AFTER INSERT ON runs WHEN NEW.ended > '' BEGIN
    {add}
END;
PRAGMA user_version = 1;
""".replace(
    "{add}",
    """
    INSERT INTO past VALUES (
        NEW.status, 1, NEW.events, NEW.cost_usd,
        coalesce(json_extract(NEW.tokens, '$.input'), 0), coalesce(json_extract(NEW.tokens, '$.output'), 0)
    ) ON CONFLICT (status) DO UPDATE SET runs = runs + 1, events = events + excluded.events,
        cost_usd = cost_usd + excluded.cost_usd, input = input + excluded.input, output = output + excluded.output;""",
)
"""``past`` is what all runs add up to that ever ended, those included whose records were deleted since."""


class Past(NamedTuple):
    """What ended runs add up to."""

    runs: int = 0
    events: int = 0
    cost_usd: float = 0.0
    input: int = 0
    output: int = 0


class Index:
    """One connection, used by the supervisor alone. Every change is committed when the method returns."""

    def __init__(self, path: Path, settle: Callable[[Path], None] = lambda _: None) -> None:
        """Open or make the index. ``settle`` has a file on the disk as the setting says. Raises sqlite3.Error, OSError."""
        self._settle = partial(settle, path.with_name(path.name + "-wal"))
        os.close(open_regular(path, os.O_RDWR | os.O_CREAT))
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")  # syncs at checkpoints only; what is between them we settle
            self._db.executescript(_SCHEMA)
        except sqlite3.Error:
            self._db.close()
            raise
        self._settle()

    def fault(self) -> str:
        """What is wrong with the file; empty where nothing is."""
        found = str(self._db.execute("PRAGMA quick_check(1)").fetchone()[0])
        return "" if found == "ok" else found

    def runs(self) -> set[str]:
        """The ids of all runs there are."""
        return {str(run) for run in self._column("SELECT run FROM runs")}

    def _column(self, query: str) -> list[Any]:
        """One column, as it is: a hundred thousand Rows take their time."""
        cursor = self._db.cursor()
        cursor.row_factory = None
        return list(itertools.chain.from_iterable(cursor.execute(query)))

    def close(self) -> None:
        """Give the connection back."""
        self._db.close()

    def _change(self, statement: str, *values: Any) -> None:
        self._db.execute(statement, values)
        self._settle()

    def insert(self, **fields: Any) -> None:
        """A new run."""
        names = ", ".join(fields)
        marks = ", ".join("?" * len(fields))
        self._change(f"INSERT INTO runs ({names}) VALUES ({marks})", *fields.values())

    def save(self, run: str, **fields: Any) -> None:
        """New values for a run."""
        names = ", ".join(f"{name} = ?" for name in fields)
        self._change(f"UPDATE runs SET {names} WHERE run = ?", *fields.values(), run)

    def delete(self, run: str) -> None:
        """Forget a run that has ended."""
        self._change("DELETE FROM runs WHERE run = ? AND ended IS NOT NULL", run)

    def forget_all_but(self, recorded: Collection[str]) -> None:
        """Forget the ended runs whose records are gone: they were deleted while no supervisor was there."""
        gone = [(run,) for run in self.runs().difference(recorded)]
        self._db.executemany("DELETE FROM runs WHERE run = ? AND ended IS NOT NULL", gone)
        self._change("DELETE FROM pending WHERE run NOT IN (SELECT run FROM runs WHERE ended IS NULL)")

    def ended(self, before: tuple[str, str] | None = None) -> list[tuple[str, str]]:
        """When runs have ended, and which: the newest, at most a page of them, or those before one of an earlier page."""
        return self._db.execute(
            "SELECT ended, run FROM runs WHERE ended > '' AND (ended, run) < (?, ?) ORDER BY ended DESC, run DESC"
            f" LIMIT {_PAGE}",
            before or ("~", ""),
        ).fetchall()

    def live(self) -> list[sqlite3.Row]:
        """The rows of all runs that have not ended, oldest first."""
        return self._db.execute(
            "SELECT * FROM runs INDEXED BY runs_alive WHERE ended IS NULL ORDER BY created_at, run"
        ).fetchall()

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
        pages = self.pages(everything=everything, status=status, label=label, limit=limit)
        return reversed([row for page in pages for row in page])

    def pages(
        self, *, everything: bool, status: str | None, label: str | None, limit: int | None, before: str | None = None
    ) -> Iterator[list[sqlite3.Row]]:
        """The same newest first and in pages, each of which takes a bounded time to find; a page may be empty.

        With ``before``, a run's id, only what was created before that one. Raises NoSuchRun where it is none.
        """
        return self._pages(everything, status, label, limit, (math.inf, "") if before is None else self._place(before))

    def _place(self, run: str) -> tuple[float, str]:
        """Where the run is in the order of creation."""
        row = self.row(run)
        if row is None:
            raise NoSuchRun(f"No active run with id {run}")
        return row["created_at"], run

    def _pages(
        self, everything: bool, status: str | None, label: str | None, left: int | None, before: tuple[float, str]
    ) -> Iterator[list[sqlite3.Row]]:
        which = "INDEXED BY runs_alive WHERE ended IS NULL" if not everything and status is None else "WHERE 1"
        query = f"SELECT * FROM runs {which} AND (created_at, run) < (?, ?) ORDER BY created_at DESC, run DESC"
        while left is None or left > 0:
            found: list[sqlite3.Row] = self._db.execute(f"{query} LIMIT {_PAGE}", before).fetchall()
            page = [row for row in found if _fits(row, status, label)][:left]
            if left is not None:
                left -= len(page)
            yield page
            if len(found) < _PAGE:
                return
            before = (found[-1]["created_at"], found[-1]["run"])

    def counts(self) -> dict[str, int]:
        """How many runs there are of each status."""
        return dict(self._db.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall())

    def past(self) -> dict[str, Past]:
        """What all runs that ever ended add up to, by how they ended."""
        return {status: Past(*sums) for status, *sums in self._db.execute("SELECT * FROM past")}

    # ── what a live run's events add up to ──

    def keep_sums(self, run: str, seq: int, totals: bytes) -> None:
        """Keep what the events of a live run up to ``seq`` add up to, so that they need not all be read again."""
        self._change("INSERT OR REPLACE INTO sums VALUES (?, ?, ?)", run, seq, totals)

    def sums(self, run: str) -> tuple[int, bytes] | None:
        """What was kept last, and up to which event it goes."""
        found = self._db.execute("SELECT seq, totals FROM sums WHERE run = ?", (run,)).fetchone()
        return None if found is None else (found["seq"], found["totals"])

    def forget_sums(self) -> None:
        """They may be wrong: they are added up anew."""
        self._change("DELETE FROM sums")

    # ── injections and approvals that the run has not confirmed ──

    def add_pending(self, request: str, run: str, frame: bytes) -> None:
        """Keep what is on its way to a run."""
        self._change("INSERT OR IGNORE INTO pending VALUES (?, ?, ?)", request, run, frame)

    def drop_pending(self, request: str) -> None:
        """The run has it."""
        self._change("DELETE FROM pending WHERE id = ?", request)

    def drop_pending_of(self, run: str) -> None:
        """The run has ended."""
        self._change("DELETE FROM pending WHERE run = ?", run)

    def pending(self, run: str) -> list[tuple[str, bytes]]:
        """What a run has still to confirm, oldest first."""
        return self._db.execute("SELECT id, frame FROM pending WHERE run = ? ORDER BY id", (run,)).fetchall()


def _fits(row: sqlite3.Row, status: str | None, label: str | None) -> bool:
    if status is not None and row["status"] != status:
        return False
    return label is None or label in msgspec.json.decode(row["labels"], type=list[str])


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
