"""The supervisor deletes by itself what `[retention]` says, of ended runs only."""

from __future__ import annotations

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def test_the_oldest_ended_runs_go_and_a_live_one_stays(house: House) -> None:
    live = house.detach("--", "sh", "-c", "read line")
    runs = []
    for number in range(4):
        runs.append(house.detach("--", "echo", str(number)))
        house.outcome(runs[-1])
    house.sparrow("shutdown", "--keep-runs").ok()
    house.configure("[retention]\nmax_runs = 2\n")
    house.start()
    eventually(lambda: [row["run"] for row in house.ps()] == [live, *runs[2:]], what="the pruning")
    assert {path.name for path in house.places.transcripts.iterdir()} == {live, *runs[2:]}
    house.sparrow("logs", runs[0]).refused(3, "No active run")
    assert house.printed(runs[3]) == "3\n"
    house.sparrow("inject", live, "it").ok()
    assert house.outcome(live)["status"] == "completed"


@pytest.mark.parametrize("value", ["max_runs = -1", "max_age_days = -0.5", 'max_bytes = "much"', "max_days = 3"])
def test_a_bad_value_is_refused_with_a_sentence(house: House, value: str) -> None:
    house.configure(f"[retention]\n{value}\n")
    house.sparrow("config", "check").refused(1, "retention.max_")
