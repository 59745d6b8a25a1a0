"""Promise N6: a full disk stops the writers, not the truth. Nothing is acknowledged that is not written, and all goes on when
there is space.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.small_disk import fill, make_room, small_house
from tests.support.waiting import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.root]

_FLOOD = """
import os
from sparrow_mp import Message

def flood(run):
    number = 0
    while not os.path.exists("enough") and number < 200_000:
        with open("telling", "w") as telling:
            telling.write(str(number + 1))
        os.replace("telling", "told-" + run.id)  # first: what is emitted may be recorded before the next line runs
        run.emit(Message(role="assistant", text=f"{number} " + "x" * 300))
        number += 1
    return number
"""


@pytest.fixture
def house() -> Iterator[House]:
    with small_house("24m") as house:
        house.configure("[run]\noutbox_bytes = 2097152\n[supervisor]\npart_bytes = 500000\n")
        house.write("flood.py", _FLOOD)
        yield house


def _told(house: House, run: str) -> int:
    """How many events the engine has had taken from it, with the one that it may still be handing over."""
    return int((house.work / f"told-{run}").read_text() or 0)


def _texts(house: House, run: str) -> list[int]:
    return [int(event["text"].split()[0]) for event in house.events(run) if event["type"] == "Message"]


def _stands_still(house: House, run: str) -> bool:
    """Whether nothing is taken from the run any more: its outbox is full, since nothing is recorded."""
    before = _told(house, run)
    house.sparrow("status").ok()  # which takes longer than an event
    return before == _told(house, run)


def test_a_full_disk_stops_a_run_and_all_goes_on_when_there_is_space(house: House) -> None:
    first = house.detach("-e", "python", "flood.py:flood")
    waits = house.detach("--", "sh", "-c", "read line; echo got $line")
    eventually(lambda: _told(house, first) > 2000, what="some events")
    fill(house)
    eventually(lambda: _stands_still(house, first), 30, "the flood's end")
    said = _texts(house, first)
    assert said == list(range(len(said)))
    assert len(said) <= _told(house, first)
    recorded = len(house.ps())
    house.sparrow("run", "-d", "--", "true").refused(1, "the run cannot be recorded", "is the disk full?")
    house.sparrow("inject", waits, "words " * 2000).refused(1, "is the disk full?")
    assert len(house.ps()) == recorded
    assert sorted(path.name for path in house.places.runs.iterdir()) == sorted([first, waits])
    assert sorted(path.name for path in house.places.transcripts.iterdir()) == sorted([first, waits])
    (house.work / "enough").touch()
    make_room(house)
    assert house.outcome(first, 60)["status"] == "completed"
    assert house.outcome(first)["result"] == _told(house, first)
    assert _texts(house, first) == list(range(_told(house, first)))
    house.sparrow("inject", waits, "words").ok()
    assert house.outcome(waits)["status"] == "completed"
    assert house.printed(waits) == "got words\n"
    assert house.sparrow("run", "--", "echo", "again").ok().out == "again\n"
    rows = {row["run"]: row["status"] for row in house.ps()}
    assert set(rows.values()) == {"completed"}


@pytest.mark.parametrize("killed", [False, True], ids=["", "though the supervisor is killed"])
def test_a_run_that_ends_on_a_full_disk_ends_when_there_is_space(house: House, killed: bool) -> None:
    house.configure("[supervisor]\nmax_runs = 2\n")
    runs = [house.detach("--", "sh", "-c", f"read line; echo got $line; exit {code}") for code in (0, 3)]
    queued = house.detach("--", "sh", "-c", "echo ran")
    for run in runs:
        house.pid_of(run)
    fill(house)
    pid = house.pid_of(runs[1])
    processes.kill(pid)
    eventually(lambda: not processes.alive(pid), what="its death")
    assert {row["run"]: row["status"] for row in house.ps()}[queued] == "queued"
    if killed:
        house.kill_supervisor()
        house.sparrow("ps").refused(69, "full; make room on the disk")
    make_room(house)
    house.start()
    assert house.outcome(runs[1])["status"] == "crashed"
    assert house.outcome(runs[1])["signal"] == 9
    assert house.outcome(queued)["status"] == "completed"
    house.sparrow("inject", runs[0], "it").ok()
    assert house.outcome(runs[0])["status"] == "completed"
    assert house.printed(runs[0]) == "got it\n"
    assert {row["run"]: row["status"] for row in house.ps()} == {
        runs[0]: "completed",
        runs[1]: "crashed",
        queued: "completed",
    }
