"""Crash loops: SIGKILL at random moments, and at random steps, while runs emit and are spoken to. Promises N1, N2, N8."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from tests.support import processes
from tests.support.failpoints import Failpoints, points
from tests.support.house import House
from tests.support.stress import Figure, scaled
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress

_COUNT = """
import pathlib, time
from sparrow_mp import Message

def count(run):
    number = 0
    while not pathlib.Path("enough").exists():
        run.emit_many([Message(role="assistant", text=str(number + n)) for n in range({batch})])
        number += {batch}
        run.emit(Message(role="assistant", text=str(number)))
        number += 1
        time.sleep({pause})
    return number
"""

_TELL = """
import os, time
from sparrow_mp import Message

def tell(run):
    told = os.open("told-" + run.id, os.O_WRONLY | os.O_CREAT)
    number = 0
    while True:
        run.emit(Message(role="assistant", text=str(number)))
        number += 1
        os.pwrite(told, str(number).encode(), 0)
        if number % 200 == 0:
            time.sleep(0.02)  # or the test would read events most of the time, and kill hardly any run
"""

_HEAR = """
from sparrow_mp import Message

def hear(run):
    while (text := run.next_message()) != "over":
        run.emit(Message(role="assistant", text=text))
"""

_ASK = """
from sparrow_mp import Message

def ask(run):
    number = 0
    while (text := run.ask(f"step {number}", tool="t", risk="Exec")) != "Deny":
        run.emit(Message(role="assistant", text=f"{number} {text}"))
        number += 1
    return number
