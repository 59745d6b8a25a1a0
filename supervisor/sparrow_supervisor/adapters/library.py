"""Reading the records for many clients at once, from positions that cost nothing to keep.

A position is a :class:`Spot`: it holds no descriptor, survives the sealing of the part that it is in, and is checked
against the ``seq`` of the line that is found there, so that neither a repaired nor a pruned record can make a hole or a
repeat. What was read last is kept for a moment: a hundred clients that have caught up share one read and one filtering.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from sparrow_mp.events import decode_header
from sparrow_mp.regular import open_regular
from sparrow_mp.transcript import EVENTS, bisect_lines, line_start, normalise
from sparrow_supervisor.adapters.lines import choose

_log = logging.getLogger(__name__)

_CACHE_BYTES = 2 << 20
_SKIP_BYTES = 1 << 20
_FRESH_S = 60.0
_MOST_TOLD = 1000
_BEGINS = b'{"type":"'
_NO_EVENT = sys.maxsize
"""The number, in a search, of a line that is no event: it lies after all that are."""


class Spot(NamedTuple):
    """Just after the event ``seq``, which ends at ``offset`` of the file ``part`` (its inode; 0: not looked for yet)."""

    seq: int
    part: int = 0
    offset: int = 0


BEGIN = Spot(0)


class Pruned(Exception):
    """What was asked for is not there any more; ``first`` is the first event that is, None where there is no record."""

    def __init__(self, first: int | None) -> None:
        super().__init__(first)
        self.first = first


class Chunk:
    """Some consecutive events of one run, as they are in the file, and filtered as often as there are wishes."""

    __slots__ = ("_chosen", "data", "end", "start")

    def __init__(self, start: Spot, end: Spot, data: bytes) -> None:
        self.start = start
        self.end = end
        self.data = data
        self._chosen: dict[frozenset[bytes] | None, bytes] = {}

    def chosen(self, types: frozenset[bytes] | None, floor: str = "") -> bytes:
        """The lines that a client gets."""
        if floor:
            return choose(self.data, types, floor)
        found = self._chosen.get(types)
        if found is None:
            found = self._chosen[types] = choose(self.data, types)
        return found


class Library:
    """The folder of all transcripts. It never writes."""

    def __init__(self, folder: Path) -> None:
        self._root = os.fspath(folder)
        self._cache: dict[tuple[str, int], Chunk] = {}
        self._cached = 0
        self._told: set[tuple[str, str]] = set()

    # ── Which runs there are ─────────────────────────────────────────────────────────────────────────────────────────

    def has(self, run: str) -> bool:
        """Whether there is a record of exactly this name. What a client wrote must not lead out of the folder."""
        if not run or run in (".", "..") or "/" in run or "\0" in run:
            return False
        try:
            return os.path.isdir(f"{self._root}/{run}")
        except UnicodeEncodeError:
            return False

    def names(self) -> Iterator[str]:
        """The runs that have a record, in no order, read bit by bit: there may be a hundred thousand."""
        try:
            entries = os.scandir(self._root)
        except FileNotFoundError:
            return
        with entries:
            for entry in entries:
                yield entry.name

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, run: str, start: Spot, limit: Spot | None, most: int) -> Chunk | None:
        """The events after ``start``: about ``most`` bytes, one event at least, none after ``limit``; None at the end.

        Raises Pruned where the next event is not there any more, OSError where the record cannot be read.
        """
        key = (run, start.seq)
        known = self._cache.get(key)
        if known is not None and (limit is None or known.end.seq <= limit.seq) and len(known.data) <= 2 * most:
            return known
        chunk = self._read(run, start, limit, most)
        if chunk is not None:
            if known is not None:
                self._cached -= len(self._cache.pop(key).data)
            self._cache[key] = chunk
            self._cached += len(chunk.data)
            while self._cached > _CACHE_BYTES and len(self._cache) > 1:
                self._cached -= len(self._cache.pop(next(iter(self._cache))).data)
        return chunk

    def read_again(self, run: str, start: Spot, end: Spot) -> Chunk | None:
        """What ``read`` gave between these two; None where it is not there any more. Raises OSError."""
        try:
            chunk = self._read(run, start, end, max(1, end.offset - start.offset))
        except Pruned:
            return None
        return chunk if chunk is not None and chunk.end.seq == end.seq else None

    def _read(self, run: str, start: Spot, limit: Spot | None, most: int) -> Chunk | None:
        fd, part, offset = self._open(run, start)
        if fd < 0:
            return None
        try:
            for sought in (False, True):
                room = most if limit is None or limit.part != part else min(most, limit.offset - offset)
                data = _whole_lines(fd, offset, room) if room > 0 else b""
                if not data:
                    return None
                found = _seq(data[: data.index(b"\n")])
                if found == 0:
                    return _numbered(data, run, start, part, offset)
                if found == start.seq + 1:
                    return _in_order(data, Spot(start.seq, part, offset))
                place = None if sought else self._find(run, fd, start.seq, offset)
                if place is None:
                    return None
                offset = place
        finally:
            os.close(fd)
        return None

    def _find(self, run: str, fd: int, seq: int, offset: int) -> int | None:
        """Where the event after ``seq`` is, which is not at ``offset``; None where it is not to be found. Raises Pruned.

        The offset is of another file, or of this one before it was repaired; or this is damaged (the NULs of a power cut).
        """
        line = _line(fd, offset)
        if _seq(line) != _NO_EVENT or not _begins_line(fd, offset):
            offset = bisect_lines(fd, lambda line: _seq(line) > seq)
        for line in _whole_lines(fd, offset, _SKIP_BYTES).split(b"\n")[:-1]:
            found = _seq(line)
            if found == seq + 1:
                return offset
            if found == _NO_EVENT:
                self.tell(run, f"a line after event {seq} of its record is no event; it is not sent")
            elif found > seq:
                raise Pruned(found)
            offset += len(line) + 1
        return None

    def tell(self, run: str, fault: str) -> None:
        """Say in the log what is wrong with a record: once, though it is looked at again and again."""
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        if (run, fault) not in self._told:
            self._told.add((run, fault))
            _log.error("run %s: %s", run, fault)

    def _open(self, run: str, start: Spot) -> tuple[int, int, int]:
        """A descriptor on the part with the event after ``start``, its inode, the offset; a negative one: none yet."""
        folder = f"{self._root}/{run}"
        growing = _try_open(f"{folder}/{EVENTS}")
        if growing >= 0:
            inode = os.fstat(growing).st_ino
            if inode == start.part:
                return growing, inode, start.offset
        try:
            fd, begins, following = self._part_of(folder, growing, start.seq + 1)
        except BaseException:  # whatever it is goes on up, once nothing is left open
            if growing >= 0:
                os.close(growing)
            raise
        if growing >= 0 and fd != growing:
            os.close(growing)
        if fd < 0:
            return -1, 0, 0
        try:
            status = os.fstat(fd)
            if status.st_ino == start.part:
                offset = start.offset
            elif begins == 0:
                offset = _skip_lines(fd, start.seq)
            elif begins == start.seq + 1:
                offset = 0
            else:
                offset = bisect_lines(fd, lambda line: _seq(line) > start.seq)
            if offset >= status.st_size and following is not None:
                raise Pruned(following)  # the next part begins later than this one ends
        except BaseException:  # whatever it is goes on up, once nothing is left open
            os.close(fd)
            raise
        return fd, status.st_ino, offset

    def _part_of(self, folder: str, growing: int, seq: int) -> tuple[int, int, int | None]:
        """The part that the event ``seq`` is or will be in: a descriptor, its first seq, the first seq of the next part."""
        begins = _first_seq(growing) if growing >= 0 else None
        sealed = _sealed(folder)
        if begins is not None and (begins <= seq or not sealed):
            if begins > seq:
                raise Pruned(begins)
            return growing, begins, None
        if not sealed:
            return growing, 1, None  # nothing recorded yet
        before = [first for first in sealed if first <= seq]
        if not before:
            raise Pruned(sealed[0])
        chosen = before[-1]
        later = sealed[len(before) :]
        fd = _try_open(f"{folder}/events.{chosen}.jsonl")
        if fd < 0:
            raise Pruned(later[0] if later else begins)
        return fd, chosen, later[0] if later else begins

    # ── Looking things up ────────────────────────────────────────────────────────────────────────────────────────────

    def end(self, run: str, known: Spot | None = None) -> tuple[Spot, bool] | None:
        """Where the growing part ends, and whether the run's last event is there. None where it ends at ``known``."""
        fd = _try_open(f"{self._root}/{run}/{EVENTS}")
        if fd < 0:
            return None
        try:
            status = os.fstat(fd)
            size = status.st_size
            if not size or (known is not None and known.part == status.st_ino and known.offset >= size):
                return None
            if os.pread(fd, 1, size - 1) != b"\n":
                size = line_start(fd, size)  # a line that is being written
            if not size or (known is not None and known.part == status.st_ino and known.offset >= size):
                return None
            start = line_start(fd, size - 1)
            header = decode_header(os.pread(fd, size - start, start))
        except msgspec.DecodeError:
            return None  # damage at the end: its writer repairs it before it goes on
        finally:
            os.close(fd)
        if not header.seq:
            return None  # a record of sparrow-cli's: nobody appends to it
        return Spot(header.seq, status.st_ino, size), header.type == "RunFinished"

    def is_fresh(self, run: str) -> bool:
        """Whether the record grew a moment ago, so that a word about it may be on its way."""
        try:
            return abs(time.time() - os.stat(f"{self._root}/{run}/{EVENTS}").st_mtime) < _FRESH_S
        except OSError:
            return False

    def last_time(self, run: str) -> tuple[str, bool]:
        """The time of the last event, and whether it is RunFinished; an empty one where it has none."""
        folder = f"{self._root}/{run}"
        for name in [EVENTS, *(f"events.{first}.jsonl" for first in reversed(_sealed(folder)))]:
            fd = _try_open(f"{folder}/{name}")
            if fd < 0:
                continue
            try:
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    size = line_start(fd, size)
                if not size:
                    continue
                start = line_start(fd, size - 1)
                header = decode_header(os.pread(fd, size - start, start))
                return header.ts, header.type == "RunFinished"
            except msgspec.DecodeError:
                return "", False
            finally:
                os.close(fd)
        return "", False

    def time_of(self, run: str, seq: int) -> str:
        """The time of one event; empty where it is not there or has none."""
        try:
            chunk = self._read(run, Spot(seq - 1), None, 1)
        except (Pruned, OSError):
            return ""
        return decode_header(chunk.data.split(b"\n", 1)[0]).ts if chunk is not None else ""

    def seek_time(self, run: str, moment: str) -> Spot | None:
        """Just before the first event of ``moment`` or later; None where there is none, nor will be.

        Raises Pruned where events of that time may have been pruned.
        """
        folder = f"{self._root}/{run}"
        growing = _try_open(f"{folder}/{EVENTS}")
        try:
            sealed = _sealed(folder)
            first = _first_seq(growing) if growing >= 0 else None
            if first == 0:
                return None  # sparrow-cli's events have no times
            parts: list[int | None] = [*sealed, *([None] if first is not None else [])]
            for place in range(len(parts) - 1, -1, -1):
                number = parts[place]
                fd = _try_open(f"{folder}/events.{number}.jsonl") if number is not None else os.dup(growing)
                if fd < 0:
                    continue
                try:
                    begins = decode_header(_line(fd, 0))
                    if begins.ts < moment:
                        return _find_time(fd, moment)
                    if place == 0:
                        if begins.seq > 1:
                            raise Pruned(begins.seq)
                        return BEGIN
                finally:
                    os.close(fd)
        except msgspec.DecodeError:
            return None
        finally:
            if growing >= 0:
                os.close(growing)
        return BEGIN  # nothing recorded yet


