"""Two hundred runs at once and eight places, over a supervisor that is killed in the middle."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.house import House
from tests.support.stress import Figure, scaled
from tests.support.waiting import eventually

pytestmark = [pytest.mark.stress, pytest.mark.timeout(120)]

PLACES = 8
SUBMIT = """
import sys
from sparrow_mp import Client
with Client() as sparrow:
    for n in range(int(sys.argv[1])):
        print(sparrow.submit(sys.argv[2], name=f"n{n}").id)
"""


def moments(house: House, run: str) -> tuple[str, str]:
    """When the run began and ended."""
    events: list[dict[str, Any]] = house.events(run)
    kinds = [event["type"] for event in events]
    assert kinds.count("RunStarted") == kinds.count("RunFinished") == 1
    assert events[-1]["outcome"]["status"] == "completed", events[-1]
    return next(event["ts"] for event in events if event["type"] == "RunStarted"), events[-1]["ts"]


def let_in(house: House) -> list[str]:
    """The runs, in the order in which they were let in. When each of them then began is up to the machine."""
    found = re.findall(r" run (\S+): starting$", house.places.log.read_text(), re.MULTILINE)
    return list(dict.fromkeys(found))  # what was let in when the supervisor died is started by the next one too


def test_two_hundred_runs_in_eight_places(house: House, figure: Figure) -> None:
    count = scaled(200)
    house.env["SPARROW_SUPERVISOR_MAX_RUNS"] = str(PLACES)
    go = house.work / "go"  # the first eight hold their places until all the others wait
    task = f"until [ -e {go} ]; do sleep 0.05; done; sleep 0.05"
    done = house.python(SUBMIT, str(count), task)
    assert done.code == 0, done
    runs = done.out.split()
    later = house.detach(task)  # another client: its turn comes before what is left of the two hundred
    go.touch()
    eventually((house.places.transcript(runs[count // 4]) / "meta.json").exists, 60, "the end of a quarter of them")
    house.kill_supervisor()
    house.start()
    for run in [*runs, later]:
        eventually((house.places.transcript(run) / "meta.json").exists, 60, f"the end of run {run}")
    spans = {run: moments(house, run) for run in [*runs, later]}
    inside = most = 0
    for _, change in sorted([(end, -1) for _, end in spans.values()] + [(begin, 1) for begin, _ in spans.values()]):
        inside += change
        most = max(most, inside)
    assert most <= PLACES
    order = let_in(house)
    assert set(order) == {*runs, later}
    ahead = order.index(later)
    order.remove(later)
    late = max(abs(order.index(run) - place) for place, run in enumerate(runs))
    assert late < PLACES
    assert ahead < 3 * PLACES  # those that had begun, and with it those that were let in with it
    figure(
        f"{count} runs, at most {most} at once, none out of turn by more than {late}; another client's was number {ahead}"
    )
