"""Jobs that are edited by hand, that fire when files change, and that keep their word over a crash."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.house import House
from tests.support.stress import Figure
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress


def job(house: House, name: str) -> dict[str, Any]:
    (row,) = [row for row in house.sparrow("schedule", "list", "--json").ok().rows() if row["job"] == name]
    return row


def runs_of(house: House, name: str) -> list[dict[str, Any]]:
    return [row for row in house.ps() if row.get("job") == name]


def write_jobs(house: House, text: str) -> None:
    new = house.state / "new"
    new.write_text(text)
    new.rename(house.places.jobs)


def _fired(house: House, name: str) -> str:
    """The run of a job that fires; empty where there is no such job yet."""
    return house.sparrow("schedule", "fire", name).out.strip()


def edited_by_hand(house: House) -> str:
    return house.places.jobs.read_text()


def test_a_life_with_jobs(house: House, figure: Figure) -> None:
    """One house for much, since each supervisor takes its time."""
    house.start()
    house.sparrow("schedule", "add", "talk", "--cron", "0 0 1 1 *", "--", "sleep", "60").ok()
    _edit_by_hand(house)
    _keep_its_word_over_a_crash(house)
    figure("jobs: edited by hand, fired by files and kept over a crash and a lost index as they say")


def _edit_by_hand(house: House) -> None:
    good = edited_by_hand(house)
    write_jobs(house, good + '\n[jobs.talk]\ntask = "x"\n')
    problem = eventually(
        lambda: [p for p in house.status()["problems"] if "jobs.toml" in p], what="the bad edit in status"
    )[0]
    assert "line" in problem
    assert "there is a job `talk` already" in problem
    assert house.sparrow("schedule", "list").ok().err.count("line") == 1
    assert "there is a job `talk` already" in house.sparrow("doctor").out
    refused = house.sparrow("schedule", "pause", "talk")
    assert refused.code == 2
    assert "line" in refused.err
    run = house.sparrow("schedule", "fire", "talk").ok().out.strip()  # as it was before, it is still in force
    house.sparrow("kill", "--now", run).ok()
    (house.work / "in").mkdir()
    write_jobs(
        house,
        f'[jobs.seen]\ntask = "cat in/*.txt; echo more >> in/own.txt"\ncwd = "{house.work}"\nwatch = ["in/**/*.txt"]\n'
        'overlap = "queue"\n',
    )
    eventually(lambda: not house.status()["problems"], what="an end of the problem")
    count = 0

    def touched() -> bool:
        nonlocal count
        count += 1
        house.write("in/a.txt", f"{count}\n")
        return bool(runs_of(house, "seen"))

    eventually(touched, what="a run for a change")
    eventually(
        lambda: "for ever" in job(house, "seen").get("not_fired", {}).get("reason", ""), what="the end of the echo"
    )
    settled = len(runs_of(house, "seen"))
    house.write("in/no.md", "not mine")
    house.sparrow("ps").ok()
    assert len(runs_of(house, "seen")) == settled


def _keep_its_word_over_a_crash(house: House) -> None:
    write_jobs(house, '[jobs.queued]\ntask = "sleep 60"\ncron = "0 0 1 1 *"\noverlap = "queue"\n')
    first = eventually(lambda: _fired(house, "queued"), what="the new job")
    second = house.sparrow("schedule", "fire", "queued").ok().out.strip()
    assert job(house, "queued")["waiting"] == second
    house.kill_supervisor()
    house.start()
    assert [row["run"] for row in runs_of(house, "queued")] == [first]
    house.sparrow("kill", "--now", first).ok()
    eventually(lambda: len(runs_of(house, "queued")) == 2, what="the one that waited")
    assert runs_of(house, "queued")[-1]["run"] == second
    house.sparrow("kill", "--now", second)
    house.sparrow("shutdown", "--now").ok()
    house.places.index.unlink()
    house.start()
    assert {row["run"] for row in runs_of(house, "queued")} == {first, second}
