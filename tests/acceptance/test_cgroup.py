"""Where a cgroup has been handed to sparrow, each run has one in it: then it ends even where monitor and zygote are dead."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.test_ordinary_user import Person, person  # noqa: F401  a fixture
from tests.support import processes
from tests.support.house import BIN, House
from tests.support.seat import TOP
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or TOP is None or not os.access(TOP, os.W_OK), reason="needs root and a writable cgroup2"
    ),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """A cgroup of this test's own."""
    assert TOP is not None
    folder = TOP / f"sparrow-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    yield folder
    eventually(lambda: removed(folder), what="an empty cgroup")


def removed(folder: Path) -> bool:
    folder.rmdir()
    return True


def start_in(place: Path, house: House) -> None:
    """Have a supervisor, and its zygote, in this cgroup."""
    enter = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(place), str(BIN / "sparrow"), "ps"]
    subprocess.run(enter, env=house.env, cwd=house.work, check=True, capture_output=True, timeout=30)


def leaves(place: Path) -> list[str]:
    return [path.name for path in place.iterdir() if path.is_dir()]


def test_to_root_a_cgroup_is_handed_by_its_mark_alone(house: House, place: Path):
    start_in(place, house)
    run = house.detach("--", "sh", "-c", "echo up; sleep 1000")
    house.says(run, "up")
    assert leaves(place) == []
    house.sparrow("shutdown", "--now").ok()


def test_a_run_has_a_cgroup_that_is_gone_when_it_is(house: House, place: Path):
    os.setxattr(place, "trusted.delegate", b"1")
    start_in(place, house)
    run = house.detach("--", "sh", "-c", "cat /proc/self/cgroup; sleep 1000 & sleep 1000")
    house.says(run, f"0::/{place.name}/sparrow-{run}\n")
    (place / f"sparrow-{run}" / "inner").mkdir()
    other = house.detach("--", "sh", "-c", "echo up; read line")
    house.says(other, "up")
    house.sparrow("kill", "--now", run).ok()
    assert leaves(place) == [f"sparrow-{other}"]
    house.sparrow("inject", other, "it").ok()
    assert house.outcome(other)["status"] == "completed"
    assert leaves(place) == []
    house.sparrow("shutdown", "--now").ok()


def test_nothing_is_left_where_monitor_and_zygote_are_killed(house: House, place: Path):
    os.setxattr(place, "trusted.delegate", b"1")
    start_in(place, house)
    run = house.detach("--", "sh", "-c", "setsid sleep 1000 & echo $!; wait")
    house.says(run, "\n")
    stray = int(house.printed(run))
    house.known.add(stray)
    zygote, monitor = house.status()["zygote_pid"], house.monitor_of(run)
    for pid in (zygote, monitor):
        processes.kill(pid)
    assert house.outcome(run)["status"] in ("crashed", "lost")
    eventually(lambda: not processes.alive(stray), what="the stray's end")
    eventually(lambda: leaves(place) == [], what="the cgroup's end")
    house.sparrow("shutdown", "--now").ok()


def test_an_ordinary_user_needs_no_mark(person: Person, place: Path):  # noqa: F811  the fixture
    for path in (place, place / "cgroup.procs", place / "cgroup.subtree_control"):
        os.chown(path, person.uid, person.uid)
    assert TOP is not None
    (home,) = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    own = os.getpid()
    (place / "cgroup.procs").write_text(str(own))  # whom this process starts begins there
    try:
        started = person.does("sparrow", "run", "-d", "--", "sh", "-c", "cat /proc/self/cgroup; sleep 1000")
    finally:
        (TOP / home.lstrip("/") / "cgroup.procs").write_text(str(own))
    run = started.ok().out.strip()
    eventually(lambda: f"/sparrow-{run}" in person.does("sparrow", "logs", run).out, what="its cgroup")
    assert leaves(place) == [f"sparrow-{run}"]
    person.does("sparrow", "kill", "--now", run).ok()
    assert leaves(place) == []
    person.does("sparrow", "shutdown", "--now").ok()
