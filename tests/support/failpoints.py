"""Arming failpoints, and what is to be true of a run whatever was struck."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.house import House
from tests.support.waiting import eventually

_SOURCES = Path(__file__).parents[2]
_REACH = re.compile(r'\breach\("([a-z.]+)"\)')

ENGINE = """
import pathlib
from sparrow_mp import Message

def work(run):
    with open("ran-" + run.id, "a") as file:
        file.write("x")
    run.emit(Message(role="assistant", text="0"))
    heard = run.next_message()
    for n in range(1, 50):
        run.emit(Message(role="assistant", text=str(n)))
    run.emit_many([Message(role="assistant", text=str(n)) for n in range(50, 250)])
    print("printed")
    return {"heard": heard}
"""
TEXTS = [str(number) for number in range(250)]


def points() -> list[str]:
    """Every failpoint in the source."""
    found: set[str] = set()
    for root in ("sparrow_mp", "supervisor"):
        for path in (_SOURCES / root).rglob("*.py"):
            found.update(_REACH.findall(path.read_text(encoding="utf-8")))
    return sorted(found - {"recorder.append.written", "notices.written"})  # which have tests of their own


class Failpoints:
    """A house whose processes can be struck at named points, and whose supervisor comes back when it was."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._folder = house.top / "points"
        self._folder.mkdir(exist_ok=True)
        house.env.update(SPARROW_FAILPOINTS=str(self._folder), SPARROW_SUPERVISOR_RESTART="true")

    def arm(self, name: str, action: str = "kill") -> None:
        """Strike whoever gets there first from now on."""
        (self._folder / f"{name}.reached").unlink(missing_ok=True)
        new = self._folder / f".{name}"
        new.write_text(action)
        new.rename(self._folder / name)

    def disarm(self, name: str) -> None:
        """Strike no one any more. Whoever has got there is struck, also where its pid is not written yet."""
        try:
            (self._folder / name).unlink()
        except FileNotFoundError:
            eventually(lambda: self.struck(name), what=f"somebody at {name}")

    def struck(self, name: str) -> int | None:
        """The pid of who was struck there since it was armed; None where nobody was."""
        path = self._folder / f"{name}.reached"
        return int(path.read_text()) if path.exists() else None

    def supervised(self) -> None:
        """See that there is a supervisor: one that is killed again and again lets longer and longer pauses pass."""
        self.house.sparrow("ps").ok()


def inject(house: House, run: str, attempts: int = 20) -> list[str]:
    """Hand it words until one was answered ok or it has ended; those that were answered ok."""
    for number in range(attempts):
        if house.sparrow("inject", run, f"word-{number}").code == 0:
            return [f"word-{number}"]
        if (house.places.transcript(run) / "meta.json").exists():
            break
    return []


def check_run(house: House, run: str, answered: list[str]) -> dict[str, object]:
    """The laws that hold whoever died: each event once and in order, one beginning, one end, each word once; its outcome."""
    house.sparrow("wait", run)
    outcome = house.outcome(run)
    events = house.events(run)
    kinds = [event["type"] for event in events]
    assert kinds.count("RunStarted") == 1
    said = [event["text"] for event in events if event["type"] == "Message" and event["role"] == "assistant"]
    assert said == TEXTS[: len(said)]
    heard = [event["text"] for event in events if event["type"] == "Message" and event["role"] == "user"]
    assert len(heard) == len(set(heard))
    assert set(answered) <= set(heard)
    ran = house.work / f"ran-{run}"
    assert not ran.exists() or ran.read_text() in ("x", "")  # ended in the midst of its first word
    if outcome["status"] == "completed":
        assert said == TEXTS
        if "reason" not in outcome:  # where its monitor was killed after it, its result died too
            assert outcome["result"] == {"heard": heard[0]}
            assert house.printed(run) == "printed\n"
    assert house.record(run)["status"] == outcome["status"]
    return outcome
