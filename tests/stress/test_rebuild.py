"""The index can be made anew from the transcripts: a supervisor that finds none, or a damaged one, loses no run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress


def _remove(index: Path) -> None:
    index.unlink()


def _scribble(index: Path) -> None:
    index.write_bytes(b"this is no index\n" * 1000)


def _tear(index: Path) -> None:
    """Damage that is found only when the pages are looked at."""
    data = bytearray(index.read_bytes())
    data[4096:] = b"\xaa" * len(data[4096:])
    index.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {"missing": _remove, "no index": _scribble, "torn": _tear}


def _without_use(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    changing = ("cpu_percent", "memory_bytes", "started", "ended", "pid")
    return sorted(
        ({key: row[key] for key in row if key not in changing} for row in rows), key=lambda row: str(row["run"])
    )


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_is_lost_with_the_index(house: House, damage: str) -> None:
    house.configure("[supervisor]\nmax_runs = 1\n")
    ended = house.detach("--name", "first", "--label", "ci", "--", "sh", "-c", "echo out; exit 3")
    house.outcome(ended)
    live = house.detach("--", "sh", "-c", "read line; echo got $line")
    pid = house.pid_of(live)
    eventually(lambda: house.events(live), what="its beginning, which is counted below")
    queued = house.detach("--name", "later", "--", "echo", "ran")
    before = _without_use(house.ps())
    house.sparrow("shutdown", "--keep-runs").ok()
    for suffix in ("-wal", "-shm"):
        house.places.index.with_name(house.places.index.name + suffix).unlink(missing_ok=True)
    DAMAGE[damage](house.places.index)
    house.start()
    assert _without_use(house.ps()) == before
    assert processes.alive(pid)
    house.sparrow("inject", live, "it").ok()
    assert house.outcome(live)["status"] == "completed"
    assert house.printed(live) == "got it\n"
    assert house.outcome(queued)["status"] == "completed"
    assert house.record(ended)["exit_code"] == 3
    log = house.places.log.read_text()
    assert "3 runs were not in the index; they were taken from their transcripts" in log
    aside = list(house.state.glob("index.db.damaged.*"))
    assert bool(aside) is (damage != "missing")
    assert ("the index is damaged" in log) is (damage != "missing")


def test_a_submission_that_was_cut_short_is_not_taken_for_a_run(house: House) -> None:
    points = house.top / "points"
    points.mkdir()
    house.env["SPARROW_FAILPOINTS"] = str(points)
    house.start()
    (points / "submit.specified").write_text("kill")
    house.sparrow("run", "-d", "--", "true")
    eventually((points / "submit.specified.reached").exists, what="the kill")
    house.places.index.unlink(missing_ok=True)
    house.start()
    # The client has made its submission again, and that run may still have to end.
    eventually(lambda: [row for row in house.ps() if row["status"] != "completed"] == [], what="nothing but its run")


def test_a_record_that_cannot_be_read_is_told_of_when_the_index_is_made_anew(house: House) -> None:
    run = house.detach("--", "sh", "-c", "echo out; exit 3")
    house.outcome(run)
    house.sparrow("shutdown").ok()
    record = house.places.transcript(run) / "events.jsonl"
    whole = record.read_bytes()
    record.rename(record.with_suffix(".kept"))
    record.symlink_to(record.with_suffix(".kept"))
    house.places.index.unlink()
    assert house.sparrow("ps", "-a", "--json").ok().rows() == []
    log = house.places.log.read_text()
    assert run in log
    assert "doctor --repair" in log
    house.sparrow("shutdown").ok()
    record.unlink()
    record.write_bytes(whole)
    house.sparrow("doctor", "--repair")
    assert house.record(run)["exit_code"] == 3


def test_a_run_whose_record_is_damaged_is_found_all_the_same_and_a_live_one_ends(house: House) -> None:
    script = ("--", "sh", "-c", "echo up; read line; exit 4")
    runs = {name: house.detach("--name", name, *script) for name in ("inputs", "first", "last", "ended")}
    for run in runs.values():
        house.says(run, "up")
    house.sparrow("inject", runs["ended"], "x").ok()
    house.outcome(runs["ended"])
    house.kill_supervisor()
    house.places.index.unlink()
    for name in ("inputs", "ended"):
        (house.places.transcript(runs[name]) / "inputs.json").write_bytes(b"\0" * 100)
    for name in ("first", "last"):
        record = house.places.transcript(runs[name]) / "events.jsonl"
        lines = record.read_bytes().splitlines(keepends=True)
        damaged = [b"\xff\xfe\n", *lines[1:]] if name == "first" else [*lines, b"\xff\xfe\n"]
        record.write_bytes(b"".join(damaged))
    house.start()
    for name in ("inputs", "first", "last"):
        house.sparrow("inject", runs[name], "x").ok()
        house.sparrow("wait", runs[name])
    assert [house.record(run)["exit_code"] for run in runs.values()] == [4] * 4
    assert [house.record(runs[name])["task"] == "" for name in runs] == [True, False, False, True]
