"""Where few files may be open: runs wait for their turn, clients for theirs, and the supervisor never dies of it."""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack

import pytest

from sparrow_mp import Client
from tests.support import processes
from tests.support.house import BIN, House
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress


def start_narrow(house: House, limit: str) -> int:
    """A supervisor under a limit of `ulimit`; its pid."""
    command = f"ulimit {limit} && exec '{BIN}/sparrow' ps"
    subprocess.run(["sh", "-c", command], env=house.env, cwd=house.work, check=True, capture_output=True, timeout=30)
    return int(house.status()["pid"])


@pytest.mark.parametrize("most", [120, 256])
def test_more_runs_than_there_are_descriptors_for_take_turns(house: House, most: int) -> None:
    pid = start_narrow(house, f"-n {most}")
    told = house.status()
    assert 1 <= told["most_runs"] < most / 6
    assert "ulimit" in told["problems"][-1]
    with Client(places=house.places) as client:
        argv = ["sh", "-c", "until [ -e gate ]; do sleep 0.02; done; echo hi"]
        runs = [client.submit("true", argv=argv, env=house.env, cwd=house.work).id for _ in range(100)]
        assert client.status()["runs"]["queued"] == 100 - told["most_runs"]
        assert len(processes.descriptors(pid)) < most - 8
        (house.work / "gate").touch()
        for run in runs:
            assert client.wait(run, 60).status == "completed"
    for run in runs:
        assert house.printed(run) == "hi\n"
    assert house.status()["pid"] == pid


def test_more_clients_than_there_are_descriptors_for_wait_outside(house: House) -> None:
    pid = start_narrow(house, "-n 256")
    places = house.places
    run = house.detach("--", "sh", "-c", "until [ -e gate ]; do sleep 0.05; done")
    path = places.control.removeprefix("ipc://")
    came = 0
    with ExitStack() as late_ones, ExitStack() as strangers:
        for _ in range(400):
            peer = strangers.enter_context(socket.socket(socket.AF_UNIX))
            peer.settimeout(0.2)
            try:
                peer.connect(path)
            except OSError:
                break  # nobody accepts it before others leave
            came += 1
        assert came >= 32
        eventually(lambda: len(processes.descriptors(pid)) < 200, what="a supervisor that cuts off whoever is too many")
        late = late_ones.enter_context(house.begin("status", "--json"))
        strangers.close()
        assert str(pid) in late.wait().ok().out  # it found nothing at first, and tried again
    (house.work / "gate").touch()
    assert house.outcome(run)["status"] == "completed"
    eventually(lambda: house.status()["pid"] == pid)
