"""Transcripts are appended to in whole lines or not at all, and mended when they are opened."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow_mp.events import Error, Outcome, RunFinished, decode
from sparrow_mp.paths import Places
from sparrow_mp.transcript import iter_lines
from sparrow_supervisor.recorder import Recorder

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"
OTHER = "2c1d8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"


def places(folder: Path) -> Places:
    return Places(folder / "state", folder / "runtime", folder / "config.toml")


def stamp(seq: int) -> str:
    return f"2026-11-22T12:00:00.{seq:06}Z"


def line(seq: int, text: str = "x") -> bytes:
    return f'{{"type":"Message","run":"{RUN}","seq":{seq},"ts":"{stamp(seq)}","role":"a","text":"{text}"}}\n'.encode()


def lines(first: int, last: int) -> bytes:
    return b"".join(line(seq) for seq in range(first, last + 1))


@pytest.fixture(params=["batch", "always", "never"])
def recorder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(places(tmp_path), request.param)
    yield recorder
    recorder.close_all()


def written(folder: Path, run: str = RUN) -> bytes:
    return (places(folder).transcript(run) / "events.jsonl").read_bytes()


def left_behind(folder: Path, data: bytes) -> None:
    """A transcript that an earlier supervisor left so."""
    record = places(folder).transcript(RUN)
    record.mkdir(parents=True)
    (record / "events.jsonl").write_bytes(data)


# ── appending ──


def test_lines_are_appended_as_they_came(recorder: Recorder, tmp_path: Path) -> None:
    record = recorder.open(RUN)
    assert (record.seq, record.ts, recorder.seq(RUN)) == (0, "", 0)
    assert recorder.append(RUN, lines(1, 3), 3, stamp(3))
    assert recorder.append(RUN, lines(4, 4), 4, stamp(4))
    assert recorder.append(OTHER, line(1), 1, stamp(1))
    assert (record.seq, record.ts, recorder.seq(RUN)) == (4, stamp(4), 4)
    assert written(tmp_path) == lines(1, 4)
    assert written(tmp_path, OTHER) == line(1)


def test_a_transcript_is_private(recorder: Recorder, tmp_path: Path) -> None:
    recorder.open(RUN)
    folder = places(tmp_path).transcript(RUN)
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "events.jsonl").stat().st_mode & 0o777 == 0o600


def test_opening_again_is_the_same(recorder: Recorder) -> None:
    assert recorder.open(RUN) is recorder.open(RUN)


def test_our_own_events_take_the_next_number(recorder: Recorder, tmp_path: Path) -> None:
    recorder.append(RUN, lines(1, 2), 2, stamp(2))
    added = recorder.add(RUN, Error(message="interrupted"))
    last = recorder.add(RUN, RunFinished(outcome=Outcome(status="interrupted")))
    assert added is not None
    assert last is not None
    assert written(tmp_path) == lines(1, 2) + added + last
    error, finished = decode(added), decode(last)
    assert (error.run, error.seq, finished.seq) == (RUN, 3, 4)
    assert stamp(2) < error.ts <= finished.ts
    assert recorder.seq(RUN) == 4


def test_our_own_events_never_go_back_in_time(recorder: Recorder) -> None:
    future = "2999-01-01T00:00:00.000000Z"
    recorder.append(RUN, line(1), 1, future)
    added = recorder.add(RUN, Error(message="interrupted"))
    assert added is not None
    assert decode(added).ts == future


def test_a_run_that_has_ended_has_no_number_and_no_descriptor(recorder: Recorder, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    recorder.append(RUN, line(1), 1, stamp(1))
    recorder.close(RUN)
    recorder.close(RUN)
    assert recorder.seq(RUN) == 0
    wait_for(lambda: len(os.listdir("/proc/self/fd")) == len(before))
    assert recorder.open(RUN).seq == 1
    recorder.close_all()
    wait_for(lambda: len(os.listdir("/proc/self/fd")) == len(before))
    assert written(tmp_path) == line(1)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.parametrize("fsync", ["batch", "always", "never"])
def test_what_is_appended_is_forced_to_the_disk_as_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    recorder = Recorder(places(tmp_path), fsync)
    fd = recorder.open(RUN).fd
    recorder.append(RUN, line(1), 1, stamp(1))
    if fsync == "always":
        assert synced == [fd]
    if fsync == "batch":
        wait_for(lambda: synced == [fd])
        recorder.append(RUN, line(2), 2, stamp(2))
        wait_for(lambda: synced == [fd, fd])
    recorder.close_all()
    assert bool(synced) is (fsync != "never")


def test_all_is_on_the_disk_when_the_supervisor_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    recorder = Recorder(places(tmp_path), "batch")
    fds = [recorder.open(run).fd for run in (RUN, OTHER)]
    for run in (RUN, OTHER):
        recorder.append(run, line(1), 1, stamp(1))
    recorder.close_all()
    assert set(synced) == set(fds)


# ── mending ──


TORN = {
    "nothing": b"",
    "half a line": line(4)[:30],
    "a line without its end": line(4)[:-1],
    "one byte": b"{",
    "NULs": b"\0" * 5000,
    "NULs and a line break": b"\0" * 100 + b"\n",
    "half a line and NULs": line(4)[:30] + b"\0" * 4096,
    "half a line with a line break": line(4)[:30] + b"\n",
    "blank lines": b"\n\n",
    "two torn lines": line(4)[:30] + b"\n" + line(5)[:20],
    "bytes that are no text": b"\xff\xfe\n",
    "an object that is no event": b"{}\n",
    "an event without a number": b'{"type":"Message"}\n',
    "a long torn line": b'{"type":"Message","text":"' + b"x" * 100_000,
}


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("whole", [0, 1, 3])
def test_a_torn_end_is_cut_off(recorder: Recorder, tmp_path: Path, torn: str, whole: int) -> None:
    left_behind(tmp_path, lines(1, whole) + TORN[torn])
    record = recorder.open(RUN)
    assert (record.seq, record.ts) == (whole, stamp(whole) if whole else "")
    assert written(tmp_path) == lines(1, whole)
    assert recorder.append(RUN, line(whole + 1), whole + 1, stamp(whole + 1))
    assert written(tmp_path) == lines(1, whole + 1)


def test_a_torn_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left_behind(tmp_path, lines(1, 3) + line(4)[:30])
    recorder = Recorder(places(tmp_path), "never")
    recorder.open(RUN)
    recorder.close_all()
    assert f"run {RUN}: its transcript had a torn end, which was cut off after event 3" in caplog.text


def test_a_record_that_is_whole_is_not_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left_behind(tmp_path, lines(1, 3))
    recorder = Recorder(places(tmp_path), "never")
    recorder.open(RUN)
    recorder.close_all()
    assert not caplog.records
    assert written(tmp_path) == lines(1, 3)


@given(st.integers(0, 5), st.data())
def test_wherever_it_was_torn(tmp_path_factory: pytest.TempPathFactory, whole: int, data: st.DataObject) -> None:
    """Cut at any byte, with any number of NULs after it."""
    folder = tmp_path_factory.mktemp("torn")
    every = lines(1, whole)
    cut = data.draw(st.integers(0, len(every)))
    left_behind(folder, every[:cut] + b"\0" * data.draw(st.sampled_from([0, 1, 4096])))
    recorder = Recorder(places(folder), "never")
    kept = every[:cut].count(b"\n")
    assert recorder.open(RUN).seq == kept
    recorder.close_all()
    assert written(folder) == lines(1, kept)


# ── a full disk ──


def fill(disk: Path) -> None:
    """Leave not a page."""
    with contextlib.suppress(OSError), open(disk / "full", "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


def test_a_full_disk_changes_nothing_and_all_goes_on_when_there_is_space(small_disk: Path) -> None:
    recorder = Recorder(places(small_disk), "batch")
    recorder.open(RUN)
    (small_disk / "other").write_bytes(b"x" * 50_000)
    seq = 0
    while True:
        batch = b"".join(line(number, "x" * 4000) for number in range(seq + 1, seq + 4))
        if not recorder.append(RUN, batch, seq + 3, stamp(seq + 3)):
            break
        seq += 3
    assert seq > 0
    for _ in range(3):
        assert not recorder.append(RUN, batch, seq + 3, stamp(seq + 3))
        assert recorder.seq(RUN) == seq
        found = list(iter_lines(places(small_disk).transcript(RUN)))
        assert [json.loads(each)["seq"] for each in found] == list(range(1, seq + 1))
        assert written(small_disk).endswith(b"\n")
    assert recorder.add(RUN, Error(message="x" * 20_000)) is None
    assert recorder.seq(RUN) == seq
    fill(small_disk)
    assert recorder.add(RUN, Error(message="x" * 5000)) is None
    assert recorder.seq(RUN) == seq
    (small_disk / "other").unlink()
    assert recorder.append(RUN, batch, seq + 3, stamp(seq + 3))
    assert recorder.add(RUN, Error(message="interrupted")) is not None
    found = list(iter_lines(places(small_disk).transcript(RUN)))
    assert [json.loads(each)["seq"] for each in found] == list(range(1, seq + 5))
    recorder.close_all()


# ── sealing ──


def part_names(folder: Path) -> list[str]:
    return sorted(path.name for path in places(folder).transcript(RUN).iterdir())


def test_a_part_that_has_grown_long_is_sealed(tmp_path: Path) -> None:
    recorder = Recorder(places(tmp_path), "batch", part_bytes=3 * len(line(1)))
    for seq in range(1, 8):
        assert recorder.append(RUN, line(seq), seq, stamp(seq))
    assert recorder.append(RUN, lines(8, 20), 20, stamp(20)), "what came together stays together"
    assert recorder.append(RUN, line(21), 21, stamp(21))
    recorder.close_all()
    assert part_names(tmp_path) == [f"events.{first}.jsonl" for first in (1, 4, 7, 8)] + ["events.jsonl"]
    assert b"".join(each + b"\n" for each in iter_lines(places(tmp_path).transcript(RUN))) == lines(1, 21)


def test_a_sealed_part_gives_its_descriptor_back(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for fsync in ("batch", "always", "never"):
        recorder = Recorder(places(tmp_path), fsync, part_bytes=1)
        first = recorder.open(RUN).seq + 1
        for seq in range(first, first + 10):
            assert recorder.append(RUN, line(seq), seq, stamp(seq))
        recorder.close_all()
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_what_is_sealed_is_forced_to_the_disk_before_what_follows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    closed: list[int] = []
    close = os.close

    def closing(fd: int) -> None:
        closed.append(fd)
        close(fd)

    monkeypatch.setattr(os, "fdatasync", synced.append)
    recorder = Recorder(places(tmp_path), "batch", part_bytes=1)
    monkeypatch.setattr(os, "close", closing)
    fds = []
    for seq in range(1, 5):
        recorder.append(RUN, line(seq), seq, stamp(seq))
        fds.append(recorder.open(RUN).fd)
    recorder.close_all()
    order = [synced.index(fd) for fd in fds]
    assert order == sorted(order)
    assert set(fds) <= set(closed)


HALF_SEALED = {
    "not begun": [("events.jsonl", 1, 5)],
    "the new one made": [("events.jsonl", 1, 5), ("events.jsonl.new", 1, 0)],
    "the old one renamed": [("events.1.jsonl", 1, 5), ("events.jsonl.new", 1, 0)],
    "the new one lost": [("events.1.jsonl", 1, 5)],
    "done": [("events.1.jsonl", 1, 5), ("events.jsonl", 1, 0)],
    "begun": [("events.1.jsonl", 1, 4), ("events.jsonl", 5, 5)],
    "the third time": [("events.1.jsonl", 1, 2), ("events.3.jsonl", 3, 5), ("events.jsonl.new", 1, 0)],
    "an empty part": [("events.1.jsonl", 1, 5), ("events.6.jsonl", 1, 0), ("events.jsonl", 1, 0)],
}


@pytest.mark.parametrize("torn", [b"", b'{"type":"Mess', b"\0" * 5000])
@pytest.mark.parametrize("stage", HALF_SEALED)
def test_wherever_a_sealing_was_cut_short_it_goes_on(tmp_path: Path, stage: str, torn: bytes) -> None:
    folder = places(tmp_path).transcript(RUN)
    folder.mkdir(parents=True)
    for name, first, last in HALF_SEALED[stage]:
        (folder / name).write_bytes(lines(first, last) + (torn if last == 5 else b""))
    recorder = Recorder(places(tmp_path), "never", part_bytes=len(line(1)))
    record = recorder.open(RUN)
    assert (record.seq, record.ts) == (5, stamp(5))
    assert not (folder / "events.jsonl.new").exists()
    for seq in (6, 7, 8):
        assert recorder.append(RUN, line(seq), seq, stamp(seq))
    recorder.close_all()
    assert b"".join(each + b"\n" for each in iter_lines(folder)) == lines(1, 8)


def test_a_full_disk_keeps_a_part_from_being_sealed_and_nothing_is_lost(small_disk: Path) -> None:
    recorder = Recorder(places(small_disk), "batch", part_bytes=2 * len(line(1)))
    recorder.open(RUN)
    (small_disk / "other").write_bytes(b"x" * 50_000)
    fill(small_disk)
    seq = 0
    while recorder.append(RUN, line(seq + 1), seq + 1, stamp(seq + 1)):
        seq += 1
    found = list(iter_lines(places(small_disk).transcript(RUN)))
    assert [json.loads(each)["seq"] for each in found] == list(range(1, seq + 1))
    (small_disk / "other").unlink()
    for more in range(seq + 1, seq + 9):
        assert recorder.append(RUN, line(more), more, stamp(more))
    found = list(iter_lines(places(small_disk).transcript(RUN)))
    assert [json.loads(each)["seq"] for each in found] == list(range(1, seq + 9))
    recorder.close_all()


@pytest.mark.parametrize("failing", ["events.jsonl", "events.jsonl.new"])
def test_a_sealing_that_failed_once_is_done_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    recorder = Recorder(places(tmp_path), "never", part_bytes=1)
    assert recorder.append(RUN, line(1), 1, stamp(1))
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name == failing:
            raise OSError(errno.EIO, "broken")
        return rename(path, target)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", fails)
        assert not recorder.append(RUN, line(2), 2, stamp(2))
    assert recorder.append(RUN, line(2), 2, stamp(2))
    recorder.close_all()
    assert b"".join(each + b"\n" for each in iter_lines(places(tmp_path).transcript(RUN))) == lines(1, 2)


def test_a_part_that_somebody_deleted_does_not_block_its_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(places(tmp_path), "never", part_bytes=1)
    assert recorder.append(RUN, line(1), 1, stamp(1))
    (places(tmp_path).transcript(RUN) / "events.jsonl").unlink()
    assert recorder.append(RUN, line(2), 2, stamp(2))
    recorder.close_all()
    assert written(tmp_path) == line(2)
    assert f"run {RUN}: somebody deleted events.jsonl; its events from 1 on are lost" in caplog.text


@pytest.mark.parametrize("part_bytes", [0, 1])
@pytest.mark.parametrize("gone", ["it", "its folder", "all folders", "another in its place"])
def test_what_somebody_deleted_is_begun_anew(
    recorder: Recorder, tmp_path: Path, part_bytes: int, gone: str, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.part_bytes = part_bytes
    folder = places(tmp_path).transcript(RUN)
    assert recorder.append(RUN, lines(1, 2), 2, stamp(2))
    assert recorder.append(RUN, line(3), 3, stamp(3))
    if gone == "its folder":
        shutil.rmtree(folder)
    elif gone == "all folders":
        shutil.rmtree(places(tmp_path).state)
    else:
        (folder / "events.jsonl").unlink()
        if gone == "another in its place":
            (folder / "events.jsonl").write_bytes(line(3, "edited"))
    assert recorder.append(RUN, line(4), 4, stamp(4))
    assert recorder.append(RUN, line(5), 5, stamp(5))
    recorder.close_all()
    kept = {"it": [1, 2] if part_bytes else [], "another in its place": [1, 2, 3] if part_bytes else [3]}.get(gone, [])
    assert [json.loads(each)["seq"] for each in iter_lines(folder)] == [*kept, 4, 5]
    told = [message for message in caplog.messages if f"run {RUN}: somebody deleted" in message]
    assert len(told) == (gone != "another in its place")


def test_a_damaged_first_line_does_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    left_behind(tmp_path, b"junk\n" + lines(2, 3))
    recorder = Recorder(places(tmp_path), "never")
    record = recorder.open(RUN)
    recorder.close_all()
    assert (record.seq, record.first) == (3, 2)
