"""SIGKILL at every step at which anything is written, received, spawned or reaped: whoever is struck, the laws hold."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.support import processes
from tests.support.failpoints import ENGINE, Failpoints, check_run, inject, points
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress

# Whose death at which step ends the run; at all other steps it goes on and completes.
OF_THE_RUN = {
    "monitor.forked", "monitor.held", "monitor.read", "monitor.begun", "monitor.spawned",
    "uplink.greeted", "uplink.sent", "uplink.acknowledged", "orders.recorded", "orders.handed",
    "engine.begun", "outbox.written", "outbox.slotted", "outbox.committed",
}  # fmt: skip
SUBMITTING = {"submit.specified", "submit.recorded", "submit.indexed"}
ADOPTING = {"supervisor.locking", "adoption.opened", "adoption.done"}
OF_COMMANDS = {"engine.exec"}
OF_SCHEDULES = {"schedule.due", "schedule.firing", "schedule.submitted", "schedule.settled"}


@pytest.fixture(scope="module")
def struck() -> Iterator[Failpoints]:
    house = House()
    try:
        house.write("engine.py", ENGINE)
        house.configure("[supervisor]\npart_bytes = 20_000\n")
        yield Failpoints(house)
    finally:
        house.env["SPARROW_SUPERVISOR_RESTART"] = "false"
        house.close()


@pytest.fixture
def anew() -> Iterator[Failpoints]:
    """A house in which no supervisor has died yet, so that the next one comes soon after the first that does."""
    house = House()
    try:
        house.write("engine.py", ENGINE)
        yield Failpoints(house)
    finally:
        house.env["SPARROW_SUPERVISOR_RESTART"] = "false"
        house.close()


def begin(struck: Failpoints) -> str:
    return struck.house.detach("-e", "python", "engine.py:work")


def test_every_step_is_looked_at() -> None:
    known = OF_THE_RUN | SUBMITTING | ADOPTING | OF_COMMANDS | OF_SCHEDULES
    assert known <= set(points())


@pytest.mark.parametrize("point", [p for p in points() if p not in SUBMITTING | ADOPTING | OF_COMMANDS | OF_SCHEDULES])
def test_a_run_whose_house_is_struck(struck: Failpoints, point: str) -> None:
    house = struck.house
    house.start()
    struck.arm(point)
    run = begin(struck)
    answered = inject(house, run)
    outcome = check_run(house, run, answered)
    eventually(lambda: struck.struck(point), what=f"somebody at {point}")
    assert outcome["status"] == ("crashed" if point in OF_THE_RUN else "completed")


@pytest.mark.parametrize("point", sorted(SUBMITTING))
def test_a_submission_that_is_struck_is_made_again(struck: Failpoints, point: str) -> None:
    house = struck.house
    house.start()
    before = {row["run"] for row in house.ps()}
    struck.arm(point)
    done = house.sparrow("run", "-d", "-e", "python", "engine.py:work")
    eventually(lambda: struck.struck(point), what=f"somebody at {point}")
    struck.supervised()
    new = {row["run"] for row in house.ps()} - before
    assert {done.ok().out.strip()} == new
    for run in new:
        check_run(house, run, inject(house, run))
    assert {path.name for path in house.places.transcripts.iterdir()} == before | new


@pytest.mark.parametrize("point", sorted(ADOPTING))
def test_an_adoption_that_is_struck_is_done_by_the_next(anew: Failpoints, point: str) -> None:
    house = anew.house
    house.start()
    run = begin(anew)
    house.pid_of(run)
    anew.arm(point)
    house.kill_supervisor()
    eventually(lambda: anew.struck(point), what=f"somebody at {point}")
    anew.supervised()
    assert check_run(house, run, inject(house, run))["status"] == "completed"


def test_a_command_that_is_struck_as_it_begins(struck: Failpoints) -> None:
    house = struck.house
    house.start()
    struck.arm("engine.exec")
    run = house.detach("--", "true")
    house.sparrow("wait", run)
    outcome = house.outcome(run)
    assert (outcome["status"], outcome["signal"]) == ("crashed", 9)


def test_the_last_words_of_a_run_that_failed(struck: Failpoints) -> None:
    house = struck.house
    house.start()
    struck.arm("ending.said")
    run = house.detach("-e", "python", "nothing.py:work")
    house.sparrow("wait", run)
    outcome = house.outcome(run)
    assert outcome["status"] == "rejected"
    eventually(lambda: struck.struck("ending.said"))
    assert [event["type"] for event in house.events(run)] == ["Error", "RunFinished"]


def test_of_two_monitors_of_one_run_the_first_is_met(struck: Failpoints) -> None:
    """A zygote dies after a fork of which nobody has heard; the next one forks too, before the first has the run."""
    house = struck.house
    house.start()
    struck.arm("zygote.forked")
    struck.arm("monitor.forked", "stop")
    run = begin(struck)
    first = eventually(lambda: struck.struck("monitor.forked"), what="the first monitor") or 0
    struck.arm("monitor.forked", "stop")
    second = eventually(lambda: struck.struck("monitor.forked"), what="the second monitor") or 0
    assert first != second
    processes.kill(first, signal.SIGCONT)
    eventually((house.work / f"ran-{run}").exists, what="the engine of the first")
    processes.kill(second, signal.SIGCONT)
    eventually(lambda: not processes.alive(second), what="the end of the second")
    assert check_run(house, run, inject(house, run))["status"] == "completed"


@pytest.mark.parametrize("point", sorted(OF_SCHEDULES))
def test_a_firing_that_is_struck_happens_once(struck: Failpoints, point: str) -> None:
    house = struck.house
    house.start()
    name = point.replace(".", "-")
    house.sparrow(
        "schedule", "add", name, "--cron", "@yearly", "--overlap", "allow", "-e", "python", "engine.py:work"
    ).ok()
    struck.arm(point)
    run = house.sparrow("schedule", "fire", name).ok().out.strip()
    eventually(lambda: struck.struck(point), what=f"somebody at {point}")
    struck.supervised()
    rows = [row["run"] for row in house.ps() if row.get("job") == name]
    assert rows == [run]
    check_run(house, run, inject(house, run))
    (told,) = [row for row in house.sparrow("schedule", "list", "--json").ok().rows() if row["job"] == name]
    assert told["last_run"] == run
    assert "waiting" not in told
    house.sparrow("schedule", "rm", name).ok()
