"""Promise N7: at power loss at most the last 50 ms are gone (``fsync = "always"``: none), and a torn tail is told and repaired."""

from __future__ import annotations

import json
import random
import time
from datetime import datetime
from typing import Any

import pytest
import zmq

from tests.support.control import connected
from tests.support.house import House
from tests.support.power import Disk, house_with_a_plug
from tests.support.stress import Figure, scaled

pytestmark = [pytest.mark.stress, pytest.mark.root, pytest.mark.timeout(600)]

_EMIT = """
import time
from sparrow_mp import Message

def emit(run):
    number = 0
    while True:
        run.emit(Message(role="assistant", text=str(number) + " " + "x" * 100))
        number += 1
        time.sleep(0.0005)
"""

_SANE_S = 3.0
"""Far over what may be lost: how long a disk takes is its own matter, and told in the figure."""


def _listen(socket: zmq.Socket[bytes], until: float) -> list[dict[str, Any]]:
    """What subscribers are shown by then."""
    shown: list[dict[str, Any]] = []
    while time.monotonic() < until:
        if socket.poll(5):
            topic, lines = socket.recv_multipart()
            if topic != b"heads":
                shown += [json.loads(line) for line in lines.splitlines()]
    return shown


def _when(ts: str) -> float:
    return datetime.fromisoformat(ts).timestamp()


def _cut(house: House, disk: Disk, fsync: str, seconds: float) -> tuple[list[str], list[dict[str, Any]], float]:
    """Let a run emit, and cut the power: the runs there were, what subscribers had been shown, the moment."""
    house.configure(f'[supervisor]\nfsync = "{fsync}"\npart_bytes = 20000\n')
    house.write("emit.py", _EMIT)
    house.start()
    with connected(house, zmq.SUB) as socket:
        socket.set(zmq.RCVHWM, 0)
        socket.subscribe(b"")
        emits = house.detach("-e", "python", "emit.py:emit")
        waits = house.detach("--name", "waits", "--", "sh", "-c", "read line")
        house.pid_of(waits)
        shown = _listen(socket, time.monotonic() + seconds)
        stopped = disk.lose_power()
    assert disk.mount()
    return [emits, waits], shown, stopped


def _trial(fsync: str, chance: random.Random) -> tuple[int, int, float]:
    """How many events were shown, how many of them were lost, and how old the oldest of those was when the disk stopped."""
    with house_with_a_plug() as (house, disk):
        runs, shown, stopped = _cut(house, disk, fsync, chance.uniform(0.5, 1.5))
        told = house.sparrow("doctor", "--repair", "--json").ok().rows()
        assert not [row for row in told if row["state"] == "fail"], told
        assert not [row for row in told if "missing" in row["message"]], told
        kept = {(each, event["seq"]) for each in runs for event in house.events(each)}
        lost = [event for event in shown if (event["run"], event["seq"]) not in kept]
        house.start()
        _all_ended(house, runs)
        return len(shown), len(lost), stopped - min((_when(event["ts"]) for event in lost), default=stopped)


def _all_ended(house: House, runs: list[str]) -> None:
    """The runs were accepted, so they are known, and have ended."""
    assert {row["run"]: row["status"] for row in house.ps()} == dict.fromkeys(runs, "lost")
    for run in runs:
        assert house.outcome(run)["status"] == "lost"
        assert (house.places.transcript(run) / "inputs.json").stat().st_size > 100


@pytest.mark.parametrize("fsync", ["always", "batch"])
def test_n7_what_a_power_cut_takes(figure: Figure, fsync: str) -> None:
    chance = random.Random(7)
    trials = scaled(4)
    shown = lost = 0
    oldest = 0.0
    for _ in range(trials):
        more, gone, age = _trial(fsync, chance)
        shown, lost, oldest = shown + more, lost + gone, max(oldest, age)
    assert shown > 100 * trials
    if fsync == "always":
        assert lost == 0
    assert oldest < _SANE_S
    figure(
        f'N7: {trials} power cuts, fsync = "{fsync}", {shown:,} events shown: {lost} lost, the oldest {oldest * 1000:.0f} ms old'
    )


def test_a_disk_that_nothing_is_forced_to_loses_it() -> None:
    """So that the test above shows something: this disk does forget."""
    with house_with_a_plug() as (house, disk):
        runs, shown, _ = _cut(house, disk, "never", 0.5)
        there = [path for run in runs for path in house.places.transcript(run).glob("events*.jsonl")]
        assert sum(path.read_bytes().count(b'"Message"') for path in there) < len(shown) / 2
        house.start()  # which clears up after it
