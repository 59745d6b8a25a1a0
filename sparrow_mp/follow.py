"""Following records: what is delivered is always read from the files; the sockets only say when to look again.

So a stream has no hole and no repeat whatever messages were lost, and outlives the supervisor. The classes here never
wait: the clients wait, each in its own way, and then ask again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sparrow_mp.errors import AmbiguousRun, BadRequest, Gone, NoSuchRun
from sparrow_mp.events import decode_header
from sparrow_mp.paths import Places
from sparrow_mp.regular import open_regular, read_regular
from sparrow_mp.transcript import (
    EVENTS,
    INPUTS,
    META,
    TranscriptReader,
    bisect_lines,
    first_header_seq,
    first_seq,
    last_event,
    parts,
)

Since = Mapping[str, int] | datetime | str | None

SOON = 0.002
"""The first pause of a reader that has not been woken yet, in seconds: its subscription may still be on its way."""

IDLE = 1.0
"""The longest pause, in seconds: after it the record is looked at whether or not something was heard."""

_ID_LENGTH = 36
_MOST_INPUTS = 16 << 20  # four times the longest request
_OPEN_READERS = 64
_CLOCK_SLACK = 60.0  # an event's time may be ahead of its file's where the clock was set back
_ROUND_LINES = 5000


# ── Finding a run without a supervisor ───────────────────────────────────────────────────────────────────────────────


def find_run(places: Places, ref: str) -> str:
    """The id of the recorded run that an id, an unambiguous prefix or a name means.

    Of several runs of one name it is the live one, else the newest. Raises NoSuchRun or AmbiguousRun.
    """
    if not ref or "/" in ref:
        raise NoSuchRun(f"No active run with id {ref}, and no record of one")
    if len(ref) == _ID_LENGTH and places.transcript(ref).is_dir():
        return ref
    named = _named(places, ref)
    if named:
        return max(named, key=lambda run: _standing(places.transcript(run)))
    fits = [run for run in _recorded(places) if run.startswith(ref.lower())]
    if len(fits) == 1:
        return fits[0]
    if fits:
        shown = ", ".join(sorted(fits)[:5]) + (", …" if len(fits) > 5 else "")
        raise AmbiguousRun(f"{ref} fits {len(fits)} runs: {shown}; give more of the id")
    raise NoSuchRun(f"No active run with id {ref}, and no record of one")


def ended(folder: Path) -> bool:
    """Whether the record is complete."""
    return (folder / META).exists()


def _recorded(places: Places) -> list[str]:
    try:
        return [name for name in os.listdir(places.transcripts) if len(name) == _ID_LENGTH]
    except FileNotFoundError:
        return []


def _named(places: Places, name: str) -> list[str]:
    """The recorded runs of a name: asked of the index, which is quick, or of every record where there is no index."""
    import sqlite3  # here, since most commands need none

    try:
        os.close(open_regular(places.index))
        index = sqlite3.connect(f"{places.index.as_uri()}?mode=ro", uri=True)
        try:
            found = index.execute("SELECT run FROM runs WHERE name = ?", (name,)).fetchall()
        finally:
            index.close()
    except (sqlite3.Error, OSError):
        return [run for run in _recorded(places) if _has_name(places.transcript(run), name)]
    return [run for (run,) in found if places.transcript(run).is_dir()]


class _Inputs(msgspec.Struct):
    name: str | None = None


def _has_name(folder: Path, name: str) -> bool:
    try:
        inputs = read_regular(folder / INPUTS, _MOST_INPUTS)
    except OSError:
        return False
    if b'"name"' not in inputs:
        return False
    try:
        return msgspec.json.decode(inputs, type=_Inputs).name == name
    except msgspec.DecodeError:
        return False


def _standing(folder: Path) -> tuple[bool, int]:
    """Sorts live runs over ended ones, then newer over older."""
    try:
        return not ended(folder), (folder / INPUTS).stat().st_mtime_ns
    except OSError:
        return False, 0


# ── One run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class RunFollow:
    """One run's record, from after ``since`` to its end. ``done`` once all of it was given."""

    def __init__(self, places: Places, run: str, since: int = 0) -> None:
        """Raises Gone where the record, or the part that was asked for, has been pruned."""
        self.run = run
        self.done = False
        self._folder = places.transcript(run)
        if not self._folder.is_dir():
            raise self._gone()
        first = first_seq(self._folder)
        if since + 1 < first:
            raise Gone(f"gone: the record of run {run} begins with seq {first} now; what was before has been pruned")
        self._reader = TranscriptReader(self._folder, since=since)
        self._pause = SOON
        self._woken = False

    @property
    def seq(self) -> int:
        """The last seq that was given."""
        return self._reader.seq

    def take(self) -> list[bytes]:
        """The next lines; none where there are none yet. Raises Gone where the record is pruned meanwhile."""
        lines = self._reader.read()
        if lines:
            if not self._woken:
                self._pause = SOON
            self.done = _is_end(lines[-1])
        elif self._pause >= IDLE and not self._woken:
            self._look_around()
        return lines

    def pause(self) -> float:
        """How long to wait for a wake-up before the next look, in seconds. Ask after take() gave nothing."""
        pause, self._pause = self._pause, min(2 * self._pause, IDLE)
        self._woken = False
        return pause

    def woke(self) -> None:
        """Something was heard: the subscription works, so that there is no hurry without a word."""
        self._pause = IDLE
        self._woken = True

    def close(self) -> None:
        """Give the descriptor back."""
        self._reader.close()

    def _look_around(self) -> None:
        """After a quiet second: has the record gone, or ended without the usual last event (as sparrow-cli's do)?"""
        if not self._folder.is_dir():
            raise self._gone()
        if ended(self._folder):
            self.done = not self._unread()

    def _unread(self) -> bool:
        last = last_event(self._folder)
        return last is not None and decode_header(last).seq > self.seq

    def _gone(self) -> Gone:
        return Gone(f"gone: the record of run {self.run} has been pruned")


