"""Floods are held back where others work, from the first moment on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from sparrow_supervisor.member import Member
from sparrow_supervisor.pulse import Pulse


def house_of(*members: Member) -> tuple[Pulse, Any]:
    """A pulse that has not beaten yet, over these runs; and the loop."""
    loop = SimpleNamespace(rest=0.0)
    reactor = SimpleNamespace(loop=loop, members={member.run: member for member in members})
    return Pulse(cast(Any, reactor)), loop


def member(run: str) -> Member:
    return Member(run, Path(run), endpoint="")


def test_a_flood_rests_as_soon_as_it_floods_where_another_run_works():
    flood = member("flood")
    pulse, loop = house_of(flood, member("quiet"))
    pulse.flooded_by(flood)
    assert loop.rest > 0


def test_a_flood_that_is_alone_gets_all_that_there_is():
    flood = member("flood")
    pulse, loop = house_of(flood)
    pulse.flooded_by(flood)
    assert loop.rest == 0


def test_floods_among_themselves_rest_until_the_last_one_floods():
    floods = [member(f"flood {n}") for n in range(3)]
    pulse, loop = house_of(*floods)
    pulse.flooded_by(floods[0])
    assert loop.rest > 0
    for flood in floods[1:]:
        pulse.flooded_by(flood)
    assert loop.rest == 0


def test_a_run_that_comes_to_a_flood_is_seen_at_once():
    flood = member("flood")
    flood.floods = True
    pulse, loop = house_of(flood, member("new"))
    pulse.hold_floods_back()
    assert loop.rest > 0
