"""The record of a run on disk: its layout, and reading it while it grows.

``<folder>/events.jsonl`` holds one event a line and is only ever appended to, in whole lines, by the supervisor. A long
record has sealed parts before it, ``events.<first seq>.jsonl``: the supervisor renames the file and begins a new one, and
a reader here does not notice. (For a moment there is no ``events.jsonl``.) A last line without its line break is not there yet.

A record written by sparrow-cli has no ``seq`` and no ``ts``: its lines are numbered in their order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from sparrow_mp.errors import StateError
from sparrow_mp.events import Outcome, decode_header
from sparrow_mp.regular import open_regular, write_regular

EVENTS = "events.jsonl"
INPUTS = "inputs.json"
META = "meta.json"
NEXT = "events.jsonl.new"
"""The part that is to follow, for the moment in which the growing one is sealed."""
_CHUNK = 1 << 18


def parts(folder: Path) -> list[Path]:
    """The files of the record in their order: the sealed ones by their first seq, then the growing one."""
    sealed: list[tuple[int, Path]] = []
    for path in folder.glob("events.*.jsonl"):
        number = path.name.split(".")[1]
        if number.isdigit():
            sealed.append((int(number), path))
    return [path for _, path in sorted(sealed)] + [folder / EVENTS]


def sealed_name(first: int) -> str:
    """The name of a sealed part that begins with the event ``first``."""
    return f"events.{first}.jsonl"


class TranscriptReader:
    """Reads one run's record in order, from after ``since``, and goes on as it grows.

    It holds one descriptor while it has something open. ``seq`` is the last one that was returned.
    """

    def __init__(self, folder: Path, *, since: int = 0) -> None:
        self.folder = folder
        self.seq = since
        self._since = since
        self._at = 0
        """The last seq that was gone past, which is less than ``seq`` while the record has not come that far."""
        self._part = folder / EVENTS
        self._fd = -1
        self._inode = -1
        self._offset = 0
        self._rest = b""
        self._legacy = False
        self._sought = since == 0

    def read(self, max_bytes: int = _CHUNK) -> list[bytes]:
        """The next whole lines, without their line breaks; none at the present end.

        Raises OSError where the record cannot be read, StateError where it is damaged; one that is not there yet is empty.
        """
        try:
            return self._read(max_bytes)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise StateError(
                f"the transcript of run {self.folder.name} is damaged after event {self._at}; mend it: sparrow doctor --repair"
            ) from None

    def _read(self, max_bytes: int) -> list[bytes]:
        if not self._sought:
            self._seek(self._since)
        while True:
            if self._fd < 0 and not self._open_next():
                return []
            data = os.pread(self._fd, max_bytes, self._offset)
            if not data:
                if not self._sealed():
                    self._offset -= len(self._rest)  # a line that is not whole may be cut off again
                    self._rest = b""
                    return []
                self._close_part()
                continue
            self._offset += len(data)
            whole, found, rest = (self._rest + data).rpartition(b"\n")
            self._rest = rest
            if found:
                lines = self._wanted(self._numbered(whole.split(b"\n")))
                if lines:
                    self.seq = self._at
                    return lines

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> TranscriptReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _numbered(self, lines: list[bytes]) -> list[bytes]:
        """Keep the count of what is returned, and number the lines of a record that has none."""
        if not self._legacy:
            last = decode_header(lines[-1]).seq
            if last:
                if _number(lines[0]) <= self._at:  # a mended file has replaced the one that was read, and begins anew
                    lines = [line for line in lines if not 0 < _number(line) <= self._at]
                self._at = max(self._at, last)
                return lines
            self._legacy = True
        numbered = []
        for line in lines:
            self._at += 1
            numbered.append(normalise(line, self._at))
        return numbered

    def _wanted(self, lines: list[bytes]) -> list[bytes]:
        """Those over ``since``: where the record had not come that far, others are read before them."""
        if self._since:
            lines = [line for line in lines if decode_header(line).seq > self._since]
            if lines:
                self._since = 0
        return lines

    def _open_next(self) -> bool:
        """Open the part that follows what was read. False where there is none yet."""
        while True:
            chosen = self._following()
            if not self._open(chosen):
                return False
            # Where it was sealed after the look at the folder, the one opened is already the next but one.
            if chosen.name != EVENTS or self._following() == chosen:
                return True
            self.close()

    def _following(self) -> Path:
        """The first part that holds nothing of what was read."""
        files = parts(self.folder)
        return next((path for path in files[:-1] if _sealed_from(path) > self._at), files[-1])

    def _open(self, path: Path) -> bool:
        try:
            self._fd = open_regular(path)
        except FileNotFoundError:
            return False
        self._part = path
        self._inode = os.fstat(self._fd).st_ino
        self._offset = 0
        self._rest = b""
        return True

    def _sealed(self) -> bool:
        """Whether the part that is open will not grow any more and has been read to its end."""
        try:
            growing = os.stat(self.folder / EVENTS).st_ino
        except FileNotFoundError:
            return False
        return growing != self._inode and os.fstat(self._fd).st_size == self._offset

    def _close_part(self) -> None:
        if self._part.name != EVENTS:
            self._at = max(self._at, _sealed_from(self._part))  # also where it holds nothing
        self.close()

    def _seek(self, since: int) -> None:
        """Go to the first line whose seq is over ``since``; stay as it is where there is no record yet."""
        while True:
            chosen = self._holding(since + 1)
            if not self._open(chosen):
                return
            if chosen.name != EVENTS or self._holding(since + 1) == chosen:
                break  # else it was sealed after the look at the folder
            self.close()
        self._sought = True
        if first_header_seq(self._fd) == 0:
            self._legacy = True
            skipped = 0
            while skipped < since:
                line = _line_at(self._fd, self._offset)
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                skipped += 1
            self._at = skipped
            return
        self._offset = bisect_lines(self._fd, lambda line: decode_header(line).seq > since)
        if self._offset:
            self._at = decode_header(_line_at(self._fd, line_start(self._fd, self._offset - 1))).seq

    def _holding(self, seq: int) -> Path:
        """The part that holds, or will hold, the event ``seq``: the last one that begins no later than it."""
        *sealed, growing = parts(self.folder)
        if not sealed or 0 < _first_seq_of(growing, empty=seq + 1) <= seq:
            return growing
        return next((path for path in reversed(sealed) if _sealed_from(path) <= seq), sealed[0])


def bisect_lines(fd: int, wanted: Callable[[bytes], bool]) -> int:
    """The offset of the first whole line for which ``wanted`` holds, in a file sorted so; its end where none does."""
    low, high = 0, os.fstat(fd).st_size
    while low < high:
        middle = (low + high) // 2
        start = line_start(fd, middle, low)
        line = _line_at(fd, start)
        if not line.endswith(b"\n") or wanted(line):
            high = start
        else:
            low = start + len(line)
    return low


def line_start(fd: int, offset: int, floor: int = 0) -> int:
    """Where the line begins that the byte at ``offset`` is in; no line begins before ``floor`` that matters."""
    end = offset
    while end > floor:
        begin = max(floor, end - 4096)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return floor


def _line_at(fd: int, offset: int) -> bytes:
    """The line that begins at ``offset``, with its line break where it has one."""
    line = b""
    while True:
        data = os.pread(fd, 65536, offset + len(line))
        head, found, _ = data.partition(b"\n")
        line += head + found
        if found or not data:
            return line


def first_header_seq(fd: int, empty: int = 1) -> int:
    """The seq of a file's first line: 0 where it is sparrow-cli's, ``empty`` where there is no line."""
    line = _line_at(fd, 0)
    return decode_header(line).seq if line.endswith(b"\n") else empty


def _number(line: bytes) -> int:
    """The seq of a line; 0 where it has none, or is no event."""
    try:
        return decode_header(line).seq
    except msgspec.DecodeError:
        return 0


def _sealed_from(path: Path) -> int:
    """The first seq of a sealed part, which its name tells."""
    return int(path.name.split(".")[1])


def _first_seq_of(path: Path, empty: int = 1) -> int:
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return empty
    try:
        return first_header_seq(fd, empty)
    finally:
        os.close(fd)


def normalise(line: bytes, seq: int) -> bytes:
    """Give a line of a sparrow-cli record its number; one that has a number stays as it is."""
    try:
        fields = msgspec.json.decode(line)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    if not isinstance(fields, dict) or fields.get("seq"):
        return line
    head = {"type": fields.pop("type", ""), "run": fields.pop("run", ""), "seq": seq}
    return msgspec.json.encode({**head, **fields})


def iter_lines(folder: Path, since: int = 0) -> Iterator[bytes]:
    """All lines that are recorded now, in order, from after ``since``."""
    with TranscriptReader(folder, since=since) as reader:
        while lines := reader.read():
            yield from lines


def write_meta(folder: Path, run: str, ended: str, events: int, outcome: Outcome) -> None:
    """Say in meta.json that a run has ended, and how; all of it or nothing. Raises OSError."""
    meta = {"run": run, "ended": ended, "events": events, "outcome": outcome}
    write_regular(folder / META, msgspec.json.encode(meta))


def first_seq(folder: Path) -> int:
    """The seq of the first event that is still there (1 where nothing was pruned)."""
    for path in parts(folder):
        if path.exists():
            return max(1, _first_seq_of(path))
    return 1


def last_event(folder: Path) -> bytes | None:
    """The last whole line of the record; None where there is none."""
    for path in reversed(parts(folder)):
        try:
            fd = open_regular(path)
        except FileNotFoundError:
            continue
        try:
            end = os.fstat(fd).st_size
            while end > 0:
                start = line_start(fd, end - 1, 0)
                line = os.pread(fd, end - start, start)
                if line.endswith(b"\n"):
                    return line[:-1]
                end = start
        finally:
            os.close(fd)
    return None
