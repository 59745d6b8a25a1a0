"""The grace period is the whole tree's: whatever the engine started has it, and nothing outlives it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.house import House

pytestmark = pytest.mark.acceptance

_TIDY = """
import signal, sys, time
calls = []
def tidy(*_):
    calls.append(1)
    if len(calls) == 1:
        time.sleep(0.5)
        print("tidied after", len(calls), flush=True)
        sys.exit(0)
signal.signal(signal.SIGTERM, tidy)
print("there", flush=True)
while True:
    time.sleep(100)
"""


@pytest.fixture
def tidy(house: House) -> Path:
    return house.write("tidy.py", _TIDY)


@pytest.mark.parametrize("start", ["python3 {} & wait", "setsid python3 {} & wait", "python3 {}"])
def test_what_the_engine_started_has_time_to_tidy_up_and_is_asked_once(house: House, tidy: Path, start: str) -> None:
    run = house.detach(start.format(tidy))
    house.says(run, "there")
    house.sparrow("kill", run).ok()
    assert "tidied after 1\n" in house.printed(run)
    outcome = house.outcome(run)
    assert outcome["status"] == "interrupted"
    assert outcome["forced"] is False


def test_a_grace_period_that_is_over_ends_all_of_it(house: House, tidy: Path) -> None:
    tidy.write_text(tidy.read_text().replace("sleep(0.5)", "sleep(60)"))
    run = house.detach(f"python3 {tidy} & wait")
    house.says(run, "there")
    house.sparrow("kill", run, "--grace", "0.1").ok()
    assert "tidied" not in house.printed(run)
    outcome = house.outcome(run)
    assert outcome["status"] == "interrupted"
    assert outcome["forced"] is True


def test_killing_now_cuts_a_grace_period_short(house: House, tidy: Path) -> None:
    run = house.detach("trap '' TERM; echo there; while :; do sleep 100; done")
    house.says(run, "there")
    with house.begin("kill", run, "--grace", "1000"):
        house.sparrow("kill", run, "--now").ok()
    assert house.outcome(run)["forced"] is True


def test_leftovers_of_a_run_that_ended_by_itself_are_ended(house: House, tidy: Path) -> None:
    done = house.sparrow("run", f"setsid python3 {tidy} >/dev/null & sleep 0.3; echo over").ok()
    assert done.out == "over\n"
    (row,) = house.ps()
    assert row["status"] == "completed"
