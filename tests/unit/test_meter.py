"""What a look at a run's tree costs, counted by the files that it opens and not timed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from sparrow_mp.run.meter import measure
from sparrow_mp.run.tree import descendants

FAR = 1 << 40
"""More processes than any machine has, and more memory."""

_opened: list[str] = []
_counts = False


def _note(event: str, given: tuple[object, ...]) -> None:
    if _counts and event == "open" and str(given[0]).startswith("/proc"):
        _opened.append(str(given[0]))


@pytest.fixture(scope="module", autouse=True)
def hook() -> None:
    sys.addaudithook(_note)  # cannot be taken away again, so it minds only what is asked of it


def opened(look: Callable[[], object]) -> list[str]:
    """Which files of the kernel's the look opens."""
    global _counts
    _opened.clear()
    _counts = True
    try:
        look()
    finally:
        _counts = False
    return list(_opened)


def with_children(number: int, look: Callable[[], object]) -> list[str]:
    """The files that it opens with so many more processes below this one."""
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(number)]
    try:
        return opened(look)
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_a_look_far_from_the_limit_opens_one_file_however_many_processes_there_are() -> None:
    for number in (0, 20):
        assert with_children(number, lambda: measure(None, FAR)) == ["/proc/loadavg"]


def test_a_look_near_the_limit_opens_files_of_its_own_tree_alone() -> None:
    strangers = {str(os.getppid()), "1"}
    for path in with_children(3, lambda: measure(FAR, 1)):
        assert path.split("/")[2] not in strangers


def test_the_figures_are_those_of_the_tree() -> None:
    before = len(descendants(os.getpid()))
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        memory, processes = measure(FAR, 1)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert processes == before + 1
    assert memory >= 4096
    assert measure(None, 1)[0] == 0
