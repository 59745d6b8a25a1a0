"""What a look at a run's tree costs, counted by the files that it opens and not timed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from sparrow_mp.run.meter import measure
from sparrow_mp.run.tree import descendants
from tests.support.processes import alive
from tests.support.waiting import eventually

FAR = 1 << 40
"""More processes than any machine has, and more memory."""

_opened: list[str] = []
_counts = False


_at_a_look: Callable[[int], None] | None = None
"""Called with the pid just before the exact figure of a process is asked for."""


def _note(event: str, given: tuple[object, ...]) -> None:
    path = str(given[0]) if event == "open" else ""
    if _at_a_look is not None and path.endswith("/smaps_rollup"):
        _at_a_look(int(path.split("/")[2]))
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


SHARERS = """
import os, sys
data = bytearray(40 << 20)
data[::4096] = b"x" * (len(data) // 4096)
for _ in range(4):
    if not os.fork():
        break
print("up", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("which", [-1, -2], ids=["who is looked at", "who was looked at before"])
def test_what_ends_while_it_is_looked_at_is_not_counted_as_if_it_shared_nothing(which: int) -> None:
    """Five processes have the same 40 MiB, and end one after another just when each is asked what it has of it."""
    global _at_a_look
    looked_at: list[int] = []

    def end(pid: int) -> None:
        looked_at.append(pid)
        if len(looked_at) >= -which:
            os.kill(looked_at[which], signal.SIGKILL)
            eventually(lambda: not alive(looked_at[which]))

    with subprocess.Popen([sys.executable, "-c", SHARERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        for _ in range(5):
            first.stdout.readline()
        assert 40 << 20 < measure(64 << 20)[0] < 64 << 20
        _at_a_look = end
        try:
            memory, _ = measure(64 << 20)
        finally:
            _at_a_look = None
    assert len(looked_at) >= 5
    assert memory < 64 << 20