def read_run(places: Places, ref: str, since: int = 0, *, follow: bool = False) -> Iterator[bytes]:
    """A run's recorded lines with seq > ``since``, from the files alone, no supervisor needed.

    With ``follow`` it goes on until the run has ended, looking once a second. Raises NoSuchRun, AmbiguousRun, Gone.
    """
    return _read_run(RunFollow(places, find_run(places, ref), since), follow)


def _read_run(follow: RunFollow, on: bool) -> Iterator[bytes]:
    try:
        while not follow.done:
            lines = follow.take()
            yield from lines
            if lines or follow.done:
                continue
            if not on:
                return
            time.sleep(follow.pause())
    finally:
        follow.close()


def _is_end(line: bytes) -> bool:
    return b'"RunFinished"' in line and decode_header(line).type == "RunFinished"


# ── All runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Everything:
    """The events of all runs from now on: of live ones from their present ends, of new ones from their first.

    ``since`` begins earlier: a time, or ``{run: seq}`` for those runs. ``types`` are the types that are given.
    """

    def __init__(self, places: Places, *, types: Collection[str] | None = None, since: Since = None) -> None:
        """Raises Gone where ``since`` names what has been pruned, BadRequest where it is no time."""
        self._places = places
        self._types = None if types is None else frozenset(types)
        self._cursors: dict[str, int] = {}
        self._readers: dict[str, TranscriptReader] = {}
        self._news: dict[str, None] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._listed_at = 0
        self._scanned = time.monotonic()
        self._over: set[str] = set()
        recorded = _recorded(places)
        self._past = set(recorded)
        for run in _listdir(places.runs):
            self._begin(run, _present_end(places.transcript(run)))
        if isinstance(since, Mapping):
            for run, seq in since.items():
                self._begin(run, _checked(places.transcript(run), seq))
        elif since is not None:
            moment = _moment(since)
            for run in recorded:
                self._begin(run, _seq_at(places.transcript(run), moment))

    def heard(self, topic: bytes, payload: bytes) -> None:
        """Take note of a message of the event socket."""
        if topic == b"heads":
            try:
                heads = msgspec.json.decode(payload, type=_Heads)
            except msgspec.DecodeError:
                return
            for run, seq in heads.runs.items():
                if seq > self._cursors.get(run, 0):
                    self._note(run)
            return
        run = topic.partition(b"/")[0].decode(errors="replace")
        if run in self._past:
            # It was there before, but not at work (it waited its turn): its news begin with this message.
            try:
                self._begin(run, decode_header(payload.partition(b"\n")[0]).seq - 1)
            except msgspec.DecodeError:
                return
        self._note(run)

    def take(self) -> list[bytes]:
        """The next lines of every run of which there is news; none where there is none. Looks by itself once a second."""
        if time.monotonic() - self._scanned >= IDLE:
            self.scan()
        found: list[bytes] = []
        for run in list(self._news):
            del self._news[run]
            lines = self._read(run)
            if lines:
                self._news[run] = None  # at the end of the line: there may be more
                found += self._chosen(lines)
                if _is_end(lines[-1]):
                    self._end(run)
            if len(found) >= _ROUND_LINES:
                break
        return found

    @property
    def news(self) -> bool:
        """Whether there is more to take at once."""
        return bool(self._news)

    def close(self) -> None:
        """Give the descriptors back."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _begin(self, run: str, seq: int | None) -> None:
        """Follow a run from after ``seq``; None is a run of which nothing more will come."""
        if seq is None:
            return
        self._past.discard(run)
        self._cursors[run] = seq
        self._news[run] = None

    def _note(self, run: str) -> None:
        if len(run) == _ID_LENGTH and run not in self._past and run not in self._over:
            self._cursors.setdefault(run, 0)
            self._news[run] = None

    def _end(self, run: str) -> None:
        reader = self._readers.pop(run, None)
        if reader is not None:
            reader.close()
        self._cursors.pop(run, None)
        self._sizes.pop(run, None)
        self._news.pop(run, None)
        self._over.add(run)

    def _read(self, run: str) -> list[bytes]:
        reader = self._readers.pop(run, None) or TranscriptReader(
            self._places.transcript(run), since=self._cursors[run]
        )
        lines = reader.read()
        self._cursors[run] = reader.seq
        self._readers[run] = reader  # the last one now
        if len(self._readers) > _OPEN_READERS:
            oldest = next(iter(self._readers))
            self._readers.pop(oldest).close()
        return lines

    def _chosen(self, lines: list[bytes]) -> list[bytes]:
        if self._types is None:
            return lines
        return [line for line in lines if decode_header(line).type in self._types]

    def scan(self) -> None:
        """Look for what no message told of: new records, records that have grown, records that have gone."""
        self._scanned = time.monotonic()
        try:
            changed = os.stat(self._places.transcripts).st_mtime_ns
        except FileNotFoundError:
            return
        if changed != self._listed_at:
            # The folder's time has the kernel's tick: what came in the same tick as this look is for the next one.
            self._listed_at = changed if time.time_ns() - changed > 100_000_000 else 0
            recorded = _recorded(self._places)
            self._over.intersection_update(recorded)  # who follows for months need not remember what was deleted since
            self._past.intersection_update(recorded)
            for run in recorded:
                self._note(run)
        for run in list(self._cursors):
            folder = self._places.transcript(run)
            try:
                found = os.stat(folder / EVENTS)
            except FileNotFoundError:
                if not folder.exists():
                    self._end(run)
                continue
            if self._sizes.get(run) != (found.st_ino, found.st_size):
                self._sizes[run] = (found.st_ino, found.st_size)
                self._news[run] = None


class _Heads(msgspec.Struct):
    runs: dict[str, int]


def _listdir(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _present_end(folder: Path) -> int | None:
    """The last recorded seq; None where the run has ended."""
    line = last_event(folder)
    if line is None:
        return 0
    return None if _is_end(line) else decode_header(line).seq


def _checked(folder: Path, seq: int) -> int:
    if not folder.is_dir():
        raise Gone(f"gone: the record of run {folder.name} has been pruned")
    first = first_seq(folder)
    if seq + 1 < first:
        raise Gone(
            f"gone: the record of run {folder.name} begins with seq {first} now; what was before has been pruned"
        )
    return seq


def _moment(since: datetime | str) -> str:
    """A time as events write it, so that the two compare as texts."""
    try:
        moment = datetime.fromisoformat(since) if isinstance(since, str) else since
    except ValueError:
        raise BadRequest(f"`since` is not an RFC 3339 time: {since}") from None
    if moment.tzinfo is None:
        raise BadRequest(f"`since` has no time zone: {since}")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seq_at(folder: Path, moment: str) -> int | None:
    """The seq before the first event at or after the moment; None where all were before it and the run has ended."""
    try:
        written = (folder / EVENTS).stat().st_mtime
    except FileNotFoundError:
        written = time.time()
    if written + _CLOCK_SLACK < datetime.fromisoformat(moment).timestamp():
        return None  # most records, where there are many; one that is live is followed anyhow
    for path in parts(folder):
        try:
            fd = open_regular(path)
        except FileNotFoundError:
            continue
        try:
            if first_header_seq(fd) == 0:
                return None  # sparrow-cli's: its events have no time
            offset = bisect_lines(fd, lambda line: decode_header(line).ts >= moment)
            line, found, _ = os.pread(fd, 65536, offset).partition(b"\n")
            while line and not found:
                more, found, _ = os.pread(fd, 1 << 20, offset + len(line)).partition(b"\n")
                if not more:
                    line = b""
                line += more
            if line:
                return decode_header(line).seq - 1
        finally:
            os.close(fd)
    return _present_end(folder)
