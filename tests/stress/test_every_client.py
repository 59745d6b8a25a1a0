"""Promise N3: whoever resumes, lags or stalls gets every event once, and nobody's memory grows with it."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest

from sparrow_mp import AsyncClient, Client
from sparrow_mp.errors import SparrowError
from sparrow_mp.paths import Places
from tests.support import processes
from tests.support.house import House
from tests.support.memory import resident
from tests.support.stress import Figure, scaled
from tests.support.waiting import eventually

pytestmark = [pytest.mark.stress, pytest.mark.alone]

RUNS = 4
RATE = 20_000
"""Events a second of all runs together."""
ENGINE = """
import os, time
from sparrow_mp import Message

def emit(run):
    rate, seconds = float(os.environ["RATE"]), float(os.environ["SECONDS"])
    began = time.monotonic()
    done = 0
    while done < rate * seconds:
        due = min(int((time.monotonic() - began) * rate), int(rate * seconds)) - done
        if due > 0:
            run.emit_many([Message(role="assistant", text="x" * 60)] * min(due, 500))
            done += min(due, 500)
        time.sleep(0.005)
"""
KINDS = ["quick", "quick", "slow", "slow", "stalled", "reconnecting"]


class Reader(threading.Thread):
    """A client of one run, from its first event to its last, which remembers what it got."""

    def __init__(self, run: str, kind: str) -> None:
        super().__init__(daemon=True)
        self.run_id, self.kind = run, kind
        self.seqs: list[int] = []


class LibraryReader(Reader):
    """A stream of the library's, which resumes by itself."""

    def __init__(self, places: Places, run: str) -> None:
        super().__init__(run, "Client")
        self.places = places

    def run(self) -> None:
        with Client(places=self.places, start=False) as client:
            for event in client.events(self.run_id):
                self.seqs.append(event.seq)


class AsyncReader(LibraryReader):
    """The same with asyncio."""

    def run(self) -> None:
        self.kind = "AsyncClient"
        asyncio.run(self.read())

    async def read(self) -> None:
        async with AsyncClient(places=self.places, start=False) as client:
            async for event in client.events(self.run_id):
                self.seqs.append(event.seq)


class NdjsonReader(Reader):
    """A client of the adapters, of one of KINDS."""

    def __init__(self, address: str, run: str, kind: str, number: int) -> None:
        super().__init__(run, kind)
        self.address = address
        self.chance = random.Random(number)
        self.ended = False

    def connect(self) -> socket.socket:
        host, colon, port = self.address.rpartition(":")
        peer = socket.socket(socket.AF_INET if colon else socket.AF_UNIX, socket.SOCK_STREAM)
        eventually(lambda: peer.connect_ex((host, int(port)) if colon else self.address) == 0, 30, "adapters")
        if self.kind == "reconnecting":
            time.sleep(self.chance.choice([0, 0.2]))  # it asks late, and is sent events of all runs before
        request = {"run": self.run_id, "since": self.seqs[-1] if self.seqs else 0}
        peer.sendall(json.dumps(request).encode() + b"\n")
        return peer

    def run(self) -> None:
        while not self.ended:
            until = time.monotonic() + self.chance.uniform(0.1, 1) if self.kind == "reconnecting" else float("inf")
            with suppress(ConnectionError), self.connect() as peer, peer.makefile("rb") as lines:
                since, begun = len(self.seqs), False
                if self.kind == "stalled" and not since:
                    time.sleep(5)  # it takes nothing at all for so long
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    event = json.loads(line)
                    if (event["run"], event["seq"]) == (self.run_id, since + 1):
                        begun = True  # what came before is of all runs: its request was read only now
                        del self.seqs[since:]
                    if not begun:
                        continue
                    self.seqs.append(event["seq"] if event["run"] == self.run_id else -1)
                    self.ended = event["type"] == "RunFinished"
                    if self.kind == "slow" and len(self.seqs) % 5000 == 0:
                        time.sleep(0.5)  # it is slow
                    if self.ended or time.monotonic() > until:
                        break


def another(client: Client, victim: str, old: int) -> dict[str, Any]:
    """The status, once supervisor or adapters are others than ``old``; empty until then."""
    try:
        told = client.status()
    except SparrowError:
        return {}  # there is none at the moment
    pid = told["pid" if victim == "supervisor" else "adapters_pid"]
    return told if told["unix"] and pid and pid != old else {}


@pytest.mark.parametrize("victim", ["", "adapters", "supervisor"], ids=lambda victim: victim or "nobody")
def test_n3_every_client_gets_every_event_once(house: House, figure: Figure, victim: str) -> None:
    """Whoever is killed meanwhile."""
    seconds = max(3, scaled(20))
    kills = 3 if victim else 0
    house.env["SPARROW_SUPERVISOR_RESTART"] = "true"
    house.write("engine.py", ENGINE)
    told = house.start()
    env = {**house.env, "RATE": str(RATE / RUNS), "SECONDS": str(seconds)}
    with Client(places=house.places, timeout=60) as client, ExitStack() as stack:
        watched = {"supervisor": told["pid"], "adapters": told["adapters_pid"]}
        before = {name: resident(pid) for name, pid in watched.items()}
        began = time.monotonic()
        runs = [client.submit("engine.py:emit", engine="python", cwd=house.work, env=env).id for _ in range(RUNS)]
        readers: list[Reader] = [
            NdjsonReader(
                told[("unix", "tcp")[number % 2 if not kills else 0]],  # a port is another one after each start
                runs[number % RUNS],
                KINDS[number % len(KINDS)],
                number,
            )
            for number in range(12)
        ]
        readers += [LibraryReader(house.places, run) for run in runs[:2]]
        readers += [AsyncReader(house.places, run) for run in runs[2:]]
        for reader in readers:
            reader.start()
        logs = [(run, stack.enter_context(house.begin("logs", "-f", "--json", run))) for run in runs]
        most = dict.fromkeys(watched, 0)
        killed = 0
        while any(reader.is_alive() for reader in readers) and time.monotonic() - began < 600:
            for name, pid in watched.items():
                most[name] = max(most[name], resident(pid) - before[name])
            time.sleep(0.2)  # how often the memory is looked at
            if killed < kills and time.monotonic() - began > (killed + 1) * seconds / (kills + 1):
                processes.kill(watched[victim])
                killed += 1
                now = eventually(partial(another, client, victim, watched[victim]), 30, f"another {victim}")
                watched = {"supervisor": now["pid"], "adapters": now["adapters_pid"]}
        assert killed == kills
        took = time.monotonic() - began
        total = 0
        for run in runs:
            assert client.wait(run, 60).status == "completed"
            count = client.get(run).events
            assert count > RATE / RUNS * seconds
            total += count
            whole = list(range(1, count + 1))
            for reader in readers:
                if reader.run_id == run:
                    assert reader.seqs == whole, (reader.kind, len(reader.seqs), count)
            for followed, going in logs:
                if followed == run:
                    assert [row["seq"] for row in going.wait(120).rows()] == whole, "sparrow logs -f"
    assert max(most.values()) < 150 << 20, most
    figure(
        f"N3: {killed} kills{f' of the {victim}' if victim else ''}, {len(readers) + len(logs)} clients (NDJSON: quick, slow,"
        f" stalled, reconnecting; `logs -f`; Client; AsyncClient), {total:,} events in {took:.0f} s: 0 holes, 0 repeats;"
        f" supervisor +{most['supervisor'] >> 20} MiB, adapters +{most['adapters'] >> 20} MiB"
    )
