"""Transcripts of ended runs are deleted when somebody says so, with and without a supervisor."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def ended(house: House, *options: str) -> str:
    run = house.detach(*options, "--", "true")
    house.outcome(run)
    return run


def age(house: House, run: str) -> None:
    """Make it a run of long ago."""
    for path in house.places.transcript(run).iterdir():
        os.utime(path, (1_577_836_800, 1_577_836_800))


def test_rm_deletes_the_transcript_and_the_run_is_forgotten(house: House):
    run, other = ended(house, "--name", "gone"), ended(house)
    house.sparrow("rm", "gone").ok()
    assert not house.places.transcript(run).exists()
    assert [row["run"] for row in house.ps()] == [other]
    house.sparrow("logs", run).refused(3)
    house.sparrow("rm", run).refused(3)


def test_rm_leaves_a_live_run_alone(house: House):
    run, other = house.detach("--", "sh", "-c", "read line"), ended(house)
    house.sparrow("rm", run, other).refused(1, "has not ended", run[:8])
    assert not house.places.transcript(other).exists()
    house.sparrow("inject", run, "x").ok()
    assert house.outcome(run)["status"] == "completed"


def test_rm_without_a_supervisor_and_the_next_one_forgets_too(house: House):
    run, other = ended(house), ended(house)
    house.sparrow("shutdown").ok()
    house.sparrow("rm", run).ok()
    assert not house.places.transcript(run).exists()
    assert not house.supervised
    house.start()
    eventually(lambda: [row["run"] for row in house.ps()] == [other], what="the run to be forgotten")
    house.sparrow("wait", run).refused(3)


def test_prune_takes_what_is_old_enough(house: House):
    old, new = ended(house), ended(house)
    age(house, old)
    live = house.detach("--", "sh", "-c", "read line")
    rows = house.sparrow("prune", "--older-than", "30d", "--dry-run", "--json").ok().rows()
    assert [row["run"] for row in rows] == [old]
    assert house.places.transcript(old).exists()
    assert "1 transcript" in house.sparrow("prune", "--older-than", "30d").ok().out
    assert not house.places.transcript(old).exists()
    assert {row["run"] for row in house.ps()} == {new, live}
    house.sparrow("prune", "--older-than", "0").ok()
    assert {row["run"] for row in house.ps()} == {live}
    house.sparrow("inject", live, "x").ok()
    house.outcome(live)


def test_prune_without_a_supervisor(house: House):
    old = ended(house)
    age(house, old)
    house.sparrow("shutdown").ok()
    house.sparrow("prune", "--older-than", "1d").ok()
    assert not house.places.transcript(old).exists()
    assert not house.supervised


DELETE = """
import sys
from sparrow_mp.cli.record import Record
from sparrow_mp.cli.rm import delete
from sparrow_mp.paths import find_places

places = find_places()
records = [Record(run, places.transcript(run)) for run in sys.argv[1:]]
print([record.bytes for record in records], [record.ended_at for record in records])
delete(records, places)
"""


@pytest.mark.parametrize("supervised", [True, False])
def test_what_somebody_else_deletes_at_the_same_time_is_no_error(house: House, supervised: bool):
    run, other = ended(house), ended(house)
    house.sparrow("rm", run).ok()  # just after the command below has found both
    if not supervised:
        house.sparrow("shutdown").ok()
    house.python(DELETE, run, other).ok()
    assert not house.places.transcript(other).exists()


def test_prune_needs_to_be_told_how_old(house: House):
    house.sparrow("prune").refused(2, "older-than")
    house.sparrow("prune", "--older-than", "soon").refused(2)
    assert "0 transcripts" in house.sparrow("prune", "--older-than", "1d").ok().out


def test_a_transcript_that_somebody_has_removed_by_hand(house: House):
    run, other = ended(house), ended(house)
    shutil.rmtree(house.places.transcript(run))
    done = house.sparrow("logs", run)
    assert done.code in (1, 3), done
    assert "Traceback" not in done.err
    house.sparrow("logs", other).ok()
    house.sparrow("run", "true").ok()
