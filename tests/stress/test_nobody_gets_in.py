"""S1: 50,000 connections of another user, hostile races included, while honest clients come and go."""

from __future__ import annotations

import os

import pytest

from tests.support.house import House
from tests.support.stranger import open_wide, storm
from tests.support.stress import Figure, scaled

pytestmark = [
    pytest.mark.stress,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user"),
]


def test_no_stranger_is_admitted_and_no_honest_client_refused(house: House, figure: Figure):
    run = house.detach("--", "cat")
    house.pid_of(run)
    open_wide(house)
    seen = storm(house, run, scaled(50_000))
    figure(
        f"S1: {seen['hostile']:,} hostile connections, {seen['ports taken over']:,} from a port that was an honest client's:"
        f" {seen['admitted']} admitted; {seen['honest']:,} honest ones meanwhile: {seen['refused']} refused"
    )
    assert (seen["admitted"], seen["refused"]) == (0, 0), seen
    house.sparrow("inject", run, "x").ok()
    house.says(run, "x")
