"""What cannot be ended holds up nobody for long, is told, and is ended as soon as it can be."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.stress import Figure
from tests.support.waiting import eventually

FREEZER = Path("/sys/fs/cgroup/freezer")
pytestmark = [
    pytest.mark.stress,
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.access(FREEZER / "cgroup.procs", os.W_OK),
        reason="needs root and the freezer of cgroup v1, in which SIGKILL waits",
    ),
]


@contextmanager
def freezer() -> Iterator[Path]:
    """A place in which processes can be frozen. Afterwards they are thawed, and it is gone when they are."""
    folder = FREEZER / f"sparrow-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        thaw(folder)
        eventually(lambda: removed(folder), what="an empty freezer")


def removed(folder: Path) -> bool:
    folder.rmdir()
    return True


def freeze(folder: Path, *pids: int) -> None:
    for pid in pids:
        (folder / "cgroup.procs").write_text(str(pid))
    (folder / "freezer.state").write_text("FROZEN")
    eventually(lambda: (folder / "freezer.state").read_text() == "FROZEN\n", what="ice")


def thaw(folder: Path) -> None:
    (folder / "freezer.state").write_text("THAWED")


def begun(house: House) -> tuple[str, int, int]:
    """A run, its main process, and another that this has started."""
    run = house.detach("--", "sh", "-c", "setsid sleep 1000 & echo $!; wait")
    house.says(run, "\n")
    return run, house.pid_of(run), int(house.printed(run))


def test_runs_end_though_some_of_their_processes_cannot(house: House, figure: Figure):
    """In one run it is what its main process has started, in another the main process."""
    other = house.detach("--", "sleep", "1000")
    (first, _, child), (second, main, ended) = begun(house), begun(house)
    with freezer() as ice:
        freeze(ice, child, main)
        house.sparrow("kill", "--now", first, second).ok()
        for run, pid in ((first, child), (second, main)):
            outcome = house.outcome(run)
            assert (outcome["status"], outcome["forced"]) == ("interrupted", True)
            assert outcome["reason"].startswith("process")
            assert str(pid) in outcome["reason"]
        assert not processes.alive(ended)
        sentences = [f"process {pid} of a run that has ended cannot be ended" for pid in (child, main)]

        def problems() -> bool:
            told = house.status()["problems"]
            return len(told) == 2 and all(any(sentence in line for line in told) for sentence in sentences)

        eventually(problems, what="the problems")
        assert sentences[0] in house.sparrow("doctor").out
        assert house.sparrow("run", "--", "echo", "on").ok().out == "on\n"
        house.kill_supervisor()
        house.start()
        assert problems(), "the next supervisor hears of it as well"
        assert processes.alive(child)
    eventually(lambda: not processes.alive(child) and not processes.alive(main), what="their end")
    eventually(lambda: house.status()["problems"] == [], what="good news")
    assert house.record(other)["status"] == "running"
    figure("2 runs with a process that SIGKILL does not end: ended, told by `status` and `doctor`, and others went on")
