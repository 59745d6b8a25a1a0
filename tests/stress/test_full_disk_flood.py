"""Promise N6 at its figure: several runs flood a disk that is full again and again, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.support.house import House
from tests.support.small_disk import fill, make_room, small_house
from tests.support.stress import Figure, scaled
from tests.support.waiting import eventually

pytestmark = [pytest.mark.stress, pytest.mark.root, pytest.mark.timeout(600)]

_RUNS = 4
_FLOOD = """
import os, time
from sparrow_mp import Message

def flood(run):
    number = 0
    told = os.open("told-" + run.id, os.O_WRONLY | os.O_CREAT)
    while not os.path.exists("enough"):
        run.emit_many([Message(role="assistant", text=str(number + n)) for n in range(5)])
        number += 5
        os.pwrite(told, str(number).encode(), 0)
        time.sleep(0.001)
    return number
"""


def _told(house: House, runs: list[str]) -> list[int]:
    """How many events each engine has had taken from it."""
    return [int((house.work / f"told-{run}").read_text() or 0) for run in runs]


def _wait_for_more(house: House, runs: list[str]) -> None:
    before = eventually(lambda: _told(house, runs), what="the floods")
    eventually(lambda: all(now > then + 100 for now, then in zip(_told(house, runs), before, strict=True)), 30, "more")


def test_n6_a_disk_that_is_full_again_and_again(figure: Figure) -> None:
    times = scaled(6)
    refused = 0
    with small_house("96m") as house:
        house.configure("[run]\noutbox_bytes = 2097152\n[supervisor]\npart_bytes = 200000\n")
        house.write("flood.py", _FLOOD)
        runs = [house.detach("-e", "python", "flood.py:flood") for _ in range(_RUNS)]
        for number in range(times):
            _wait_for_more(house, runs)
            fill(house)
            done = house.sparrow("run", "-d", "--", "true")
            refused += done.code == 1 and "is the disk full?" in done.err
            if number % 2:
                house.kill_supervisor()  # which cannot start again before there is room
            make_room(house)
            house.start()
        (house.work / "enough").touch()
        total = 0
        for run in runs:
            outcome = house.outcome(run, 120)
            assert outcome["status"] == "completed"
            texts = [event["text"] for event in house.events(run) if event["type"] == "Message"]
            assert texts == [str(number) for number in range(outcome["result"])]
            total += len(texts)
        assert {row["status"] for row in house.ps()} == {"completed"}
    figure(
        f"N6: {_RUNS} runs, {times} times a full disk, half of them with the supervisor killed: {total:,} events, 0 lost, 0 twice; {refused} submissions refused"
    )
