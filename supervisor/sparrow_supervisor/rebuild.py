"""The index made anew from the transcripts, which are the truth: where it is missing, damaged, or does not know a run."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from sparrow_mp import transcript, wire
from sparrow_mp.events import AnyEvent, EventError, Header, RunFinished, RunStarted, decode, decode_header
from sparrow_mp.paths import Places
from sparrow_mp.regular import open_regular, read_regular
from sparrow_mp.run.stamp import timestamp
from sparrow_supervisor.core.inputs import Terms
from sparrow_supervisor.index import Index

_log = logging.getLogger(__name__)

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOOKED_AT_FOR_THE_START = 20
_MOST = 16 << 20
"""Bytes of a file that says what a run is to do: four times the longest request."""


def open_index(
    places: Places, settle: Callable[[Path], None] = lambda _: None, goes_on: Callable[[], None] = lambda: None
) -> Index:
    """The index, sound, with a row for every run that has a transcript. A damaged one is set aside, and told in the log.

    ``goes_on`` is called again and again while that takes its time.
    Nobody else may have it open. Raises sqlite3.Error, OSError.
    """
    lost = not places.index.exists()
    fault = "" if lost else _fault(places.index)
    if fault:
        lost = True
        _log.error("the index is damaged (%s); it is kept as %s and made anew", fault, _set_aside(places.index))
    index = Index(places.index, settle)
    try:
        added = add_missing(places, index, lost=lost, goes_on=goes_on)
    except BaseException:  # whatever it is goes on up, once nothing is left open
        index.close()
        raise
    if added:
        _log.warning("%d runs were not in the index; they were taken from their transcripts", added)
    return index


def _fault(path: Path) -> str:
    """What is wrong with the file of an index; empty where nothing is. Raises sqlite3.Error where that cannot be known."""
    try:
        index = Index(path)
        try:
            return index.fault()
        finally:
            index.close()
    except sqlite3.DatabaseError as error:
        if (error.sqlite_errorcode & 0xFF) in _CORRUPT:
            return str(error)
        raise


def add_missing(places: Places, index: Index, *, lost: bool, goes_on: Callable[[], None] = lambda: None) -> int:
    """Add the recorded runs that the index does not know; how many they were.

    One without a single event was never accepted, unless the index itself was ``lost``, which alone knew. One without an end
    is alive as far as the index goes: who adopts it finds out.
    """
    known = index.runs()
    added = 0
    for run in os.listdir(places.transcripts) if places.transcripts.is_dir() else ():
        goes_on()
        row = None if run in known else row_of(places, run, lost=lost)
        if row is not None:
            index.insert(**row)
            added += 1
    return added


def row_of(places: Places, run: str, *, lost: bool) -> dict[str, Any] | None:
    """A run's row as its files tell it; None where they are none of an accepted run of ours.

    Whatever is damaged of it, it has a row: a live one is else nobody's, and an ended one is not found.
    """
    folder = places.transcript(run)
    live = _accepted(places, run)
    try:
        last = _last_event(folder)
        inputs = _inputs(folder)
        started = _started(folder)
    except OSError as error:
        _log.error("run %s: it is recorded, but not to be read (%s): sparrow doctor --repair", run, error)
        return None
    if inputs is None and ((lost and live) or (last is not None and last.run == run and last.seq > 0)):
        _log.error("run %s: its inputs.json is not to be read; it is listed without its task", run)
        inputs = _Inputs(run=run)
    if inputs is None or inputs.run != run or (last is None and not (lost and live)):
        return None
    created = inputs.timestamp or started or _earliest(folder)
    created_at = datetime.fromisoformat(created).timestamp()
    began = datetime.fromisoformat(started).timestamp() if started else None
    row: dict[str, Any] = {
        "run": run,
        "name": inputs.name,
        "status": "queued" if (places.run_folder(run) / "spec.json").exists() else "running",
        "engine": inputs.engine,
        "agent": inputs.agent,
        "task": inputs.task,
        "cwd": inputs.cwd,
        "labels": wire.encode(inputs.labels).decode(),
        "terms": wire.encode(inputs.terms()).decode(),
        "created": created,
        "created_at": created_at,
        "started": began,
        "started_ts": started,
        "job": inputs.job,
    }
    if isinstance(last, RunFinished):
        outcome = last.outcome
        row |= {
            "status": outcome.status,
            "ended": last.ts,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "reason": outcome.reason,
            "events": last.seq,
            "cost_usd": outcome.cost_usd,
            "tokens": wire.encode(outcome.tokens).decode(),
        }
    return row


class _Inputs(msgspec.Struct):
    """What inputs.json says of a run, as far as the index wants it."""

    run: str
    task: str = ""
    engine: str = ""
    agent: str = ""
    cwd: str = ""
    timestamp: str = ""
    name: str | None = None
    labels: list[str] = []
    budget: float | None = None
    timeout: float | None = None
    priority: int = 0
    config_snapshot: dict[str, Any] = {}
    job: str | None = None

    def terms(self) -> Terms:
        """With what it was submitted."""
        run = self.config_snapshot.get("run")
        grace = run.get("grace") if isinstance(run, dict) else None
        grace = float(grace) if isinstance(grace, int | float) else Terms().grace
        return Terms(grace=grace, timeout=self.timeout, budget=self.budget, priority=self.priority)


def _inputs(folder: Path) -> _Inputs | None:
    """What inputs.json says; None where it cannot be read."""
    try:
        inputs = msgspec.json.decode(read_regular(folder / transcript.INPUTS, _MOST), type=_Inputs)
        datetime.fromisoformat(inputs.timestamp)
    except (OSError, ValueError, msgspec.DecodeError, RecursionError):
        return None
    return inputs


def _last_event(folder: Path) -> AnyEvent | None:
    """The last one that can be read; None where there is none. Raises OSError."""
    for path in reversed(transcript.parts(folder)):
        try:
            fd = open_regular(path)
        except FileNotFoundError:
            continue
        try:
            end = os.fstat(fd).st_size
            while end:
                start = transcript.line_start(fd, end - 1)
                try:
                    return decode(os.pread(fd, end - start, start))
                except EventError:
                    end = start
        finally:
            os.close(fd)
    return None


def _first_headers(folder: Path) -> Iterator[Header]:
    """Of the first events, those that can be read. Raises OSError."""
    for path in transcript.parts(folder):
        if not path.exists():
            continue
        with open(open_regular(path), "rb") as file:
            for line in itertools.islice(file, _LOOKED_AT_FOR_THE_START):
                try:
                    yield decode_header(line)
                except msgspec.DecodeError:
                    continue  # it is damaged, which doctor says
        return


def _started(folder: Path) -> str | None:
    """When the run started: RunStarted is among its first events. Raises OSError."""
    return next((header.ts for header in _first_headers(folder) if header.type == RunStarted.__name__), None)


def _earliest(folder: Path) -> str:
    """The first time that can be read, or this moment."""
    return next((header.ts for header in _first_headers(folder) if header.ts), timestamp(time.time_ns() // 1000))


def _accepted(places: Places, run: str) -> bool:
    """Whether everything is there that a run without events needs: its specification, or a monitor that has read it."""
    folder = places.run_folder(run)
    try:
        msgspec.json.decode(read_regular(folder / "spec.json", _MOST), type=wire.RunSpec)
    except FileNotFoundError:
        return (folder / "alive").exists()
    except (OSError, msgspec.DecodeError):
        return False
    return True


def _set_aside(path: Path) -> Path:
    """Keep a damaged index, and what SQLite has beside it, under another name."""
    names = (path.with_name(f"{path.name}.damaged.{number}") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    for suffix in ("-wal", "-shm", ""):
        try:
            path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
        except FileNotFoundError:
            continue
    return kept
