"""`sparrow doctor` looks at the transcripts and the index through this: ``python -m sparrow_supervisor.repair [--repair]``.

It says what it finds as JSON lines: ``{"check", "state": "ok" | "note" | "fail", "message", "remedy"}``. To mend anything it
holds the supervisor's lock; where one is running it only looks, and leaves out what that one is writing.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import msgspec

from sparrow_mp.errors import StateError
from sparrow_mp.paths import Places, check_files, find_places
from sparrow_mp.regular import open_regular
from sparrow_supervisor.mending import examine, mend
from sparrow_supervisor.rebuild import add_missing, open_index

_REMEDY = "sparrow doctor --repair"
_STOP_FIRST = "end the supervisor first, the runs go on: sparrow shutdown --keep-runs && sparrow doctor --repair"


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    state: str
    message: str
    remedy: str = ""


def main() -> int:
    """Check, and mend where that is asked for; 1 where something is left to be mended."""
    parser = argparse.ArgumentParser(prog="sparrow doctor")
    parser.add_argument("--repair", action="store_true")
    asked = parser.parse_args()
    os.umask(0o077)
    logging.basicConfig(level=logging.CRITICAL)
    code = 0
    for finding in findings(find_places(os.environ), repair=asked.repair):
        code = code or int(finding.state == "fail")
        sys.stdout.buffer.write(msgspec.json.encode(asdict(finding)) + b"\n")
        sys.stdout.buffer.flush()
    return code


def findings(places: Places, *, repair: bool) -> Iterator[Finding]:
    """All that is wrong with what is recorded; what could be mended is, where ``repair`` is asked for and possible."""
    if not places.transcripts.is_dir():
        yield Finding("transcripts", "ok", "there are none yet")
        return
    try:
        check_files(places.lock, places.index)
        lock = _lock(places)
    except (StateError, OSError) as error:
        yield Finding("files", "fail", str(error), f"see {places.state}")
        return
    try:
        if repair and lock < 0:
            yield Finding("repair", "fail", "a supervisor is running, and what it writes is not touched", _STOP_FIRST)
        mending = repair and lock >= 0
        yield from _transcripts(places, mending=mending, busy=lock < 0)
        yield from _index(places, mending=mending, busy=lock < 0)
    finally:
        if lock >= 0:
            os.close(lock)


def _lock(places: Places) -> int:
    """The supervisor's lock, so that none starts meanwhile; negative where one is running."""
    fd = open_regular(places.lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    return fd


def _transcripts(places: Places, *, mending: bool, busy: bool) -> Iterator[Finding]:
    count = faulty = 0
    for run in sorted(os.listdir(places.transcripts)):
        folder = places.transcript(run)
        if not folder.is_dir() or (busy and places.run_folder(run).exists()):
            continue  # a live run's transcript is being written; its supervisor has mended it already
        count += 1
        try:
            found = examine(folder)
            kept = mend(folder, found) if mending and found.faults else []
        except OSError as error:
            faulty += 1
            yield Finding(f"run {run[:8]}", "fail", f"cannot be read or mended: {error}", f"see {folder}")
            continue
        if found.faults:
            faulty += 1
            words = "; ".join(found.faults)
            if mending:
                names = f" (kept: {', '.join(kept)})" if kept else ""
                yield Finding(f"run {run[:8]}", "ok", f"mended: {words}{names}")
            else:
                yield Finding(f"run {run[:8]}", "fail", words, _STOP_FIRST if busy else _REMEDY)
        if found.losses:
            yield Finding(f"run {run[:8]}", "note", f"{', '.join(found.losses)}; nothing has them any more")
    if not faulty:
        yield Finding("transcripts", "ok", f"{count} read, all whole")


def _index(places: Places, *, mending: bool, busy: bool) -> Iterator[Finding]:
    remedy = _STOP_FIRST if busy else _REMEDY
    try:
        if mending:
            yield from _mend_index(places)
            return
        if not places.index.exists():
            yield Finding("index", "fail", "there is none, though there are transcripts", remedy)
            return
        os.close(open_regular(places.index))
        db = sqlite3.connect(f"{places.index.as_uri()}?mode=ro", uri=True)
        try:
            fault = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            rows = dict(db.execute("SELECT run, ended IS NOT NULL FROM runs"))
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        yield Finding("index", "fail", f"it cannot be read: {error}", remedy)
        return
    if fault != "ok":
        yield Finding("index", "fail", f"it is damaged: {fault}", remedy)
        return
    recorded = set(os.listdir(places.transcripts))
    bare = sum(1 for run, ended in rows.items() if ended and run not in recorded)
    unknown = sum(1 for run in recorded - rows.keys() if (places.transcript(run) / "meta.json").exists())
    if bare:
        yield Finding("index", "fail", f"runs without a transcript: {bare}", remedy)
    if unknown:
        yield Finding("index", "fail", f"runs that are recorded and not in it: {unknown}", remedy)
    if not bare and not unknown:
        yield Finding("index", "ok", f"{len(rows)} runs, each with its transcript")


def _mend_index(places: Places) -> Iterator[Finding]:
    before = len(list(places.state.glob("index.db.damaged.*")))
    missing = not places.index.exists()
    index = open_index(places)
    try:
        rows = index.runs()
        index.forget_all_but(set(os.listdir(places.transcripts)))
        index.forget_sums()
        bare = len(rows) - len(index.runs())
        add_missing(places, index, lost=False)
        words = f"{len(index.runs())} runs, each with its transcript"
    finally:
        index.close()
    if missing or len(list(places.state.glob("index.db.damaged.*"))) > before:
        words += "; it was made anew from the transcripts" + ("" if missing else ", and the damaged one kept")
    if bare:
        words += f"; runs without a transcript that were taken out: {bare}"
    yield Finding("index", "ok", words)


if __name__ == "__main__":
    sys.exit(main())
