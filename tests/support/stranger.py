"""Another user of the machine, who tries to get in while honest clients come and go. Needs root, to be that user."""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from tests.support.garbage import GREETING
from tests.support.house import House

UID = 54_321
"""Nobody's."""
_RESET = struct.pack("ii", 1, 0)
_fork = multiprocessing.get_context("fork")


def as_stranger(do: Callable[[], object]) -> object:
    """What this gives when the other user does it."""
    ours, theirs = _fork.Pipe()

    def be() -> None:
        _become_stranger()
        theirs.send(do())

    process = _fork.Process(target=be)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def storm(house: House, run: str, count: int) -> Counter[str]:
    """So many hostile connections, and honest ones all the while: how many there were, got in, and were refused.

    A third of the hostile ones come from a port that was an honest client's a moment before.
    """
    told = house.start()
    host, _, port = told["tcp"].rpartition(":")
    address = (host.strip("[]"), int(port))
    files = [told["unix"], *(str(path) for path in house.runtime.rglob("*") if path.is_socket())]
    ports, ports_in = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ports.setblocking(False)
    ports_in.setblocking(False)
    stop, stop_in = _fork.Pipe(duplex=False)
    results: list[Connection] = []
    processes = []

    def start(do: Callable[[Connection], None]) -> None:
        ours, theirs = _fork.Pipe(duplex=False)
        process = _fork.Process(target=do, args=(theirs,))
        process.start()
        theirs.close()
        results.append(ours)
        processes.append(process)

    share = count // 2
    for seed in range(2):
        start(lambda tell, seed=seed: _be_hostile(address, files, ports, share, seed, tell))  # type: ignore[misc]  # the default binds it now
    for _ in range(2):
        start(lambda tell: _be_honest(address, told["unix"], run, ports_in, stop, tell))
    total: Counter[str] = Counter()
    for result in results[:2]:
        total.update(result.recv())
    stop_in.send(None)
    stop_in.close()
    for result in results[2:]:
        total.update(result.recv())
    for process in processes:
        process.join()
    for end in (ports, ports_in):
        end.close()
    return total


def _become_stranger() -> None:
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


def _be_hostile(
    address: tuple[str, int], files: list[str], ports: socket.socket, count: int, seed: int, tell: Connection
) -> None:
    _become_stranger()
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(count):
        seen["hostile"] += 1
        try:
            said = _over_unix(rng, rng.choice(files)) if rng.random() < 0.2 else _over_tcp(rng, address, ports, seen)
        except OSError:
            continue  # the connection was cut, or never came to be
        # A refusal is an Error line. What ZeroMQ says to somebody it lets in is its greeting.
        if said and not said.startswith(b'{"type":"Error"'):
            seen["admitted"] += 1
            seen[f"{said[:80]!r}"] += 1
    tell.send(seen)


def _over_tcp(rng: random.Random, address: tuple[str, int], ports: socket.socket, seen: Counter[str]) -> bytes:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(20)
        if rng.random() < 0.4:
            _take_a_used_port(client, address[0], ports, seen)
        client.connect(address)
        kind = rng.randrange(5)
        if kind == 0:  # says what it wants and is gone: nobody's connection by the time somebody looks
            client.sendall(b'{"since":"2000-01-01T00:00:00Z"}\n')
            return b""
        if kind == 1:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.sendall(b'{"since":"2000-01-01T00:00:00Z"}\n')
            return b""
        if kind == 2:
            client.sendall(b'{"since":"2000-01-01T00:00:00Z"}\n')
            client.shutdown(socket.SHUT_WR)
        elif kind == 3:
            client.shutdown(socket.SHUT_WR)
        return client.recv(4096)


def _take_a_used_port(client: socket.socket, host: str, ports: socket.socket, seen: Counter[str]) -> None:
    port = 0
    while True:
        try:
            port = int(ports.recv(16))  # the newest of those that are told
        except BlockingIOError:
            break
    if port:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            client.bind((host, port))
        except OSError:
            return  # somebody else was quicker
        seen["ports taken over"] += 1


def _over_unix(rng: random.Random, path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)
        kind = rng.randrange(4)
        if kind == 0:
            root = struct.pack("3i", os.getppid(), 0, 0)  # the kernel lets nobody say so who is not root
            client.sendmsg([GREETING], [(socket.SOL_SOCKET, 2, root)])
        elif kind == 1:
            socket.send_fds(client, [GREETING], [0, 1, 2])
        elif kind == 2:
            client.sendall(b'{"since":"2000-01-01T00:00:00Z"}\n{"op":"end"}\n')
        else:
            client.sendall(GREETING)
        return client.recv(4096)


def _be_honest(
    address: tuple[str, int], unix: str, run: str, ports: socket.socket, stop: Connection, tell: Connection
) -> None:
    """Connect, read an event, leave; and tell from which port."""
    seen: Counter[str] = Counter()
    request = b'{"run":"%b","since":0}\n' % run.encode()
    while not stop.poll(0):
        over_tcp = seen["honest"] % 4 != 3
        client = socket.create_connection(address) if over_tcp else socket.socket(socket.AF_UNIX)
        with client:
            client.settimeout(30)
            if not over_tcp:
                client.connect(unix)
            client.sendall(request)
            seen["honest"] += 1
            if not client.recv(4096).startswith(b'{"type":"RunStarted"'):
                seen["refused"] += 1
            if over_tcp:
                port = client.getsockname()[1]
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # so that the port is free at once
                client.close()
                try:
                    ports.send(b"%d" % port)
                except BlockingIOError:
                    pass  # enough are waiting
    tell.send(seen)


def open_wide(house: House) -> None:
    """Have nothing but the checks of the peer: as if somebody had loosened every mode."""
    for path in [house.top, house.state, house.runtime, house.places.endpoints]:
        path.chmod(0o755)
    for path in [*house.runtime.rglob("*"), Path(house.status()["unix"])]:
        if path.is_socket():
            path.chmod(0o777)
