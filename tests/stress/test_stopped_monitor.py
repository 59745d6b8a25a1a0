"""A run whose monitor is stopped keeps nobody else waiting, and can be ended."""

from __future__ import annotations

import signal

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.stress import Figure
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress

FAMILY = "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo up; wait"


def test_everything_answers_while_a_monitor_is_stopped_and_kill_now_ends_its_run(house: House, figure: Figure):
    run, other = house.detach("--", "sh", "-c", FAMILY), house.detach("--", "sh", "-c", "read line; echo got $line")
    house.says(run, "up")
    monitor, main = house.monitor_of(run), house.pid_of(run)

    def sleepers() -> list[int]:
        return [pid for pid in house.processes() if processes.title(pid) == "sleep 1000"]

    eventually(lambda: len(sleepers()) == 4, what="the run's processes")
    family = [monitor, main, *sleepers()]
    house.known.update(family)
    processes.kill(monitor, signal.SIGSTOP)
    eventually(lambda: processes.state(monitor) == "T", what="a stopped monitor")

    assert house.status()["runs"]["running"] == 2
    assert {row["run"]: row["status"] for row in house.ps()} == {run: "running", other: "running"}
    house.sparrow("inject", other, "a word").ok()
    assert house.outcome(other)["status"] == "completed"
    assert house.sparrow("run", "--", "echo", "on").ok().out == "on\n"
    assert processes.state(monitor) == "T", "it was to be stopped all the while"

    house.sparrow("kill", "--now", run).ok()
    outcome = house.outcome(run)
    assert (outcome["status"], outcome["forced"]) == ("interrupted", True)
    assert "up" in house.printed(run)
    assert not [pid for pid in family if processes.alive(pid)]
    figure("a stopped monitor: the others went on, and `kill --now` ended its run with all its processes")
