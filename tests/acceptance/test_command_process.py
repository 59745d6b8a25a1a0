"""What a command finds when it starts: its own arguments and three descriptors, whatever the caller's Python settings are."""

from __future__ import annotations

import sys

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

_OPEN_DESCRIPTORS = """
import os
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
print([fd for fd in range(256) if is_open(fd)])
"""


@pytest.mark.parametrize("settings", [{}, {"PYTHONUNBUFFERED": "1"}, {"VIRTUAL_ENV": "/nowhere"}])
def test_a_command_has_its_own_arguments_and_nothing_of_ours(house: House, settings: dict[str, str]) -> None:
    house.sparrow("run", "true").ok()
    arguments = house.sparrow("run", "--", "sh", "-c", 'echo "$# $0"', env=settings).ok()
    assert arguments.out == "0 sh\n"
    descriptors = house.sparrow("run", "--", sys.executable, "-c", _OPEN_DESCRIPTORS, env=settings).ok()
    assert descriptors.out == "[0, 1, 2]\n"


@pytest.mark.parametrize("settings", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_run_has_started_before_it_prints_anything(house: House, settings: dict[str, str]) -> None:
    house.sparrow("run", "true").ok()
    run = house.sparrow("run", "-d", "--", "sleep", "100", env=settings).ok().out.strip()
    eventually(lambda: [event["type"] for event in house.events(run)] == ["RunStarted"])
    house.sparrow("kill", run, "--now").ok()
