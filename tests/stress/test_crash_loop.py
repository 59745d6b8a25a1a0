"""Crash loops: SIGKILL at random moments while runs emit. Promises N1, N2 and N8, at a scale for every change."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress

_COUNT = """
import time
from sparrow_mp import Message

def count(run):
    begun = time.monotonic()
    for batch in range({batches}):
        run.emit_many([Message(role="assistant", text=str(batch * 100 + n)) for n in range(99)])
        run.emit(Message(role="assistant", text=str(batch * 100 + 99)))
        while time.monotonic() - begun < batch * {pause}:
            time.sleep(0.001)
"""

_TELL = """
import os, sys
from sparrow_mp import Message

def tell(run):
    told = os.open("told-" + run.id, os.O_WRONLY | os.O_CREAT)
    number = 0
    while True:
        run.emit(Message(role="assistant", text=str(number)))
        number += 1
        os.pwrite(told, str(number).encode(), 0)
"""

_HEAR = """
from sparrow_mp import Message

def hear(run):
    while (text := run.next_message()) != "over":
        run.emit(Message(role="assistant", text=text))
"""


def _texts(house: House, run: str, role: str = "assistant") -> list[str]:
    return [event["text"] for event in house.events(run) if event["type"] == "Message" and event["role"] == role]


def _pass(seconds: float) -> None:
    moment = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > moment)


def _kill_again_and_again(house: House, kills: int, busy: Callable[[], bool], chance: random.Random) -> int:
    """SIGKILL the supervisor at random moments, and have each followed by a new one; how many were killed."""
    done = 0
    while done < kills and busy():
        _pass(chance.uniform(0.0, 0.25))
        house.kill_supervisor()
        done += 1
        house.start()
    return done


def test_n1_no_event_is_lost_or_doubled_while_supervisors_are_killed(house: House) -> None:
    chance = random.Random(20261122)
    engine = house.write("count.py", _COUNT.format(batches=250, pause=0.1))
    house.start()
    runs = [house.detach("-e", "python", f"{engine}:count") for _ in range(4)]
    folder = house.places.transcript

    def busy() -> bool:
        return not all((folder(run) / "meta.json").exists() for run in runs)

    kills = _kill_again_and_again(house, 30, busy, chance)
    total = 0
    for run in runs:
        assert house.outcome(run, 120)["status"] == "completed"
        assert _texts(house, run) == [str(number) for number in range(25_000)]
        total += len(house.events(run))
    print(f"N1: {kills} kills of the supervisor, {total} events: 0 lost, 0 twice, 0 invalid lines")
    assert kills >= 20


def _kill_a_run_that_tells(house: House, task: str, chance: random.Random, *, supervised: bool) -> int:
    """SIGKILL the engine, its monitor or both while it emits; how many events there were, all of which are recorded."""
    house.start()
    run = house.detach("-e", "python", task)
    told = house.work / f"told-{run}"
    eventually(lambda: int(told.read_text() or 0) > 100, what="its first events")
    pid, monitor = house.pid_of(run), house.monitor_of(run)
    if not supervised:
        house.kill_supervisor()
    _pass(chance.uniform(0.0, 0.2))
    victims = [pid, monitor]
    chance.shuffle(victims)
    for victim in victims[: chance.choice([1, 2])]:
        processes.kill(victim)
    eventually(lambda: not processes.alive(pid), what="its death")
    house.start()
    assert house.outcome(run)["status"] == "crashed"
    texts = _texts(house, run)
    assert texts == [str(number) for number in range(len(texts))]
    assert len(texts) >= int(told.read_text())
    return len(texts)


@pytest.mark.parametrize("supervised", [True, False], ids=["with a supervisor", "without one"])
def test_n2_what_emit_returned_for_survives_the_run(house: House, supervised: bool) -> None:
    chance = random.Random(7)
    engine = house.write("tell.py", _TELL)
    trials = 10
    events = 0
    for _ in range(trials):
        events += _kill_a_run_that_tells(house, f"{engine}:tell", chance, supervised=supervised)
    print(f"N2: {trials} runs killed, {events} events: 0 lost, 0 twice")


def test_n8_an_injection_that_was_answered_ok_arrives_once(house: House) -> None:
    chance = random.Random(8)
    engine = house.write("hear.py", _HEAR)
    house.start()
    run = house.detach("-e", "python", f"{engine}:hear")
    answered: list[str] = []
    for number in range(40):
        if chance.random() < 0.3:
            house.kill_supervisor()
        if house.sparrow("inject", run, f"word {number}").code == 0:
            answered.append(f"word {number}")
    house.sparrow("inject", run, "over").ok()
    assert house.outcome(run)["status"] == "completed"
    heard = _texts(house, run)
    assert len(heard) == len(set(heard)), "one came twice"
    assert [word for word in answered if word not in heard] == [], "one was lost"
    assert [word for word in _texts(house, run, "user") if word != "over"] == heard
    print(f"N8: {len(answered)} injections answered ok while supervisors were killed: 0 lost, 0 twice")


def test_runs_end_with_their_true_status_whoever_is_killed(house: House) -> None:
    chance = random.Random(4)
    house.start()
    expected: dict[str, int] = {}
    for number in range(60):
        code = number % 5
        expected[house.detach("--", "sh", "-c", f"sleep 0.{chance.randrange(10)}; exit {code}")] = code
        if number % 10 == 9:
            house.kill_supervisor()
            house.start()
    wrong = {run: house.outcome(run) for run, code in expected.items() if house.outcome(run).get("exit_code") != code}
    assert not wrong
    print(f"N4: {len(expected)} runs, 6 kills of the supervisor: 0 wrong statuses")


def test_n3_one_client_follows_all_of_it_through_crashes(house: House, tmp_path: Path) -> None:
    engine = house.write("count.py", _COUNT.format(batches=100, pause=0.05))
    house.start()
    run = house.detach("-e", "python", f"{engine}:count")
    with house.begin("logs", "--json", "-f", run) as following:
        kills = _kill_again_and_again(
            house, 8, lambda: not (house.places.transcript(run) / "meta.json").exists(), random.Random(3)
        )
        done = following.wait(120)
    assert [row["seq"] for row in done.rows()] == list(range(1, len(done.rows()) + 1))
    assert done.rows()[-1]["type"] == "RunFinished"
    print(f"N3: one client followed {len(done.rows())} events through {kills} crashes: 0 holes, 0 repeats")