"""
OFTEN = [point for point in points() if point.startswith("intake.")] + ["recorder.written"]
SELDOM = [point for point in points() if point.startswith("recorder.seal.")]
NEXT = [point for point in points() if point.startswith("adoption.")]


def _texts(house: House, run: str, role: str = "assistant") -> list[str]:
    return [event["text"] for event in house.events(run) if event["type"] == "Message" and event["role"] == role]


def _pass(seconds: float) -> None:
    moment = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > moment)


def _bring_back(house: House) -> None:
    """Have a supervisor; one that is struck while it adopts is followed by another."""
    eventually(lambda: house.sparrow("ps").code == 0, 60, "a supervisor")


class Killer:
    """Kills supervisors: half of them at a random moment, half at a random step of theirs."""

    def __init__(self, house: House, seed: int) -> None:
        self.chance = random.Random(seed)
        self.kills = 0
        self.at_steps = 0
        self._house = house
        self._points = Failpoints(house)
        house.env["SPARROW_SUPERVISOR_RESTART"] = "false"

    def strike(self) -> None:
        """One more, and it is gone when this returns."""
        if not self._house.supervised:
            _bring_back(self._house)
        if self.chance.random() < 0.1:
            self._points.arm(self.chance.choice(NEXT))  # the next one dies as well, while it adopts
            self.at_steps += 1
            self.kills += 1
        if self.chance.random() < 0.5 and self._at_a_step():
            self.at_steps += 1
        else:
            _pass(self.chance.uniform(0.0, 0.2))
            self._house.kill_supervisor()
        self.kills += 1

    def _at_a_step(self) -> bool:
        point = self.chance.choice(SELDOM if self.chance.random() < 0.1 else OFTEN)
        self._points.arm(point, f"kill {self.chance.randint(1, 20)}")
        until = time.monotonic() + 0.3
        eventually(lambda: self._points.struck(point) or time.monotonic() > until)
        self._points.disarm(point)
        if not self._points.struck(point):
            return False
        eventually(lambda: not self._house.supervised, what="the supervisor's death")
        return True


@pytest.mark.parametrize("seed", [1, 2])
def test_n1_no_event_is_lost_or_doubled_while_supervisors_are_killed(house: House, figure: Figure, seed: int) -> None:
    house.configure("[supervisor]\npart_bytes = 500_000\n")
    killer = Killer(house, seed)
    engine = house.write("count.py", _COUNT.format(batch=19, pause=0.05))
    house.start()
    kills, wanted = scaled(500), scaled(500_000)
    runs = [house.detach("-e", "python", f"{engine}:count") for _ in range(3)]
    while killer.kills < kills:
        killer.strike()
        _bring_back(house)
    eventually(lambda: sum(house.record(run)["events"] for run in runs) > wanted, 600, "enough events")
    (house.work / "enough").touch()
    total = 0
    for run in runs:
        outcome = house.outcome(run, 120)
        assert outcome["status"] == "completed"
        texts = _texts(house, run)
        assert texts == [str(number) for number in range(outcome["result"])]
        total += len(texts)
    figure(
        f"N1: {killer.kills} kills of the supervisor ({killer.at_steps} of them at a step of its work), {total} events:"
        " 0 lost, 0 twice, 0 invalid lines"
    )
    assert total >= wanted


def _kill_a_run_that_tells(house: House, task: str, chance: random.Random, *, supervised: bool) -> int:
    """SIGKILL the engine, its monitor or both while it emits; how many events there were, all of which are recorded."""
    house.start()
    run = house.detach("-e", "python", task)
    told = house.work / f"told-{run}"
    eventually(lambda: int(told.read_text() or 0) > 100, what="its first events")
    pid, monitor = house.pid_of(run), house.monitor_of(run)
    if not supervised:
        house.kill_supervisor()
    _pass(chance.uniform(0.0, 0.1))
    victims = [pid, monitor]
    chance.shuffle(victims)
    for victim in victims[: chance.choice([1, 2])]:
        processes.kill(victim)
    eventually(lambda: not processes.alive(pid), what="its death")
    if not supervised:
        _bring_back(house)
    assert house.outcome(run)["status"] == "crashed"
    texts = _texts(house, run)
    assert texts == [str(number) for number in range(len(texts))]
    assert len(texts) >= int(told.read_text())
    house.sparrow("rm", run).ok()
    return len(texts)


@pytest.mark.parametrize("supervised", [True, False], ids=["with a supervisor", "without one"])
def test_n2_what_emit_returned_for_survives_the_run(house: House, figure: Figure, supervised: bool) -> None:
    chance = random.Random(7)
    engine = house.write("tell.py", _TELL)
    trials = scaled(100)
    events = 0
    for _ in range(trials):
        events += _kill_a_run_that_tells(house, f"{engine}:tell", chance, supervised=supervised)
    how = "with" if supervised else "without"
    figure(f"N2: {trials} runs killed {how} a supervisor there, {events} events: 0 lost, 0 twice")


def _at_times(killer: Killer, house: House, act: Callable[[], bool]) -> bool:
    """Do something, with a supervisor that may be killed just before or meanwhile; whether it was answered ok."""
    if killer.chance.random() < 0.3:
        if killer.chance.random() < 0.5:
            killer.strike()
        else:
            return _while_it_is_killed(killer, house, act)
    return act()


def _while_it_is_killed(killer: Killer, house: House, act: Callable[[], bool]) -> bool:
    point = killer.chance.choice(["delivery.kept", "delivery.sent", "delivery.confirmed"])
    armed = Failpoints(house)
    house.env["SPARROW_SUPERVISOR_RESTART"] = "false"
    armed.arm(point)
    done = act()
    armed.disarm(point)
    killer.kills += armed.struck(point) is not None
    return done


def test_n8_an_injection_that_was_answered_ok_arrives_once(house: House, figure: Figure) -> None:
    killer = Killer(house, 8)
    engine = house.write("hear.py", _HEAR)
    house.start()
    run = house.detach("-e", "python", f"{engine}:hear")
    answered: list[str] = []
    for number in range(scaled(250)):
        word = f"word {number}"
        if _at_times(killer, house, lambda: house.sparrow("inject", run, word).code == 0):  # noqa: B023  called in this turn
            answered.append(word)
    house.sparrow("inject", run, "over").ok()
    assert house.outcome(run)["status"] == "completed"
    heard = _texts(house, run)
    assert len(heard) == len(set(heard)), "one came twice"
    assert [word for word in answered if word not in heard] == [], "one was lost"
    assert [word for word in _texts(house, run, "user") if word != "over"] == heard
    figure(f"N8: {len(answered)} injections answered ok, {killer.kills} kills of the supervisor: 0 lost, 0 twice")


def test_n8_an_approval_that_was_answered_ok_arrives_once(house: House, figure: Figure) -> None:
    killer = Killer(house, 88)
    engine = house.write("ask.py", _ASK)
    house.start()
    run = house.detach("-e", "python", f"{engine}:ask")
    answered: dict[str, str] = {}

    def asked() -> list[str]:
        return [event["id"] for event in house.events(run) if event["type"] == "ApprovalRequested"]

    def question(number: int) -> str:
        if not house.supervised:
            _bring_back(house)
        return eventually(lambda: asked()[number:], what=f"question {number}")[0]

    questions = scaled(150)
    for number in range(questions):
        request = question(number)
        decision = killer.chance.choice(["AllowOnce", "AllowSession"])
        code = (
            "import sys; from sparrow_mp import Client\n"
            "with Client() as sparrow: sparrow.run(sys.argv[1]).approve(sys.argv[3], id=sys.argv[2])"
        )
        for _ in range(10):
            done = _at_times(killer, house, lambda: house.python(code, run, request, decision).code == 0)  # noqa: B023
            if done:
                answered[request] = decision
                break
            _bring_back(house)
            if len(asked()) > number + 1:
                break  # it had arrived, though nobody could say so
    house.sparrow("deny", run, question(questions)).ok()
    assert house.outcome(run)["status"] == "completed"
    resolved = [(e["id"], e["decision"]) for e in house.events(run) if e["type"] == "ApprovalResolved"]
    assert len(resolved) == len({request for request, _ in resolved}), "one came twice"
    assert answered.items() <= dict(resolved).items(), "one was lost, or another was taken for it"
    said = [text.split()[1] for text in _texts(house, run)]
    assert said == [decision for _, decision in resolved[:-1]]
    figure(f"N8: {len(answered)} approvals answered ok, {killer.kills} kills of the supervisor: 0 lost, 0 twice")