def _try_open(path: str) -> int:
    try:
        return open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return -1


def _sealed(folder: str) -> list[int]:
    """The first seqs of the sealed parts, in order. Raises Pruned where there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise Pruned(None) from None
    found = (name.split(".") for name in names if name.startswith("events.") and name.endswith(".jsonl"))
    return sorted(int(words[1]) for words in found if len(words) == 3 and words[1].isdigit())


def _first_seq(fd: int) -> int | None:
    """The seq of the first line: 0 where it has none, None where there is no line."""
    line = _line(fd, 0)
    if not line:
        return None
    try:
        return decode_header(line).seq
    except msgspec.DecodeError:
        return None


def _line(fd: int, offset: int) -> bytes:
    """The line at ``offset`` with its line break; empty where it is not whole."""
    size = 4096
    while True:
        data = os.pread(fd, size, offset)
        cut = data.find(b"\n") + 1
        if cut or len(data) < size:
            return data[:cut]
        size *= 4


def _whole_lines(fd: int, offset: int, most: int) -> bytes:
    """What is there, up to ``most`` bytes and to the end of a line; a first line that is longer comes whole."""
    data = os.pread(fd, most, offset)
    cut = data.rfind(b"\n") + 1
    if cut or len(data) < most:
        return data[:cut]
    return _line(fd, offset)


def _seq(line: bytes) -> int:
    """The number of a line for a search."""
    try:
        return decode_header(line).seq
    except msgspec.DecodeError:
        return _NO_EVENT


def _time(line: bytes) -> str:
    """The time of a line for a search; what is no event lies after all that are."""
    try:
        return decode_header(line).ts
    except msgspec.DecodeError:
        return "~"


def _in_order(data: bytes, start: Spot) -> Chunk:
    """Whole lines, of which the first follows ``start``, as far as each follows the one before it."""
    last, size = start.seq + data.count(b"\n"), len(data)
    usual = data.startswith(_BEGINS) and data.count(b"}\n" + _BEGINS) == last - start.seq - 1
    if (
        not usual or _seq(data[data.rfind(b"\n", 0, -1) + 1 :]) != last
    ):  # nearly never: only then each line is looked at
        last, size = start.seq, 0
        for line in data.split(b"\n")[:-1]:
            if _seq(line) != last + 1:
                break
            last += 1
            size += len(line) + 1
    return Chunk(start, Spot(last, start.part, start.offset + size), data[:size])


def _begins_line(fd: int, offset: int) -> bool:
    return offset == 0 or os.pread(fd, 1, offset - 1) == b"\n"


def _skip_lines(fd: int, count: int) -> int:
    """The offset after so many lines of a record without numbers; that of its end where it has no more."""
    offset = 0
    while count > 0:
        data = _whole_lines(fd, offset, _SKIP_BYTES)
        if not data:
            break
        lines = data.count(b"\n")
        if lines > count:
            data = data[: sum(len(line) + 1 for line in data.split(b"\n", count)[:count])]
            lines = count
        count -= lines
        offset += len(data)
    return offset


def _numbered(data: bytes, run: str, start: Spot, part: int, offset: int) -> Chunk:
    """Lines of a record of sparrow-cli's, with the numbers and the run that they lack."""
    seq = start.seq
    kept = []
    for line in data[:-1].split(b"\n"):
        seq += 1
        try:
            kept.append(normalise(line, seq))
        except msgspec.DecodeError:
            _log.warning("run %s: line %d of its record is no event; it is not sent", run, seq)
    return Chunk(
        Spot(start.seq, part, offset), Spot(seq, part, offset + len(data)), b"".join(line + b"\n" for line in kept)
    )


def _find_time(fd: int, moment: str) -> Spot:
    """Just before the first event of ``moment`` or later in a part that begins before it."""
    status = os.fstat(fd)
    offset = bisect_lines(fd, lambda line: _time(line) >= moment)
    line = _line(fd, offset)
    if line and _seq(line) < _NO_EVENT:
        return Spot(_seq(line) - 1, status.st_ino, offset)
    start = line_start(fd, offset - 1)
    return Spot(decode_header(os.pread(fd, offset - start, start)).seq, status.st_ino, offset)
