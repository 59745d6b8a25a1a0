"""What is of no use to anybody any more ends by itself, each after its time: a zygote, connections."""

from __future__ import annotations

import socket

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.stress import Figure
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress


def test_a_zygote_that_is_left_alone_without_runs_ends_by_itself(house: House, figure: Figure):
    zygote = house.start()["zygote_pid"]
    house.kill_supervisor()
    eventually(lambda: not processes.alive(zygote), 25, what="the zygote's end")
    house.sparrow("run", "true").ok()
    figure("a zygote whose supervisor was killed and that has no runs: ended by itself")


def test_who_connects_and_says_nothing_is_not_kept(house: House, figure: Figure):
    told = house.start()
    before = len(processes.descriptors(told["pid"]))
    silent = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for client in silent:
        client.connect(str(house.runtime / "control.sock"))
    eventually(lambda: len(processes.descriptors(told["pid"])) < before + 20, 20, "the end of silent connections")
    for client in silent:
        client.close()
    figure("100 clients that connect and say nothing: not kept")
