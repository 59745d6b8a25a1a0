"""`sparrow doctor` finds what is damaged of all that is recorded, and `--repair` mends it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.house import Done, House

pytestmark = pytest.mark.acceptance


def _told(done: Done, check: str) -> list[dict[str, Any]]:
    return [row for row in done.rows() if row["check"] == check]


def _ended(house: House, text: str) -> str:
    run = house.detach("--", "sh", "-c", f"for i in 1 2 3; do echo {text} $i; done; exit 3")
    house.outcome(run)
    return run


def test_the_index_comes_back_from_the_transcripts_alone(house: House) -> None:
    runs = [_ended(house, word) for word in ("one", "two", "three")]
    before = house.ps()
    house.sparrow("shutdown").ok()
    house.places.index.unlink()
    found = house.sparrow("doctor", "--json")
    assert found.code == 1
    assert _told(found, "index")[0]["remedy"] == "sparrow doctor --repair"
    repaired = house.sparrow("doctor", "--repair", "--json").ok()
    assert "made anew" in _told(repaired, "index")[0]["message"]
    assert house.sparrow("doctor", "--json").ok().rows()[-1]["message"] == "3 runs, each with its transcript"
    times = ("started", "ended")
    assert [{k: row[k] for k in row if k not in times} for row in house.ps()] == [
        {k: row[k] for k in row if k not in times} for row in before
    ]
    assert [row["run"] for row in before] == runs


def test_damage_is_told_and_mended(house: House) -> None:
    torn, summary, whole = (_ended(house, word) for word in ("torn", "summary", "whole"))
    before = {run: house.events(run) for run in (torn, summary, whole)}
    live = house.detach("--", "sh", "-c", "read line")
    house.pid_of(live)
    busy = house.sparrow("doctor", "--repair", "--json")
    assert busy.code == 1
    assert "sparrow shutdown --keep-runs" in _told(busy, "repair")[0]["remedy"]
    house.sparrow("shutdown", "--keep-runs").ok()
    path = house.places.transcript(torn) / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\0" * 4096 + b"\n", *lines[2:], b'{"type":']))
    (house.places.transcript(summary) / "meta.json").unlink()
    found = house.sparrow("doctor", "--json")
    assert found.code == 1
    assert "2 lines that are no event" in _told(found, f"run {torn[:8]}")[0]["message"]
    assert "no meta.json" in _told(found, f"run {summary[:8]}")[0]["message"]
    assert not _told(found, f"run {whole[:8]}")
    for command in (["logs"], ["logs", "--json"], ["logs", "--since", "1"], ["replay", "--speed", "0"]):
        assert "bug in sparrow" not in house.sparrow(*command, torn).err
    intact = path.read_bytes()
    path.write_bytes(intact + b"\xff\xfe\n")
    house.sparrow("logs", torn).refused(1, "is damaged after event", "sparrow doctor --repair")
    path.write_bytes(intact)
    repaired = house.sparrow("doctor", "--repair").ok()
    assert "mended" in repaired.out
    assert "events.jsonl.damaged" in repaired.out
    house.sparrow("doctor").ok()
    assert {run: house.events(run) for run in before} == before
    meta = json.loads((house.places.transcript(summary) / "meta.json").read_bytes())
    assert (meta["run"], meta["outcome"]["exit_code"]) == (summary, 3)
    house.sparrow("inject", live, "it").ok()
    assert house.outcome(live)["status"] == "completed"
