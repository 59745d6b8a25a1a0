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


def test_more_processes_than_descriptors() -> None:
    assert reported("few descriptors") == {"below": 79, "left": [], "gone": True}


def test_a_signal_to_all() -> None:
    assert reported("tell") == {"gone": True}


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def held_fds(pid: int) -> list[str]:
    """What this process has of another, by pidfd."""
    found = []
    for fd in os.listdir("/proc/self/fdinfo"):
        try:
            text = Path(f"/proc/self/fdinfo/{fd}").read_text()
        except FileNotFoundError:
            continue
        found += [fd for line in text.splitlines() if line == f"Pid:\t{pid}"]
    return found


def test_only_a_process_of_the_tree_is_held(stranger: subprocess.Popen[bytes]) -> None:
    """Whether it is one is asked after the pidfd is there: had its number been another's, that one would be let go."""
    held = tree._Held()
    assert held._hold(os.getppid()) == -1
    assert held_fds(os.getppid()) == []
    assert held._hold(stranger.pid) >= 0
    assert len(held_fds(stranger.pid)) == 1
    held.close()
    assert held_fds(stranger.pid) == []


def test_a_child_of_a_number_that_was_given_away_is_no_member() -> None:
    """The parent that was held has ended: whoever has its number now, and his children, are strangers."""
    ended = subprocess.Popen(["true"])
    held = tree._Held()
    held._fds[os.getppid()] = os.pidfd_open(ended.pid)  # as if the number of our parent had been that process's
    ended.wait()
    brothers = [pid for pid in tree.children(os.getppid()) if pid != os.getpid()]
    assert [held._hold(pid) for pid in [os.getpid(), *brothers]] == [-1] * (1 + len(brothers))
    held.close()


def test_what_has_ended_is_not_held(stranger: subprocess.Popen[bytes]) -> None:
    held = tree._Held()
    stranger.kill()
    os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT)
    assert held._hold(stranger.pid) == -1  # a zombie
    stranger.wait()
    assert held._hold(stranger.pid) == -1
    held.close()


def test_a_signal_to_nobody_is_no_fault(stranger: subprocess.Popen[bytes]) -> None:
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
