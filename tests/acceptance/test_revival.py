"""A supervisor that crashes comes back by itself, and none that was told to end."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from tests.support import processes
from tests.support.failpoints import Failpoints
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

RESTART = {"SPARROW_SUPERVISOR_RESTART": "true"}


@pytest.fixture
def guarded(house: House) -> House:
    house.env.update(RESTART)
    return house


def another_than(house: House, pid: int) -> int:
    """The pid of a supervisor that is ready and is not this one."""

    def ready() -> int:
        told = json.loads(house.places.address_file.read_bytes())["pid"]
        return told if told != pid and house.supervised else 0

    return eventually(ready, 40, "another supervisor")


def kill(house: House) -> int:
    pid = int(json.loads(house.places.address_file.read_bytes())["pid"])
    processes.kill(pid)
    return pid


def test_a_supervisor_that_is_killed_comes_back_and_adopts(guarded: House):
    house = guarded
    run = house.detach("--", "sh", "-c", "echo up; read line; echo got $line; exit 4")
    house.says(run, "up")
    pid = house.pid_of(run)
    another_than(house, kill(house))
    assert house.record(run)["pid"] == pid
    house.sparrow("inject", "--no-start", run, "it").ok()
    assert house.outcome(run)["exit_code"] == 4
    assert "got it" in house.printed(run)


def test_it_comes_back_again_and_again(guarded: House):
    house = guarded
    house.start()
    for _ in range(3):
        another_than(house, kill(house))


def test_it_comes_back_with_the_callers_umask_and_limits_and_signals(guarded: House):
    house = guarded
    script = (
        "import json, os, resource, signal; print(json.dumps([os.umask(0), resource.getrlimit(resource.RLIMIT_NOFILE),"
        " [signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)]]))"
    )
    house.start()
    ask = ("run", "--", sys.executable, "-c", script)
    before = house.sparrow(*ask).ok().out
    another_than(house, kill(house))
    assert house.sparrow(*ask).ok().out == before


def test_supervisor_and_runs_that_end_unseen_meanwhile(guarded: House):
    house = guarded
    run = house.detach("--", "sh", "-c", "echo up; until [ -e gate ]; do sleep 0.01; done; exit 6")
    house.says(run, "up")
    pid = kill(house)
    (house.work / "gate").touch()
    another_than(house, pid)
    assert house.outcome(run)["exit_code"] == 6


def test_a_zygote_that_followed_another_guards_as_well(guarded: House):
    house = guarded
    zygote = house.start()["zygote_pid"]
    processes.kill(zygote)
    eventually(lambda: house.status()["zygote_pid"] not in (None, zygote), what="a new zygote")
    another_than(house, kill(house))


def test_what_it_starts_is_not_taken_for_what_a_run_has_left(guarded: House):
    """The second supervisor is started by the zygote, and the third by a zygote of the second's."""
    house = guarded
    another_than(house, kill(house) if house.start() else 0)
    zygote = house.status()["zygote_pid"]
    processes.kill(zygote)
    eventually(lambda: house.status()["zygote_pid"] not in (None, zygote), what="a new zygote")
    run = house.detach("--", "sh", "-c", "echo up; read line; exit 8")
    house.says(run, "up")
    another_than(house, kill(house))
    house.sparrow("run", "--", "true").ok()
    house.sparrow("inject", run, "it").ok()
    assert house.outcome(run)["exit_code"] == 8


def test_one_that_was_told_to_end_stays_away(guarded: House):
    house = guarded
    run = house.detach("--", "sh", "-c", "echo up; read line")
    house.says(run, "up")
    zygote = house.status()["zygote_pid"]
    house.sparrow("shutdown", "--keep-runs").ok()
    log = house.places.zygote_log
    assert processes.alive(zygote)
    assert "started again" not in log.read_text()
    house.start()
    house.sparrow("inject", run, "it").ok()
    house.outcome(run)


def test_one_in_the_foreground_is_left_to_whoever_started_it(guarded: House):
    house = guarded
    with house.supervisor() as going:
        run = house.detach("--", "sh", "-c", "echo up; read line")
        house.says(run, "up")
        processes.kill(kill(house))
        going.wait()
    assert "started again" not in house.places.zygote_log.read_text()
    house.start()


@pytest.mark.parametrize("leave", [["--now"], ["--keep-runs"]], ids=" ".join)
def test_one_that_was_on_its_way_when_another_was_told_to_end_does_not_come(house: House, leave: list[str]):
    """A command is quicker than the zygote with a new supervisor, and that one is shut down before the zygote's is up."""
    points = Failpoints(house)
    house.start()
    points.arm("supervisor.locking", "stop")
    kill(house)
    late = eventually(lambda: points.struck("supervisor.locking"), what="a supervisor on its way")
    assert late
    eventually(lambda: processes.state(late) == "T", what="its stop")  # it says so first; told to go on, it must have
    house.sparrow("ps").ok()
    house.sparrow("shutdown", *leave).ok()
    processes.kill(late, signal.SIGCONT)
    eventually(lambda: not processes.alive(late), what="the end of the late one")
    assert not house.supervised
