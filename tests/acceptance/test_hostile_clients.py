"""Whatever a client sends, and however many come: the supervisor and its adapters do what they are for."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

import pytest
import zmq

from sparrow_mp.paths import UNIX_ADDRESS_LIMIT
from tests.support import garbage, processes
from tests.support.control import ask, connected
from tests.support.house import BIN, Going, House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def senders(house: House) -> dict[str, garbage.Sender]:
    """One for each socket that there is."""
    places, told = house.places, house.start()
    host, port = told["tcp"].split(":")

    def unix() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(told["unix"])
        return client

    def tcp() -> socket.socket:
        return socket.create_connection((host, int(port)), timeout=20)

    (zygote,) = places.runtime.glob("zygote*.sock")
    eventually(lambda: len(list(places.endpoints.iterdir())) == 1, what="the end of all sockets but the bystander's")
    (pair,) = places.endpoints.iterdir()
    return {
        "control": garbage.control(places.control),
        "subscriptions": garbage.subscriptions(places.events),
        "raw control": garbage.raw(places.runtime / "control.sock"),
        "raw events": garbage.raw(places.runtime / "events.sock"),
        "raw PAIR": garbage.raw(pair),
        "zygote": garbage.raw(zygote),
        "Unix socket": garbage.lines(unix),
        "TCP": garbage.lines(tcp),
    }


def all_is_well(house: House, bystander: str) -> None:
    """`status` answers, a new run completes, and the events of another run flow."""
    with connected(house, zmq.SUB) as hearing:
        hearing.subscribe(bystander.encode())
        eventually(lambda: ask(house, {"op": "inject", "run": bystander, "text": "x"})["ok"], what="an injection")

        def heard() -> bool:
            if not hearing.poll(200):
                ask(house, {"op": "inject", "run": bystander, "text": "x"})  # the subscription took a moment
                return False
            return True

        eventually(heard, what="an event of another run")
    assert ask(house, {"op": "status"})["ok"]
    run = house.detach("--", "true")
    assert house.outcome(run)["status"] == "completed"


@pytest.fixture(scope="module")
def bystander(shared: House) -> str:
    run = shared.detach("--", "cat")
    shared.pid_of(run)
    return run


@pytest.mark.parametrize(
    "name", ["control", "subscriptions", "raw control", "raw events", "raw PAIR", "zygote", "Unix socket", "TCP"]
)
def test_no_frame_stops_anything(shared: House, bystander: str, name: str):
    before = shared.status()
    send: Callable[[random.Random, int], int] = senders(shared)[name]
    send(random.Random(name), 2000 if name in ("control", "subscriptions") else 200)
    all_is_well(shared, bystander)
    after = shared.status()
    assert [after[key] for key in ("pid", "zygote_pid", "adapters_pid")] == [
        before[key] for key in ("pid", "zygote_pid", "adapters_pid")
    ]


def test_no_number_of_connections_ends_it(house: House):
    """libzmq ends the process that has no descriptor left for a connection, so there must always be one."""
    few = ["prlimit", "--nofile=512:512", str(BIN / "sparrow"), "supervisor"]
    with Going(few, house.env, house.work, None) as going:
        eventually(lambda: "ready:" in going.err, what="a supervisor")
        for name in ("control.sock", "events.sock"):
            crowd = []
            for _ in range(900):
                client = socket.socket(socket.AF_UNIX)
                crowd.append(client)
                client.connect(str(house.runtime / name))
            assert going.process.poll() is None, going.err
            for client in crowd:
                client.close()
            eventually(lambda: house.status()["pid"] == going.process.pid, 30, "an answer")
        assert "which is the limit" in going.err
        pid = going.process.pid
        eventually(lambda: len(processes.descriptors(pid)) < 60, what="the end of all those connections")
        house.sparrow("run", "true").ok()
        house.sparrow("shutdown").ok()


def test_a_stranger_that_is_first_at_a_runs_socket_does_not_lock_it_out(house: House):
    """The endpoint's name is known before its run begins, and PAIR takes one peer alone."""
    house.configure("[supervisor]\nmax_runs = 1\n")
    first = house.detach("--", "cat")
    house.pid_of(first)
    run = house.detach("--", "sh", "-c", "read line; echo got $line")
    endpoint = house.places.endpoint(run)
    assert len(endpoint) < UNIX_ADDRESS_LIMIT
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    strangers = [context.socket(zmq.PAIR) for _ in range(20)]
    for stranger in strangers:
        stranger.set(zmq.LINGER, 0)
        stranger.set(zmq.RECONNECT_IVL, 1)
        stranger.connect(endpoint)
        stranger.send(b"E1\n{}\n", zmq.NOBLOCK)
    house.sparrow("kill", "--now", first).ok()
    house.pid_of(run)
    house.sparrow("inject", run, "it").ok()
    assert house.outcome(run)["status"] == "completed"
    assert "got it" in house.printed(run)
    assert not any(stranger.poll(0) for stranger in strangers)
    context.destroy(linger=0)
