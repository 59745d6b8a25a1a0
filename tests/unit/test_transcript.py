"""The record on disk: read in order from any place, while it grows, in however many parts."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow_mp import transcript
from sparrow_mp.transcript import (
    TranscriptReader,
    bisect_lines,
    first_seq,
    iter_lines,
    last_event,
    line_start,
    normalise,
    parts,
)

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"


def line(seq: int, text: str = "x") -> bytes:
    ts = f"2026-11-22T12:00:00.{seq:06}Z"
    return f'{{"type":"Message","run":"{RUN}","seq":{seq},"ts":"{ts}","role":"a","text":"{text}"}}'.encode()


def lines(first: int, last: int, text: str = "x") -> list[bytes]:
    return [line(seq, text) for seq in range(first, last + 1)]


def legacy(number: int) -> bytes:
    """As sparrow-cli writes it: without a seq, without a ts."""
    return f'{{"type":"Message","run":"{RUN}","role":"a","text":"{number}"}}'.encode()


def whole(some: Sequence[bytes]) -> bytes:
    return b"".join(each + b"\n" for each in some)


def record(folder: Path, *contents: tuple[int, int] | bytes) -> Path:
    """A record whose parts hold these ranges of events, or these bytes; all but the last one are sealed."""
    folder.mkdir(exist_ok=True)
    first = 1
    for number, content in enumerate(contents):
        if isinstance(content, tuple):
            first, data = content[0], whole(lines(*content))
        else:
            data = content
        name = "events.jsonl" if number == len(contents) - 1 else f"events.{first}.jsonl"
        (folder / name).write_bytes(data)
    return folder


def append(folder: Path, data: bytes) -> None:
    with open(folder / "events.jsonl", "ab") as file:
        file.write(data)


def seal(folder: Path, first: int) -> None:
    os.rename(folder / "events.jsonl", folder / f"events.{first}.jsonl")


def read_all(reader: TranscriptReader, max_bytes: int = 1 << 18) -> list[bytes]:
    found: list[bytes] = []
    while more := reader.read(max_bytes):
        found += more
        assert reader.seq == json.loads(more[-1])["seq"]
    return found


SHAPES: dict[str, tuple[tuple[int, int] | bytes, ...]] = {
    "one part": ((1, 12),),
    "three parts": ((1, 4), (5, 9), (10, 12)),
    "a growing part that is empty": ((1, 4), (5, 12), b""),
    "parts of one event": ((1, 1), (2, 2), (3, 11), (12, 12)),
    "a torn last line": ((1, 4), (5, 9), whole(lines(10, 12)) + line(13)[:40]),
    "nothing but a torn line in the growing part": ((1, 4), (5, 12), line(13)[:40]),
}


# ── reading what is there ──


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("since", range(14))
def test_from_any_place_of_any_shape(tmp_path: Path, shape: str, since: int) -> None:
    folder = record(tmp_path / "record", *SHAPES[shape])
    assert list(iter_lines(folder, since)) == lines(since + 1, 12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 2, 150, 151, 1000])
def test_in_pieces_of_any_size(tmp_path: Path, shape: str, size: int) -> None:
    folder = record(tmp_path / "record", *SHAPES[shape])
    with TranscriptReader(folder, since=3) as reader:
        assert read_all(reader, size) == lines(4, 12)


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    widths=st.lists(st.sampled_from([0, 1, 50, 3_000, 10_000]), min_size=1, max_size=5),
    where=st.floats(0, 1),
)
def test_any_lengths_of_parts_and_lines(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], widths: list[int], where: float
) -> None:
    total = sum(sizes)
    every = [line(seq, "x" * widths[seq % len(widths)]) for seq in range(1, total + 1)]
    folder = tmp_path_factory.mktemp("record")
    first = 1
    for number, size in enumerate(sizes):
        name = "events.jsonl" if number == len(sizes) - 1 else f"events.{first}.jsonl"
        (folder / name).write_bytes(whole(every[first - 1 : first - 1 + size]))
        first += size
    since = round(where * total)
    assert list(iter_lines(folder, since)) == every[since:]


def test_nothing_is_there(tmp_path: Path) -> None:
    assert list(iter_lines(tmp_path / "none")) == []
    assert list(iter_lines(tmp_path / "none", 5)) == []
    assert list(iter_lines(record(tmp_path / "empty", b""))) == []
    assert list(iter_lines(record(tmp_path / "torn", b'{"type"'), 3)) == []


def test_files_that_are_no_parts_are_left_alone(tmp_path: Path) -> None:
    folder = record(tmp_path / "record", (1, 4), (5, 8))
    for name in ("events.jsonl.bak", "events.x.jsonl", "events..jsonl", "meta.json", "events.1.jsonl.tmp"):
        (folder / name).write_bytes(b"nonsense")
    assert [path.name for path in parts(folder)] == ["events.1.jsonl", "events.jsonl"]
    assert list(iter_lines(folder)) == lines(1, 8)


def test_parts_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = record(tmp_path / "record", (1, 8), (9, 99), (100, 101), (102, 102))
    assert [path.name for path in parts(folder)] == [
        "events.1.jsonl", "events.9.jsonl", "events.100.jsonl", "events.jsonl",
    ]  # fmt: skip
    assert list(iter_lines(folder, 98)) == lines(99, 102)


def test_a_pruned_record_begins_where_it_begins(tmp_path: Path) -> None:
    folder = record(tmp_path / "record", (5, 9), (10, 12))
    assert first_seq(folder) == 5
    assert list(iter_lines(folder)) == lines(5, 12)
    assert list(iter_lines(folder, 2)) == lines(5, 12)
    assert list(iter_lines(folder, 7)) == lines(8, 12)
    assert list(iter_lines(folder, 11)) == lines(12, 12)


def test_an_empty_part_ends_nothing(tmp_path: Path) -> None:
    """There should be none; a power cut may leave one."""
    folder = record(tmp_path / "record", (1, 4), (5, 5), (6, 8))
    (folder / "events.5.jsonl").write_bytes(b"")
    with TranscriptReader(folder) as reader:
        assert reader.read() == lines(1, 4)
        assert reader.read() == lines(6, 8)
        assert reader.read() == []
        append(folder, whole(lines(9, 9)))
        assert reader.read() == lines(9, 9)


# ── reading on ──


def test_it_follows_growth_and_waits_for_whole_lines(tmp_path: Path) -> None:
    folder = record(tmp_path / "record", (1, 2))
    with TranscriptReader(folder) as reader:
        assert read_all(reader) == lines(1, 2)
        assert reader.read() == []
        append(folder, line(3)[:10])
        assert reader.read() == []
        append(folder, line(3)[10:])
        assert reader.read() == []
        append(folder, b"\n" + line(4) + b"\n" + line(5)[:-1])
        assert reader.read() == lines(3, 4)
        append(folder, line(5)[-1:] + b"\n")
        assert reader.read() == lines(5, 5)
        assert reader.seq == 5


def test_a_record_may_begin_after_its_reader(tmp_path: Path) -> None:
    with TranscriptReader(tmp_path / "record") as reader, TranscriptReader(tmp_path / "record", since=2) as resumed:
        assert reader.read() == resumed.read() == []
        folder = record(tmp_path / "record", b"")
        assert reader.read() == resumed.read() == []
        append(folder, whole(lines(1, 4)))
        assert reader.read() == lines(1, 4)
        assert resumed.read() == lines(3, 4)


@pytest.mark.parametrize("there", [0, 1, 5])
def test_who_is_ahead_of_the_record_waits_for_what_is_new_to_it(tmp_path: Path, there: int) -> None:
    """``since`` N gives the events over N, whenever they come."""
    folder = record(tmp_path / "record", (1, there)) if there else record(tmp_path / "record", b"")
    with TranscriptReader(folder, since=10) as reader:
        assert reader.read() == []
        for seq in range(there + 1, 10):
            append(folder, whole([line(seq)]))
            assert reader.read() == []
        append(folder, whole(lines(10, 12)))
        assert reader.read() == lines(11, 12)
        append(folder, whole(lines(13, 13)))
        assert reader.read() == lines(13, 13)
        assert reader.seq == 13


def test_sealing_is_not_noticed(tmp_path: Path) -> None:
    folder = record(tmp_path / "record", (1, 2))
    with TranscriptReader(folder) as reader, TranscriptReader(folder, since=4) as ahead:
        assert reader.read() == lines(1, 2)
        assert ahead.read() == []
        append(folder, whole(lines(3, 4)))
        seal(folder, 1)
        assert reader.read() == lines(3, 4)
        assert reader.read() == []  # the next part is not there yet
        append(folder, b"")
        assert reader.read() == []
        append(folder, whole(lines(5, 6)))
        assert reader.read() == lines(5, 6)
        assert ahead.read() == lines(5, 6)


def replace(folder: Path, data: bytes) -> None:
    """As a repair does: another file in the place of the one that readers have open."""
    (folder / "mended").write_bytes(data)
    (folder / "mended").replace(folder / "events.jsonl")


@pytest.mark.parametrize("size", [1, 300, 1 << 18])
@pytest.mark.parametrize("torn", [b"", b'{"type":"Mess', b"\0" * 40])
def test_a_file_that_was_mended_under_its_reader_repeats_nothing(tmp_path: Path, torn: bytes, size: int) -> None:
    folder = record(tmp_path / RUN, (1, 4), whole(lines(5, 8)) + torn)
    with TranscriptReader(folder) as reader:
        assert read_all(reader, size) == lines(1, 8)
        replace(folder, whole(lines(5, 8)))
        assert read_all(reader, size) == []
        append(folder, whole(lines(9, 10)))
        assert read_all(reader, size) == lines(9, 10)
        replace(folder, whole(lines(5, 12)))
        assert read_all(reader, size) == lines(11, 12)


def test_a_mended_file_may_begin_with_a_line_that_is_no_event(tmp_path: Path) -> None:
    folder = record(tmp_path / RUN, (1, 4))
    with TranscriptReader(folder) as reader:
        assert read_all(reader) == lines(1, 4)
        replace(folder, b"junk\n" + whole(lines(1, 6)))
        assert reader.read() == [b"junk", *lines(5, 6)]


def test_a_torn_line_that_is_cut_off_again_spoils_nothing(tmp_path: Path) -> None:
    folder = record(tmp_path / RUN, (1, 3))
    size = (folder / "events.jsonl").stat().st_size
    with TranscriptReader(folder) as reader:
        append(folder, b'{"type":"Message","text":"' + b"x" * 1000)
        assert read_all(reader) == lines(1, 3)
        os.truncate(folder / "events.jsonl", size)  # the disk was full, and its writer tries again later
        append(folder, whole(lines(4, 5)))
        assert read_all(reader) == lines(4, 5)
        append(folder, whole(lines(6, 30)))
        assert read_all(reader) == lines(6, 30)


def test_several_sealings_between_two_reads(tmp_path: Path) -> None:
    folder = record(tmp_path / "record", (1, 2))
    with TranscriptReader(folder) as reader:
        assert reader.read() == lines(1, 2)
        for sealed, first, last in ((1, 3, 4), (3, 5, 9), (5, 10, 10)):
            seal(folder, sealed)
            append(folder, whole(lines(first, last)))
        assert read_all(reader) == lines(3, 10)


@pytest.mark.parametrize("since", [0, 2, 4, 5])
@pytest.mark.parametrize("moment", ["before a part is opened", "before its end is believed"])
def test_sealing_at_the_worst_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: int, moment: str) -> None:
    """More is written, the part is sealed and the next one begun, between two system calls of the reader."""
    folder = record(tmp_path / "record", (1, 3))
    done = False

    def interfere() -> None:
        nonlocal done
        if not done:
            done = True
            append(folder, whole(lines(4, 6)))
            seal(folder, 1)
            append(folder, whole(lines(7, 8)))

    look, read = transcript.parts, os.pread

    def look_and_be_late(folder: Path) -> list[Path]:
        found = look(folder)
        interfere()
        return found

    def read_and_be_late(fd: int, size: int, offset: int) -> bytes:
        data = read(fd, size, offset)
        if not data:
            interfere()
        return data

    with TranscriptReader(folder, since=since) as reader:
        if moment == "before a part is opened":
            monkeypatch.setattr(transcript, "parts", look_and_be_late)
        else:
            monkeypatch.setattr(os, "pread", read_and_be_late)
        found: list[bytes] = []
        for _ in range(5):
            found += reader.read()
    assert done
    assert found == lines(since + 1, 8)


SINCES = (0, 1, 3, 8)


@given(st.lists(st.sampled_from(["event", "event", "half", "seal", "read", "read a little"]), max_size=60))
def test_any_order_of_writing_sealing_and_reading(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    folder = tmp_path_factory.mktemp("record")
    next_seq, first_of_part = 1, 1
    rest = b""
    readers = [TranscriptReader(folder, since=since) for since in SINCES]
    seen: list[list[bytes]] = [[] for _ in SINCES]
    for step in [*steps, "event", "read", "read", "read", "read"]:
        if step == "event" or (step == "seal" and rest):
            append(folder, (rest or line(next_seq)) + b"\n")
            next_seq, rest = next_seq + 1, b""
        elif step == "half" and not rest:
            text = line(next_seq)
            append(folder, text[:20])
            rest = text[20:]
        if step == "seal" and next_seq > first_of_part:
            seal(folder, first_of_part)
            first_of_part = next_seq
        if step.startswith("read"):
            for reader, found in zip(readers, seen, strict=True):
                while more := reader.read(1 << 18 if step == "read" else 1):
                    found += more
                    if step == "read a little":
                        break
    for reader in readers:
        reader.close()
    assert seen == [lines(since + 1, next_seq - 1) for since in SINCES]


def test_a_reader_gives_its_descriptor_back(tmp_path: Path) -> None:
    folder = record(tmp_path / "record", (1, 2), (3, 4))
    before = len(os.listdir("/proc/self/fd"))
    with TranscriptReader(folder) as reader:
        read_all(reader)
        assert len(os.listdir("/proc/self/fd")) == before + 1
    list(iter_lines(folder, 1))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_record_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    (folder / "events.jsonl").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        list(iter_lines(folder))


# ── sparrow-cli's ──


@pytest.mark.parametrize("since", range(6))
def test_a_record_without_numbers_is_numbered_in_its_order(tmp_path: Path, since: int) -> None:
    folder = record(tmp_path / "record", whole([legacy(number) for number in range(1, 5)]))
    found = [json.loads(each) for each in iter_lines(folder, since)]
    assert [fields["seq"] for fields in found] == list(range(since + 1, 5))
    assert [fields["text"] for fields in found] == [str(number) for number in range(since + 1, 5)]
    assert all(list(fields)[:3] == ["type", "run", "seq"] for fields in found)
    assert first_seq(folder) == 1


def test_a_record_without_numbers_in_small_pieces(tmp_path: Path) -> None:
    folder = record(tmp_path / "record", whole([legacy(number) for number in range(1, 5)]))
    with TranscriptReader(folder) as reader:
        assert [json.loads(each)["seq"] for each in read_all(reader, 10)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"role":"a","type":"Message","run":"r"}', b'{"type":"Message","run":"r","seq":7,"role":"a"}'),
        (b'{"type":"Message"}', b'{"type":"Message","run":"","seq":7}'),
        (b'{"type":"Message","seq":3}', b'{"type":"Message","seq":3}'),
        (b"[1]", b"[1]"),
    ],
)
def test_numbering_one_line(before: bytes, after: bytes) -> None:
    assert normalise(before, 7) == after


# ── finding ──


@pytest.mark.parametrize("shape", SHAPES)
def test_the_last_event(tmp_path: Path, shape: str) -> None:
    assert last_event(record(tmp_path / "record", *SHAPES[shape])) == line(12)


def test_the_last_event_where_there_is_none(tmp_path: Path) -> None:
    assert last_event(tmp_path / "none") is None
    assert last_event(record(tmp_path / "empty", b"")) is None
    assert last_event(record(tmp_path / "torn", b'{"type"')) is None


def test_the_last_event_may_be_long(tmp_path: Path) -> None:
    long = line(2, "x" * 100_000)
    assert last_event(record(tmp_path / "record", whole([line(1), long]))) == long


def test_the_first_event(tmp_path: Path) -> None:
    assert first_seq(tmp_path / "none") == 1
    assert first_seq(record(tmp_path / "empty", b"")) == 1
    assert first_seq(record(tmp_path / "one", (1, 3))) == 1
    assert first_seq(record(tmp_path / "many", (7, 9), (10, 12))) == 7


def from_number(number: int, found: bytes) -> bool:
    return int(found[:5]) >= number


@given(st.lists(st.sampled_from([6, 7, 10, 4095, 4096, 4097, 9000]), max_size=8), st.booleans())
def test_lines_are_found_wherever_they_begin(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], torn: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    data = b"".join(b"%05d" % number + b"x" * (size - 6) + b"\n" for number, size in enumerate(sizes))
    path.write_bytes(data + b"99999" * torn)
    fd = os.open(path, os.O_RDONLY)
    try:
        for start, size in zip(starts, sizes, strict=False):
            for offset in {start, start + size // 2, start + size - 1}:
                assert line_start(fd, offset) == start
        for number, start in enumerate(starts):
            assert bisect_lines(fd, functools.partial(from_number, number)) == start
    finally:
        os.close(fd)
