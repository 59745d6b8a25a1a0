"""Whatever a run starts and however it ends, nothing of it is left. tests/stress/test_zoo.py lets all of the zoo loose."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import processes
from tests.support.control import ask
from tests.support.house import House
from tests.support.zoo import CAN_BUILD, begin, build, bystanders, up

pytestmark = [pytest.mark.acceptance, pytest.mark.skipif(not CAN_BUILD, reason="needs a C compiler (gcc, libc6-dev)")]

SOME = ["deaf", "daemonized", "hopping", "guards", "stopped", "wiped"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("zoo"))


def test_nothing_is_left_of_an_adversary_and_nobody_else_is_touched(house: House, zoo: Path):
    """All of them at once; each third of them ends in another way."""
    with bystanders(house):
        killer = begin(house, zoo, "killer")
        loose = [up(begin(house, zoo, adversary)) for adversary in SOME]
        assert all(trial.left() for trial in loose)
        kills, exits, orphans = loose[::3], loose[1::3], loose[2::3]
        for trial in exits:
            trial.give_cue("exit")
        for trial in orphans:
            processes.kill(house.monitor_of(trial.run))
        for number, trial in enumerate(kills):
            ask(house, {"op": "interrupt", "run": trial.run, **({"now": True} if number % 2 else {"grace": 0.1})})
        ends = ((kills, "interrupted"), (exits, "completed"), ([killer, *orphans], "crashed"))
        for trials, status in ends:
            for trial in trials:
                assert house.outcome(trial.run)["status"] == status
                assert trial.left() == []
