"""A tree of processes is found and ended, all of it, whatever it does; and nothing that is not in it is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparrow_mp.run import tree
from tests.unit.tree_zoo import ADVERSARIES

TOP = Path(__file__).parents[2]


def reported(what: str) -> dict[str, Any]:
    """What the process that ends the tree saw."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.tree_zoo", what], cwd=TOP, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("trial", range(2))
@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_nothing_is_left_of(adversary: str, trial: int) -> None:
    report = reported(adversary)
    took = report.pop("took")
    assert report == {"left": [], "gone": True, "alive": False, "children": [], "descriptors": 0}
    assert took < 20


def test_what_is_to_be_spared_is_spared_with_all_below_it() -> None:
    report = reported("spare")
    assert report == {"left": [], "others gone": [True, True], "spared": True, "size": 79, "gone": True}


def test_a_zombie_is_not_gone_and_time_is_bounded() -> None:
    assert reported("impatient") == {"left": True, "alive": False, "gone": True}


def test_no_tree_at_all() -> None:
    assert reported("nothing") == {"left": [], "below": []}


def test_a_signal_to_all() -> None:
    assert reported("tell") == {"gone": True}


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_only_a_process_of_the_tree_is_held(stranger: subprocess.Popen[bytes]) -> None:
    """Its parent is asked after the pidfd is there: had its number been another's, that one would be let go."""
    fd = tree._hold(stranger.pid, {os.getpid()})
    assert fd >= 0
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    assert tree._hold(stranger.pid, {os.getppid(), 1}) == -1
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_has_ended_is_not_held(stranger: subprocess.Popen[bytes]) -> None:
    stranger.kill()
    os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)
    assert tree._hold(stranger.pid, {os.getpid()}) == -1  # a zombie
    stranger.wait()
    assert tree._hold(stranger.pid, {os.getpid()}) == -1


def test_a_signal_to_nobody_is_no_fault(stranger: subprocess.Popen[bytes]) -> None:
    tree._send(-1, signal.SIGKILL)
    fd = os.pidfd_open(stranger.pid)
    stranger.kill()
    stranger.wait()
    tree._send(fd, signal.SIGKILL)
    os.close(fd)


def test_children_of_a_process_that_is_not_there() -> None:
    assert tree.children(1 << 22) == []
    assert tree.descendants(1 << 22) == []


def test_a_process_is_found_among_the_children_of_its_parent(stranger: subprocess.Popen[bytes]) -> None:
    assert stranger.pid in tree.children(os.getpid())
    assert stranger.pid in tree.descendants(os.getpid())
    assert stranger.pid not in tree.descendants(os.getpid(), spare={stranger.pid})


def test_children_of_every_thread_are_found() -> None:
    begun, done = threading.Event(), threading.Event()
    started: list[subprocess.Popen[bytes]] = []

    def work() -> None:
        started.append(subprocess.Popen(["sleep", "60"]))
        begun.set()
        done.wait()  # the children of a thread that has ended are another's
        started[0].kill()
        started[0].wait()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(10)
    found = tree.children(os.getpid())
    done.set()
    thread.join()
    assert started[0].pid in found
