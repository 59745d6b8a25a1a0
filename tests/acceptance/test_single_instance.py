"""Two supervisors never share a state folder or a runtime folder."""

from __future__ import annotations

import concurrent.futures
import json

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def test_the_second_says_who_holds_the_folder_and_exits_1(house: House):
    pid = house.start()["pid"]
    house.sparrow("supervisor").refused(1, str(pid), str(house.state))
    assert house.status()["pid"] == pid


def test_nor_a_runtime_folder_alone(house: House):
    pid = house.start()["pid"]
    other = house.top / "other"
    done = house.sparrow("supervisor", env={"SPARROW_STATE_DIR": str(other)})
    done.refused(1, str(pid), str(house.runtime))
    assert house.status()["pid"] == pid
    house.sparrow("run", "true").ok()


def test_many_commands_at_once_start_one_supervisor(house: House):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: house.sparrow("run", "--", "echo", str(n)), range(8)))
    assert [each.ok().out for each in done] == [f"{n}\n" for n in range(8)]
    log = (house.state / "supervisor.log").read_text()
    # Not "ready:", which is said again where the adapters come late.
    assert log.count(", state in ") == 1
    assert len(house.ps()) == 8


def test_a_lock_file_that_is_left_behind_is_no_lock(house: House):
    house.start()
    house.kill_supervisor()
    assert (house.state / "lock").exists()
    assert json.loads(house.places.address_file.read_bytes())["pid"]
    house.sparrow("status").refused(69, "no supervisor")
    house.sparrow("run", "true").ok()


def test_sockets_that_are_left_behind_are_replaced(house: House):
    house.start()
    house.kill_supervisor()
    left = [path.name for path in house.runtime.iterdir()]
    assert "control.sock" in left
    assert house.sparrow("run", "--", "echo", "hi").ok().out == "hi\n"


def test_the_adapters_end_with_a_supervisor_that_is_killed(house: House):

    adapters = house.start()["adapters_pid"]
    house.kill_supervisor()
    eventually(lambda: not processes.alive(adapters), what="the adapters' end")
