"""A run that has said much: whoever takes it over does not read all of it again."""

from __future__ import annotations

import sqlite3

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

ENGINE = """
from sparrow_mp import CostUpdate, Message

def much(run):
    run.emit(CostUpdate(usd=0.25))
    for _ in range(60):
        run.emit_many([Message(role="assistant", text="x")] * 1000)
    run.next_message()
    run.emit(Message(role="assistant", text="on"))
"""


def sums(house: House) -> list[tuple[str, int]]:
    with sqlite3.connect(house.places.index) as index:
        return index.execute("SELECT run, seq FROM sums").fetchall()


def test_what_a_long_run_adds_up_to_is_not_read_again(house: House) -> None:
    house.start()
    run = house.detach("-e", "python", f"{house.write('much.py', ENGINE)}:much")
    ((_, seq),) = eventually(lambda: sums(house), what="the sums in the index")
    assert seq >= 50_000
    house.kill_supervisor()  # and it is gone, or it would go on writing to what is changed below
    record = house.places.transcript(run) / "events.jsonl"
    before = record.read_bytes()
    record.write_bytes(before.replace(b'"usd":0.25', b'"usd":9.25', 1))  # nobody looks there any more
    house.start()
    assert house.record(run)["cost_usd"] == 0.25
    house.sparrow("inject", run, "go on").ok()
    outcome = house.outcome(run)
    assert (outcome["status"], outcome["cost_usd"]) == ("completed", 0.25)
    eventually(lambda: sums(house) == [], what="an end of the sums")
