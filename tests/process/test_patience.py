"""Times that are longer than the kernel can wait at once."""

from __future__ import annotations

import pytest

from tests.support.house import House

pytestmark = pytest.mark.process


def test_a_grace_period_and_a_timeout_of_a_year(house: House) -> None:
    run = house.detach(
        "--timeout", "365d", "trap 'echo no' TERM; echo there; while true; do read line && echo $line; done"
    )
    house.says(run, "there")
    with house.begin("kill", run, "--grace", "365d"):
        house.says(run, "no")
        house.sparrow("inject", run, "still here").ok()
        house.says(run, "still here")
        house.sparrow("kill", run, "--now").ok()
    assert house.outcome(run)["status"] == "interrupted"


def test_an_engine_that_waits_for_a_year(house: House) -> None:
    house.write(
        "patient.py",
        "def main(run):\n"
        "    print('there')\n"
        "    return run.next_message(timeout=float('inf')), run.next_message(timeout=1e12)\n",
    )
    run = house.detach("-e", "python", "patient.py:main")
    house.says(run, "there")
    for word in ("one", "two"):
        house.sparrow("inject", run, word).ok()
    outcome = house.outcome(run)
    assert (outcome["status"], outcome["result"]) == ("completed", ["one", "two"])
