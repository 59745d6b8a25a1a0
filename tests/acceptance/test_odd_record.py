"""A live run whose record cannot be read as it should: nobody kills it, and nobody else notices."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.support import processes
from tests.support.house import House

pytestmark = pytest.mark.acceptance


def begin(house: House) -> tuple[str, int]:
    run = house.detach("--", "sh", "-c", "seq 300; echo up; read line; exit 4")
    house.says(run, "up")
    return run, house.pid_of(run)


def test_a_line_that_is_no_event_counts_for_nothing(house: House):
    house.may_complain = True
    run, pid = begin(house)
    house.kill_supervisor()
    record = house.places.transcript(run) / "events.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    header, _, _ = lines[-1].partition(b',"stream"')
    record.write_bytes(b"".join([lines[0], b"\xff\xfe nonsense\n", *lines[2:-1], header + b',"stream":7}\n']))
    house.start()
    assert processes.alive(pid)
    house.sparrow("inject", run, "x").ok()
    house.sparrow("wait", run)
    assert house.record(run)["exit_code"] == 4


def test_a_live_run_whose_record_somebody_deleted_goes_on(house: House):
    house.may_complain = True
    run, _ = begin(house)
    shutil.rmtree(house.places.transcript(run))
    house.sparrow("inject", run, "x").ok()
    house.sparrow("wait", run)
    assert house.record(run)["exit_code"] == 4
    assert "somebody deleted its transcript" in (house.places.state / "supervisor.log").read_text()
    assert b'"RunFinished"' in (house.places.transcript(run) / "events.jsonl").read_bytes().splitlines()[-1]


def test_a_damaged_part_stops_nothing(house: House):
    house.configure("[supervisor]\npart_bytes = 4096\n")
    run = house.detach("--", "sh", "-c", "seq 300; echo up; read line; seq 300; echo more; read line; exit 4")
    house.says(run, "up")
    house.sparrow("inject", run, "x").ok()
    house.says(run, "more")  # what is recorded at once is never divided: the first part is sealed when this comes
    pid = house.pid_of(run)
    house.kill_supervisor()
    part = next(house.places.transcript(run).glob("events.*.jsonl"))
    size = part.stat().st_size
    with part.open("r+b") as file:
        file.seek(size - 100)
        file.write(b"\0" * 100)
    house.start()
    assert processes.alive(pid)
    house.sparrow("inject", run, "x").ok()
    house.sparrow("wait", run)
    assert house.record(run)["exit_code"] == 4


def test_a_run_that_cannot_be_recorded_is_left_alone_and_told_of(house: House):
    house.may_complain = True
    run, pid = begin(house)
    other, _ = begin(house)
    house.kill_supervisor()
    record = house.places.transcript(run) / "events.jsonl"
    record.rename(record.with_suffix(".kept"))
    record.symlink_to("nowhere")
    house.sparrow("ps").ok()
    assert processes.alive(pid)
    assert any(run[:8] in problem and "--repair" in problem for problem in house.status()["problems"])
    house.sparrow("kill", run).refused(1, "could not be taken over", "doctor --repair")
    house.sparrow("inject", other, "x").ok()
    assert house.outcome(other)["exit_code"] == 4
    house.sparrow("shutdown", "--keep-runs").ok()
    assert processes.alive(pid)
    os.replace(record.with_suffix(".kept"), record)
    house.start()
    house.sparrow("inject", run, "x").ok()
    assert house.outcome(run)["exit_code"] == 4


def test_shutdown_ends_it_too(house: House):
    house.may_complain = True
    run, pid = begin(house)
    house.kill_supervisor()
    record = house.places.transcript(run) / "events.jsonl"
    record.rename(record.with_suffix(".kept"))
    record.symlink_to("nowhere")
    house.sparrow("ps").ok()
    house.sparrow("shutdown", "--now").ok()
    assert not processes.alive(pid)
    os.replace(record.with_suffix(".kept"), record)
    house.start()
    assert house.outcome(run)["status"] == "crashed"
