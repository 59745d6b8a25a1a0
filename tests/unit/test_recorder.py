"""Transcripts are appended to in whole lines or not at all, and mended when they are opened."""

from __future__ import annotations

import contextlib
import json
import os
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
