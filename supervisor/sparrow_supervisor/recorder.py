"""Appends to transcripts: whole lines, or nothing. What is recorded is then published, then acknowledged, in this order."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

import msgspec

from sparrow_mp import events, transcript
from sparrow_mp.events import Event
from sparrow_mp.paths import Places
from sparrow_mp.run.outbox import timestamp

_log = logging.getLogger(__name__)

_SYNC_EVERY_S = 0.05


class Record:
    """One run's open transcript. ``seq`` is the last event that is recorded, ``ts`` its time."""

    def __init__(self, fd: int, seq: int, ts: str) -> None:
        self.fd = fd
        self.seq = seq
        self.ts = ts


class Recorder:
    """All transcripts of the runs that have not ended."""

    def __init__(self, places: Places, fsync: str) -> None:
        self._places = places
        self._fsync = fsync
        self._records: dict[str, Record] = {}
        self._syncer = _Syncer() if fsync == "batch" else None

    def open(self, run: str) -> Record:
        """The run's transcript, ready for its next event. A torn last line is cut off: it comes again from the outbox.

        Raises OSError.
        """
        record = self._records.get(run)
        if record is not None:
            return record
        folder = self._places.transcript(run)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / transcript.EVENTS, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        seq, ts = self._mend(fd, run)
        self._records[run] = record = Record(fd, seq, ts)
        return record

    @staticmethod
    def _mend(fd: int, run: str) -> tuple[int, str]:
        """Cut off what is no whole event at the end (a torn line, the NULs of a power cut); the last good seq and time."""
        end = os.fstat(fd).st_size
        while end:
            start = transcript.line_start(fd, end - 1)
            line = os.pread(fd, end - start, start)
            try:
                header = events.decode_header(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                header = None
            if header is not None and header.seq > 0 and line.endswith(b"\n"):
                if os.fstat(fd).st_size != end:
                    _log.warning(
                        "run %s: its transcript had a torn end, which was cut off after event %d", run, header.seq
                    )
                    os.ftruncate(fd, end)
                return header.seq, header.ts
            end = start
        os.ftruncate(fd, 0)
        return 0, ""

    def append(self, run: str, lines: bytes, last: int, ts: str) -> bool:
        """Append whole lines, of which the last is event ``last`` at ``ts``. False where the disk is full: nothing is changed."""
        record = self.open(run)
        try:
            written = os.write(record.fd, lines)
        except OSError as error:
            _log.error("run %s: its transcript cannot be written: %s", run, error.strerror)
            written = -1
        if written != len(lines):
            if written > 0:
                os.ftruncate(record.fd, os.fstat(record.fd).st_size - written)
            return False
        record.seq, record.ts = last, ts
        if self._fsync == "always":
            os.fdatasync(record.fd)
        elif self._syncer is not None:
            self._syncer.soon(record.fd)
        return True

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

    def close(self, run: str) -> None:
        """The run has ended: give its descriptor back."""
        record = self._records.pop(run, None)
        if record is not None:
            if self._fsync != "never":
                (self._syncer.finish if self._syncer is not None else _close)(record.fd)
            else:
                os.close(record.fd)

    def close_all(self) -> None:
        """The supervisor ends: everything is on the disk when this returns."""
        for run in list(self._records):
            self.close(run)
        if self._syncer is not None:
            self._syncer.stop()


def _close(fd: int) -> None:
    os.close(fd)


class _Syncer(threading.Thread):
    """Forces what was appended to the disk every 50 ms. It decides nothing, and the loop never waits for it."""

    def __init__(self) -> None:
        super().__init__(name="syncer", daemon=True)
        self._lock = threading.Lock()
        self._dirty: set[int] = set()
        self._closing: set[int] = set()
        self._ending = threading.Event()
        self._work = threading.Event()
        self.start()

    def soon(self, fd: int) -> None:
        """Have a descriptor synced."""
        if fd not in self._dirty:
            with self._lock:
                self._dirty.add(fd)
            self._work.set()

    def finish(self, fd: int) -> None:
        """Have a descriptor synced and closed."""
        with self._lock:
            self._closing.add(fd)
        self._work.set()

    def stop(self) -> None:
        """Sync what is left, and end."""
        self._ending.set()
        self._work.set()
        self.join()

    def run(self) -> None:
        while True:
            self._work.wait()
            self._ending.wait(_SYNC_EVERY_S)
            self._work.clear()
            with self._lock:
                dirty, self._dirty = self._dirty, set()
                closing, self._closing = self._closing, set()
            for fd in dirty | closing:
                self._quietly(os.fdatasync, fd)
            for fd in closing:
                self._quietly(os.close, fd)
            if self._ending.is_set() and not self._dirty and not self._closing:
                return

    @staticmethod
    def _quietly(action: Callable[[int], None], fd: int) -> None:
        try:
            action(fd)
        except OSError as error:
            _log.error("a transcript cannot be forced to the disk: %s", error.strerror)
