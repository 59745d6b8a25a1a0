"""A monitor that is there before its run: the run gets it, nobody takes it for a stray, and it ends with the zygote."""

from __future__ import annotations

import signal

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def pair(house: House, but: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """The pids of the spare monitor and of its engine's process, once there is another than ``but``."""

    def pairs() -> list[tuple[int, int]]:
        spare = [pid for pid in house.processes() if processes.title(pid) == "sparrow: spare"]
        return [(processes.parent(pid), pid) for pid in spare if processes.parent(pid) in spare]

    return eventually(lambda: [one for one in pairs() if one != but], what="a spare monitor")[0]


def test_a_run_gets_it_and_another_is_made(house: House):
    house.start()
    first = pair(house)
    run = house.detach("--", "sh", "-c", "echo up; read line; exit 5")
    assert (house.monitor_of(run), house.pid_of(run)) == first
    second = pair(house, but=first)
    other = house.detach("--", "sh", "-c", "read line; exit 6")
    assert house.monitor_of(other) == second[0]
    for each in (run, other):
        house.sparrow("inject", each, "it").ok()
    assert [house.outcome(each)["exit_code"] for each in (run, other)] == [5, 6]


def test_it_is_no_stray_of_a_run_that_is_killed(house: House):
    house.start()
    before = pair(house)
    run = house.detach("--", "sh", "-c", "sleep 1000 & echo up; read line")
    house.says(run, "up")
    spare = pair(house, but=before)
    processes.kill(house.monitor_of(run))
    assert house.outcome(run)["status"] == "crashed"
    assert all(map(processes.alive, spare))


@pytest.mark.parametrize("victim", [0, 1], ids=["the monitor", "the engine's process"])
def test_one_that_is_killed_is_no_harm(house: House, victim: int):
    house.may_complain = True  # of its death
    house.start()
    killed = pair(house)[victim]
    processes.kill(killed)
    eventually(lambda: not processes.alive(killed), what="its death")  # while it dies it would still be given the run
    codes = [house.sparrow("run", "--", "sh", "-c", "exit 3").code for _ in range(2)]
    # A run that has got it in this moment has lost its engine to a signal, and says so.
    assert codes == [3, 3] if victim == 0 else codes[1] == 3


def test_it_ends_with_the_zygote_however_that_ends(house: House):
    zygote = house.start()["zygote_pid"]
    spare = pair(house)
    processes.kill(spare[1], signal.SIGSTOP)
    processes.kill(zygote)
    eventually(lambda: not any(map(processes.alive, spare)), what="its end")
    eventually(lambda: house.status()["zygote_pid"] not in (None, zygote), what="a new zygote")
    spare = pair(house)
    for pid in spare:
        processes.kill(pid, signal.SIGSTOP)
    house.sparrow("shutdown").ok()
    eventually(lambda: not any(map(processes.alive, spare)), what="its end")
