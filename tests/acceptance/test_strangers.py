"""Another user of the machine reads nothing and controls nothing, whatever the modes of the folders and sockets are."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import zmq

from tests.support import processes
from tests.support.house import House
from tests.support.stranger import UID, as_stranger, open_wide, storm

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user"),
]


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_nobody_gets_in_and_no_honest_client_is_refused(house: House, address: str):
    house.configure(f'[ndjson]\ntcp = "{address}"\n')
    del house.env["SPARROW_TCP"]
    run = house.detach("--", "cat")
    house.pid_of(run)
    open_wide(house)
    seen = storm(house, run, 600)
    assert seen["hostile"] == 600
    assert seen["honest"] > 20
    assert seen["ports taken over"] > 0
    assert (seen["admitted"], seen["refused"]) == (0, 0), seen


def test_zeromq_lets_no_other_user_in(house: House):
    """With every mode loosened: no reply, no event, and nothing reaches a run."""
    run = house.detach("--", "cat")
    house.pid_of(run)
    open_wide(house)
    (pair,) = house.places.endpoints.iterdir()

    def attempt() -> list[str]:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        heard = []
        for kind, address in (
            (zmq.REQ, house.places.control),
            (zmq.SUB, house.places.events),
            (zmq.PAIR, f"ipc://{pair}"),
        ):
            other = context.socket(kind)
            other.set(zmq.LINGER, 0)
            other.connect(address)
            if kind == zmq.SUB:
                other.subscribe(b"")
            else:
                other.send(b'{"op":"shutdown"}' if kind == zmq.REQ else b"E2\n{}\n")
            if other.poll(400):
                heard.append(address)
        context.destroy(linger=0)
        return heard

    assert as_stranger(attempt) == []
    house.sparrow("inject", run, "x").ok()
    house.says(run, "x")


def test_no_file_and_no_descriptor_is_open_to_another_user(house: House):
    told = house.start()
    run = house.detach("--", "cat")
    monitor = house.monitor_of(run)
    house.top.chmod(0o755)

    def attempt() -> list[str]:
        reached = []
        for folder in (house.state, house.runtime):
            for name in ("", "lock", "index.db", "supervisor.json", "transcripts", "runs", "r", "control.sock"):
                try:
                    os.close(os.open(folder / name, os.O_RDONLY))
                    reached.append(str(folder / name))
                except OSError:
                    continue
        for pid in (told["pid"], told["zygote_pid"], told["adapters_pid"], monitor):
            for name in ("fd", "environ", "mem", "fd/0", "fd/5", "cwd"):
                try:
                    os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
                    reached.append(f"/proc/{pid}/{name}")
                except OSError:
                    continue
        return reached

    assert as_stranger(attempt) == []


def test_no_socket_is_ever_open_to_others_while_it_is_made(house: House):
    """Each has its mode from its first moment: a chmod afterwards would come too late."""
    house.start()
    for path in [house.places.unix_socket, *(path for path in house.runtime.rglob("*") if path.is_socket())]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_port_that_a_stranger_holds_is_told(house: House):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        house.env["SPARROW_TCP"] = f"127.0.0.1:{taken.getsockname()[1]}"
        told = house.start()
        assert told["tcp"] is None
        assert "another program uses the port" in told["problems"][0]


@pytest.mark.parametrize("variable", ["SPARROW_STATE_DIR", "SPARROW_RUNTIME_DIR"])
def test_a_folder_of_somebody_else_is_refused(house: House, variable: str):
    theirs = Path(house.env[variable])
    theirs.mkdir(mode=0o700)
    os.chown(theirs, UID, UID)
    house.sparrow("supervisor").refused(1, f"{theirs} belongs to user {UID}, not to you (0)")
    assert not [pid for pid in house.processes() if "sparrow" in processes.title(pid)]
