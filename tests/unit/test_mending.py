"""What is wrong with a transcript is found, and mended without throwing anything good away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow_mp.events import Outcome
from sparrow_mp.transcript import iter_lines, write_meta
from sparrow_supervisor.mending import examine, mend, read_meta

pytestmark = pytest.mark.unit

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"


def line(seq: int, kind: str = "Message") -> bytes:
    head = f'{{"type":"{kind}","run":"{RUN}","seq":{seq},"ts":"2026-11-22T12:00:00.{seq:06}Z"'
    tail = ',"role":"a","text":"x"}' if kind == "Message" else ',"outcome":{"status":"completed"}}'
    return (head + tail).encode() + b"\n"


def lines(first: int, last: int) -> bytes:
    return b"".join(line(seq) for seq in range(first, last + 1))


def record(top: Path, **parts: bytes) -> Path:
    """A transcript; ``events`` is the growing part, ``p5`` the sealed one from 5."""
    folder = top / RUN
    folder.mkdir()
    for name, data in parts.items():
        (folder / ("events.jsonl" if name == "events" else f"events.{name[1:]}.jsonl")).write_bytes(data)
    return folder


def seqs(folder: Path) -> list[int]:
    return [json.loads(each)["seq"] for each in iter_lines(folder)]


def mended(folder: Path) -> None:
    mend(folder, examine(folder))
    again = examine(folder)
    assert not again.faults, again
    assert not again.damaged


BAD = {
    "half a line": line(4)[:30],
    "NULs": b"\0" * 5000,
    "NULs and a line break": b"\0" * 100 + b"\n",
    "no text": b"\xff\xfe\n",
    "no event": b"{}\n",
    "another run's": line(4).replace(b"1b0c", b"2b0c"),
    "a repeat": line(2),
    "blank": b"\n",
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_event_is_taken_out_and_kept(tmp_path: Path, bad: str) -> None:
    end = b"" if BAD[bad].endswith(b"\n") else b"\n"
    data = lines(1, 3) + BAD[bad] + end + lines(4, 6) + BAD[bad]
    folder = record(tmp_path, events=data)
    found = examine(folder)
    assert found.faults == ["events.jsonl has 2 lines that are no event"]
    assert not found.losses
    mended(folder)
    assert (folder / "events.jsonl").read_bytes() == lines(1, 6)
    assert (folder / "events.jsonl.damaged").read_bytes() == data


@given(st.lists(st.one_of(st.integers(1, 12), st.sampled_from(sorted(BAD))), max_size=12), st.booleans())
def test_every_good_event_is_kept(tmp_path_factory: pytest.TempPathFactory, pieces: list[int | str], cut: bool) -> None:
    """Whatever lies in between: the events that rise are there afterwards, and only they.

    One that jumps ahead is none of them where the next event goes on from the one before it.
    """
    data = b"".join(line(piece) if isinstance(piece, int) else BAD[piece].rstrip(b"\n") + b"\n" for piece in pieces)
    data = data[:-1] if cut else data
    folder = record(tmp_path_factory.mktemp("record"), events=data)
    whole = pieces[:-1] if cut else pieces
    numbers = [2 if piece == "a repeat" else piece for piece in whole]
    events = [piece for piece in numbers if isinstance(piece, int)]
    kept: list[int] = []
    for seq, following in zip(events, [*events[1:], 0], strict=False):
        last = kept[-1] if kept else 0
        if seq == last + 1 or (seq > last and following not in (last + 1, last + 2)):
            kept.append(seq)
    mended(folder)
    assert [json.loads(each)["seq"] for each in (folder / "events.jsonl").read_bytes().splitlines()] == kept
    missing = [seq for seq in range(1, (kept or [0])[-1]) if seq not in kept]
    assert bool(examine(folder).losses) is bool(missing)


@pytest.mark.parametrize(
    ("sealed", "growing", "kept", "losses"),
    [
        ([], [1, 2, 999, 3, 4], [1, 2, 3, 4], []),
        ([], [1, 2, 999, 4, 5], [1, 2, 4, 5], ["event 3 is missing"]),
        ([], [999, 1, 2], [1, 2], []),
        ([], [1, 999, 2, 999, 3], [1, 2, 3], []),
        ([], [1, 2, 5, 6], [1, 2, 5, 6], ["events 3 to 4 are missing"]),
        ([], [1, 2, 5], [1, 2, 5], ["events 3 to 4 are missing"]),
        ([1, 2, 999], [3, 4], [1, 2, 3, 4], []),
        ([1, 2], [999, 3, 4], [1, 2, 3, 4], []),
        ([1, 2], [5, 6], [1, 2, 5, 6], ["events 3 to 4 are missing"]),
    ],
)
def test_one_number_that_jumps_costs_no_other_event(
    tmp_path: Path, sealed: list[int], growing: list[int], kept: list[int], losses: list[str]
) -> None:
    parts = {"p1": b"".join(map(line, sealed))} if sealed else {}
    folder = record(tmp_path, **parts, events=b"".join(map(line, growing)))
    assert examine(folder).losses == losses
    mended(folder)
    assert seqs(folder) == kept
    assert examine(folder).losses == losses


def test_each_time_the_damaged_file_is_kept_under_another_name(tmp_path: Path) -> None:
    folder = record(tmp_path, events=line(1) + b"junk\n")
    for name in ("events.jsonl.damaged", "events.jsonl.damaged.2", "events.jsonl.damaged.3"):
        assert mend(folder, examine(folder)) == [name]
        damaged = (folder / name).read_bytes()
        assert damaged.endswith(b"junk\n")
        (folder / "events.jsonl").write_bytes(damaged)


def test_a_pipe_in_the_place_of_a_part_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = record(tmp_path)
    os.mkfifo(folder / "events.jsonl")
    os.mkfifo(folder / "meta.json")
    with pytest.raises(OSError, match="not a regular file"):
        examine(folder)
    assert read_meta(folder) is None


def test_a_hole_is_told_and_stays(tmp_path: Path) -> None:
    folder = record(tmp_path, p1=lines(1, 3), events=lines(6, 7) + lines(9, 9))
    found = examine(folder)
    assert found.losses == ["events 4 to 5 are missing", "event 8 is missing"]
    assert not found.faults
    assert seqs(folder) == [1, 2, 3, 6, 7, 9]


def test_damage_in_sealed_parts(tmp_path: Path) -> None:
    folder = record(tmp_path, p1=lines(1, 2) + b"\0" * 50, p3=b"junk\n" + lines(3, 5), events=line(6) + b"{")
    assert len(examine(folder).faults) == 3
    mended(folder)
    assert seqs(folder) == [1, 2, 3, 4, 5, 6]
    assert len(list(folder.glob("*.damaged"))) == 3


def test_a_sealing_that_was_cut_short(tmp_path: Path) -> None:
    folder = record(tmp_path, p1=lines(1, 5))
    (folder / "events.2.jsonl").write_bytes(b"")
    (folder / "events.jsonl.new").touch()
    mended(folder)
    assert (folder / "events.jsonl").read_bytes() == b""
    assert not (folder / "events.jsonl.new").exists()
    assert seqs(folder) == [1, 2, 3, 4, 5]


def test_an_end_without_a_summary(tmp_path: Path) -> None:
    folder = record(tmp_path, p1=lines(1, 2), events=line(3, "RunFinished"))
    mended(folder)
    meta = read_meta(folder)
    assert meta is not None
    assert (meta.ended, meta.events, meta.outcome.status) == ("2026-11-22T12:00:00.000003Z", 3, "completed")


@pytest.mark.parametrize("junk", [b"", b"\0" * 10, b"{}"])
def test_a_summary_that_cannot_be_read(tmp_path: Path, junk: bytes) -> None:
    folder = record(tmp_path, events=line(1) + line(2, "RunFinished"))
    (folder / "meta.json").write_bytes(junk)
    mended(folder)
    assert read_meta(folder) is not None


def test_a_summary_gives_back_an_end_that_was_torn_off(tmp_path: Path) -> None:
    folder = record(tmp_path, events=lines(1, 3) + line(4, "RunFinished")[:40])
    write_meta(folder, RUN, "2026-11-22T12:00:09.000000Z", 4, Outcome(status="failed", exit_code=3))
    mended(folder)
    last = msgspec.json.decode(list(iter_lines(folder))[-1])
    assert (last["type"], last["seq"], last["outcome"]["exit_code"]) == ("RunFinished", 4, 3)
    assert examine(folder).losses == []


def test_what_is_whole_is_not_touched(tmp_path: Path) -> None:
    folder = record(tmp_path, p1=lines(1, 3), events=lines(4, 6))
    assert examine(folder).faults == examine(folder).losses == []


def test_a_record_of_sparrow_cli_is_only_read(tmp_path: Path) -> None:
    folder = record(tmp_path, events=b'{"type":"Message","run":"x","role":"a","text":"1"}\nnot json\n')
    found = examine(folder)
    assert found.legacy
    assert not found.faults
