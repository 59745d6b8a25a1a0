"""What is wrong with one run's transcript, and mending it. Nothing that was there is thrown away: a damaged file is kept."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from sparrow_mp import transcript
from sparrow_mp.events import EventError, Header, Outcome, RunFinished, decode, decode_header, encode
from sparrow_mp.regular import open_regular, read_regular
from sparrow_supervisor.syncer import sync_path

_MOST_META = 16 << 20


@dataclass
class Condition:
    """How a transcript is. ``faults`` can be mended, ``losses`` cannot: nothing has what is missing."""

    faults: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    damaged: dict[Path, int] = field(default_factory=dict)
    """The parts with lines that are no events of this run in their order, and the last good seq before each."""
    seq: int = 0
    ts: str = ""
    end: RunFinished | None = None
    legacy: bool = False
    """It is sparrow-cli's, whose lines have no numbers: it is only read."""


def examine(folder: Path) -> Condition:
    """Read a whole transcript. Raises OSError."""
    found = Condition()
    names = set(os.listdir(folder))
    parts = [path for path in transcript.parts(folder) if path.name in names]
    for number, path in enumerate(parts):
        bad, before, last = 0, found.seq, b""
        for line, good in _lines(parts[number:], folder.name, found):
            bad += not good
            last = line if good else last
        if found.legacy:
            return found
        found.end = _end_of(last) or (None if last else found.end)
        if bad:
            found.damaged[path] = before
            found.faults.append(f"{path.name} has {_count(bad, 'line')} that {'is' if bad == 1 else 'are'} no event")
    if len(parts) > 1 and transcript.EVENTS not in names:
        found.faults.append("a part was sealed, and none begun after it")
    if transcript.NEXT in names:
        found.faults.append(f"{transcript.NEXT} was left behind")
    summary = read_meta(folder)
    if found.end is not None and summary is None:
        found.faults.append(f"it has ended, and there is no {transcript.META} that says so")
    if found.end is None and summary is not None:
        found.faults.append(f"{transcript.META} says that it has ended, and its last event is gone")
    return found


def mend(folder: Path, found: Condition) -> list[str]:
    """Mend what ``examine`` found; the names under which damaged parts are kept. Raises OSError.

    Each step leaves a transcript that can be read.
    """
    parts = transcript.parts(folder)
    kept = [_keep_the_good(parts[parts.index(path) :], folder.name, before) for path, before in found.damaged.items()]
    growing = folder / transcript.EVENTS
    (folder / transcript.NEXT).unlink(missing_ok=True)
    os.close(open_regular(growing, os.O_WRONLY | os.O_CREAT))
    if found.end is None:
        _end_again(folder, growing, found)
    if found.end is not None and read_meta(folder) is None:
        transcript.write_meta(folder, folder.name, found.end.ts, found.end.seq, found.end.outcome)
    sync_path(growing)
    sync_path(folder)
    return kept


class Meta(msgspec.Struct):
    """meta.json."""

    ended: str
    events: int
    outcome: Outcome


def read_meta(folder: Path) -> Meta | None:
    """What meta.json says; None where there is none that can be read."""
    try:
        return msgspec.json.decode(read_regular(folder / transcript.META, _MOST_META), type=Meta)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


def _lines(parts: list[Path], run: str, found: Condition) -> Iterator[tuple[bytes, bool]]:
    """Each line of the first part, and whether it is the run's, an event, and follows. What does not is told in ``found``.

    The parts after it are for looking ahead.
    """
    with _open(parts[0]) as file:
        for line in file:
            header = _header(line)
            if header is not None and header.seq == 0 and found.seq == 0:
                found.legacy = True
                return
            if header is None or header.run != run or header.seq <= found.seq:
                yield line, False
                continue
            if header.seq > found.seq + 1:
                # Where the line after it goes on from the one before it, its number alone is damaged.
                if _next_seq(file.tell(), parts, run) in (found.seq + 1, found.seq + 2):
                    yield line, False
                    continue
                found.losses.append(_missing(found.seq + 1, header.seq - 1))
            found.seq, found.ts = header.seq, max(found.ts, header.ts)
            yield line, True


def _next_seq(offset: int, parts: list[Path], run: str) -> int:
    """The seq of the next line that is an event of the run, from an offset of the first part on; 0 where there is none."""
    for path in parts:
        try:
            with _open(path) as file:
                file.seek(offset)
                headers = (_header(line) for line in file)
                following = next((header.seq for header in headers if header is not None and header.run == run), 0)
        except FileNotFoundError:  # of the growing part, for the moment in which the one before it is sealed
            continue
        if following:
            return following
        offset = 0
    return 0


def _open(path: Path) -> BinaryIO:
    return open(open_regular(path), "rb")


def _header(line: bytes) -> Header | None:
    """What a whole line says of its event; None where it is none."""
    try:
        return decode_header(line) if line.endswith(b"\n") else None
    except msgspec.DecodeError:
        return None


def _keep_the_good(parts: list[Path], run: str, before: int) -> str:
    """Replace the first part by one with its good lines alone, and keep the old one beside it; the name that it has then."""
    path = parts[0]
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(open_regular(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        for line, good in _lines(parts, run, Condition(seq=before)):
            if good:
                file.write(line)
        file.flush()
        os.fsync(file.fileno())
    names = (path.with_name(f"{path.name}.damaged" + (f".{n}" if n > 1 else "")) for n in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    os.link(path, kept)
    new.replace(path)
    return kept.name


def _end_again(folder: Path, growing: Path, found: Condition) -> None:
    """Where meta.json knows how the run ended and the transcript does not, it is said there again."""
    meta = read_meta(folder)
    if meta is None:
        return
    end = RunFinished(outcome=meta.outcome)
    end.run, end.seq, end.ts = folder.name, max(found.seq + 1, meta.events), max(found.ts, meta.ended)
    if end.seq > found.seq + 1:
        found.losses.append(_missing(found.seq + 1, end.seq - 1))
    with open(open_regular(growing, os.O_WRONLY | os.O_APPEND), "ab") as file:
        file.write(encode(end) + b"\n")
    found.end = end


def _end_of(line: bytes) -> RunFinished | None:
    try:
        event = decode(line) if b'"RunFinished"' in line else None
    except EventError:
        return None
    return event if isinstance(event, RunFinished) else None


def _missing(first: int, last: int) -> str:
    return f"event {first} is missing" if first == last else f"events {first} to {last} are missing"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
