"""Appends to transcripts: whole lines, or nothing. What is recorded is then published, then acknowledged, in this order.

A part that has become long is sealed: ``events.jsonl.new`` is made, ``events.jsonl`` renamed to ``events.<first seq>.jsonl``,
and the new one renamed to ``events.jsonl``. Killed anywhere in between, the next supervisor finds every line, and goes on.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import msgspec

from sparrow_mp import events, transcript
from sparrow_mp.events import Event
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.paths import Places
from sparrow_mp.regular import open_regular
from sparrow_mp.run.stamp import timestamp
from sparrow_supervisor.syncer import Syncer, sync_path

_log = logging.getLogger(__name__)

_APPEND = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Record:
    """One run's open transcript. ``seq`` is the last event that is recorded, ``ts`` its time.

    ``first`` is the seq with which the growing part begins, ``size`` how many bytes it has.
    """

    def __init__(self, folder: Path, fd: int, seq: int, ts: str, first: int) -> None:
        self.folder = folder
        self.fd = fd
        self.seq = seq
        self.ts = ts
        self.first = first
        self.size = os.fstat(fd).st_size


class Recorder:
    """All transcripts of the runs that have not ended. ``part_bytes`` is how long a part may become; 0 is no limit."""

    def __init__(self, places: Places, fsync: str, part_bytes: int = 0) -> None:
        self.part_bytes = part_bytes
        self._places = places
        self._fsync = fsync
        self.bytes = 0
        """How much was recorded since the start."""
        self._records: dict[str, Record] = {}
        self._syncer = Syncer(places.state) if fsync == "batch" else None

    def open(self, run: str) -> Record:
        """The run's transcript, ready for its next event. A torn last line is cut off: it comes again from the outbox.

        Raises OSError.
        """
        record = self._records.get(run)
        if record is not None and record.fd >= 0:
            return record
        folder = self._places.transcript(run)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = open_regular(folder / transcript.EVENTS, _APPEND | os.O_CREAT)
        try:
            seq, ts, first = self._mend(folder, fd, run)
            self._records[run] = record = Record(folder, fd, seq, ts, first)
        except BaseException:  # whatever it is goes on up, once the descriptor is given back
            os.close(fd)
            raise
        (folder / transcript.NEXT).unlink(missing_ok=True)  # of a sealing that was cut short
        self.settle(folder, folder.parent)
        return record

    @staticmethod
    def _mend(folder: Path, fd: int, run: str) -> tuple[int, str, int]:
        """Cut off what is no event at the end; the last good seq, its time, and the first seq of the growing part."""
        seq, ts = _cut(fd, run)
        if seq:
            return seq, ts, _first(fd)
        for path in reversed(transcript.parts(folder)[:-1]):  # it was sealed, and nothing has come since
            sealed = open_regular(path, _APPEND)
            try:
                seq, ts = _cut(sealed, run)
            finally:
                os.close(sealed)
            if seq:
                return seq, ts, seq + 1
            path.unlink()  # a power cut took all that it held
        return 0, "", 1

    def append(self, run: str, lines: bytes, last: int, ts: str) -> bool:
        """Append whole lines, of which the last is event ``last`` at ``ts``. False where the disk is full: nothing is changed."""
        record = self.open(run)
        try:
            long = record.size and 0 < self.part_bytes < record.size + len(lines)
            if long or os.fstat(record.fd).st_nlink == 0:  # else somebody deleted what would be written to
                self._seal(record)
            written = os.write(record.fd, lines)
            if ARMED:
                reach("recorder.written")
            if written == len(lines) and self._fsync == "always":
                os.fdatasync(record.fd)
        except OSError as error:
            _log.error("run %s: its transcript cannot be written: %s", run, error.strerror)
            written = -1
        if written != len(lines):
            os.ftruncate(record.fd, record.size)
            return False
        record.size += written
        self.bytes += written
        record.seq, record.ts = last, ts
        if self._syncer is not None:
            self._syncer.soon(record.fd)
        return True

    def _seal(self, record: Record) -> None:
        """Begin a new part, also where somebody deleted what there was: that may not block the run.

        Raises OSError where the disk is full; the next try goes on where this one has come to.
        """
        new, growing = record.folder / transcript.NEXT, record.folder / transcript.EVENTS
        sealed = record.folder / transcript.sealed_name(record.first)
        missing = "" if record.folder.is_dir() else f"its transcript; its events up to {record.seq} are lost"
        record.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = open_regular(new, _APPEND | os.O_CREAT | os.O_TRUNC)
        try:
            if ARMED:
                reach("recorder.seal.made")
            try:
                growing.rename(sealed)
            except FileNotFoundError:  # an earlier try has renamed it, or somebody has deleted it
                if not sealed.exists() and record.size:
                    missing = missing or f"{growing.name}; its events from {record.first} on are lost"
            if ARMED:
                reach("recorder.seal.renamed")
            new.rename(growing)
        except OSError:
            os.close(fd)
            raise
        if missing:
            _log.error("run %s: somebody deleted %s", record.folder.name, missing)
        if ARMED:
            reach("recorder.seal.done")
        self._finish(record.fd)
        record.fd, record.size, record.first = fd, 0, record.seq + 1
        self.settle(record.folder)

    def add(self, run: str, event: Event) -> bytes | None:
        """Number and append an event of the supervisor's own; its line, or None where the disk is full."""
        record = self.open(run)
        event.run = run
        event.seq = record.seq + 1
        event.ts = max(record.ts, timestamp(time.time_ns() // 1000))
        line = events.encode(event) + b"\n"
        return line if self.append(run, line, event.seq, event.ts) else None

    def seq(self, run: str) -> int:
        """The last recorded event of a run that has not ended; 0 where there is none."""
        record = self._records.get(run)
        return record.seq if record else 0

    def settle(self, *paths: Path) -> None:
        """Have files and folders on the disk as the setting says: soon, now, or as the kernel likes. Raises OSError."""
        if self._syncer is not None:
            self._syncer.settle(*paths)
        elif self._fsync == "always":
            for path in paths:
                sync_path(path)

    def settle_soon(self, fd: int) -> None:
        """The same for what was written to a descriptor that stays open, where it is not to be done at once anyhow."""
        if self._syncer is not None:
            self._syncer.soon(fd)

    def close(self, run: str) -> None:
        """The run has ended: give its descriptor back."""
        record = self._records.pop(run, None)
        if record is not None and record.fd >= 0:
            self._finish(record.fd)

    def rest(self, run: str) -> None:
        """Nothing comes for a while (it is queued, maybe with thousands of others): hold no descriptor meanwhile."""
        record = self._records.get(run)
        if record is not None and record.fd >= 0:
            os.close(record.fd)
            record.fd = -1
            self.settle(record.folder / transcript.EVENTS)

    def _finish(self, fd: int) -> None:
        if self._syncer is not None:
            self._syncer.finish(fd)
        else:
            os.close(fd)

    def close_all(self) -> None:
        """The supervisor ends: everything is on the disk when this returns."""
        for run in list(self._records):
            self.close(run)
        if self._syncer is not None:
            self._syncer.stop()


def _first(fd: int) -> int:
    """The first seq of a part that holds an event. A damaged line before it does not keep the run from going on."""
    with open(fd, "rb", closefd=False) as file:
        for line in file:
            try:
                return max(1, events.decode_header(line).seq)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
    return 1


def _cut(fd: int, run: str) -> tuple[int, str]:
    """Cut off what is no whole event at the end (a torn line, the NULs of a power cut); the last good seq and time."""
    end = size = os.fstat(fd).st_size
    while end:
        start = transcript.line_start(fd, end - 1)
        line = os.pread(fd, end - start, start)
        try:
            header = events.decode_header(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            header = None
        if header is not None and header.seq > 0 and line.endswith(b"\n"):
            if size != end:
                _log.warning("run %s: its transcript had a torn end, which was cut off after event %d", run, header.seq)
                os.ftruncate(fd, end)
            return header.seq, header.ts
        end = start
    if size:
        _log.warning("run %s: a part of its transcript held no whole event, and was emptied", run)
        os.ftruncate(fd, 0)
    return 0, ""
