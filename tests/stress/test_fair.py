"""Promise S6: a run that floods, hangs or leaks, and a client that stalls, hurt only themselves."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import statistics
import threading
import time
from contextlib import ExitStack, suppress
from datetime import datetime

import pytest
import zmq

from sparrow_mp import Client
from tests.support import processes
from tests.support.control import connected
from tests.support.house import House
from tests.support.memory import resident
from tests.support.stress import Figure, scaled

pytestmark = [pytest.mark.stress, pytest.mark.alone]

ENGINES = """
import os, time
from sparrow_mp import Message

def flood(run):
    events = [Message(role="assistant", text="x" * 100)] * 100
    while not run.interrupted:
        run.emit_many(events)

def beat(run):
    while not run.interrupted:
        run.emit(Message(role="assistant", text="beat"))
        time.sleep(0.02)

def leak(run):
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
    kept = []
    while True:
        kept.append(bytearray(1 << 20))
        time.sleep(0.001)
"""


class Ear:
    """A subscriber of its own thread: how late each event of some runs is, and whether one is missing."""

    def __init__(self, house: House, runs: list[str]) -> None:
        self.late: list[float] = []
        self.seqs: dict[str, list[int]] = {run: [] for run in runs}
        self._over = threading.Event()
        self._house = house
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Ear:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _listen(self) -> None:
        with connected(self._house, zmq.SUB) as sub:
            sub.set(zmq.RCVTIMEO, 100)
            for run in self.seqs:
                sub.set(zmq.SUBSCRIBE, run.encode())
            while not self._over.is_set():
                try:
                    _, payload = sub.recv_multipart()
                except zmq.Again:
                    continue
                now = time.time()
                for line in payload.splitlines():
                    event = json.loads(line)
                    self.late.append(now - datetime.fromisoformat(event["ts"]).timestamp())
                    self.seqs[event["run"]].append(event["seq"])

    def holes(self) -> int:
        return sum(b != a + 1 for seqs in self.seqs.values() for a, b in itertools.pairwise(seqs))


def ask_often(client: Client, seconds: float) -> list[float]:
    """How long `list` takes, asked again and again."""
    took: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        client.list()
        took.append(time.perf_counter() - began)
        time.sleep(0.05)  # how often somebody asks
    return took


def ps_takes(house: House) -> float:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        house.sparrow("ps").ok()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] * 1000


def test_s6_one_run_floods(house: House, figure: Figure) -> None:
    """The promise to its letter. What else may go wrong at the same time is below."""
    seconds = max(3.0, scaled(10))
    house.write("engines.py", ENGINES)
    house.start()
    with Client(places=house.places, timeout=30) as client:

        def start(task: str) -> str:
            return client.submit(f"engines.py:{task}", engine="python", cwd=house.work, env=house.env).id

        beats = [start("beat") for _ in range(3)]
        flood = start("flood")
        with Ear(house, beats) as ear:
            lists = ask_often(client, seconds)
        took = ps_takes(house)
        for run in [*beats, flood]:
            client.interrupt(run)
            assert client.wait(run, 60).status in ("interrupted", "completed")
    assert ear.holes() == 0
    assert len(ear.late) > len(beats) * seconds * 10
    figure(
        f"S6: 1 run floods, 3 others work: their events p99 {p99(ear.late):.1f} ms late; `list` p99 {p99(lists):.0f} ms;"
        f" `sparrow ps` {took * 1000:.0f} ms"
    )


@pytest.mark.parametrize("count", [1, 25])
def test_s6_others_notice_nothing(house: House, figure: Figure, count: int) -> None:
    seconds = max(3.0, scaled(15))
    house.write("engines.py", ENGINES)
    told = house.start()
    with Client(places=house.places, timeout=30) as client, ExitStack() as stack:

        def start(task: str) -> str:
            return client.submit(f"engines.py:{task}", engine="python", cwd=house.work, env=house.env).id

        beats = [start("beat") for _ in range(3)]
        with Ear(house, beats) as quiet:
            quiet_list = ask_often(client, seconds / 3)
        quiet_ps = ps_takes(house)

        for address in (told["unix"], told["tcp"]):  # clients that take nothing
            stalled = stack.enter_context(
                socket.socket(socket.AF_UNIX if "/" in address else socket.AF_INET, socket.SOCK_STREAM)
            )
            host, _, port = address.rpartition(":")
            stalled.connect(address if "/" in address else (host, int(port)))
        stack.enter_context(connected(house, zmq.SUB)).set(zmq.SUBSCRIBE, b"")  # its thread reads, we do not
        floods = [start("flood") for _ in range(count)]
        floods.append(client.submit("yes", argv=["yes"], env=house.env, cwd=house.work).id)
        logs = stack.enter_context(house.begin("logs", "-f", floods[0]))
        hung = start("flood")
        os.kill(house.pid_of(hung), signal.SIGSTOP)
        os.kill(logs.process.pid, signal.SIGSTOP)
        leaks = start("leak")
        before = resident(told["pid"])
        with Ear(house, beats) as loud:
            loud_list = ask_often(client, seconds)
        grown = resident(told["pid"]) - before
        loud_ps = ps_takes(house)
        events = sum(row.events for row in client.list())

        client.interrupt(hung, now=True)
        assert client.wait(hung, 30).status == "interrupted"
        assert client.wait(leaks, 60).status == "failed"
        assert house.status()["pid"] == told["pid"]
        for run in floods:
            with suppress(Exception):  # one may have ended
                client.interrupt(run, now=True)
        for run in [*floods, *beats]:
            if run in beats:
                client.interrupt(run)
            assert client.wait(run, 60).status in ("interrupted", "completed")
        for run in beats:
            house.events(run)  # numbered without a hole
    assert quiet.holes() == loud.holes() == 0
    assert len(loud.late) > len(beats) * seconds * 10
    assert grown < 200 << 20
    assert not [pid for pid in processes.pids() if processes.state(pid) == "Z" and processes.parent(pid) == told["pid"]]
    figure(
        f"S6: {count} {'run floods' if count == 1 else 'runs flood'}, one prints `yes`, one leaks, one is stopped, clients stall ({events / 1e6:.1f} million"
        f" events): others' events p99 {p99(loud.late):.1f} ms late (quiet {p99(quiet.late):.1f}); `list` p99"
        f" {p99(loud_list):.0f} ms (quiet {p99(quiet_list):.0f}); `sparrow ps` {loud_ps * 1000:.0f} ms (quiet"
        f" {quiet_ps * 1000:.0f}); the supervisor grew by {grown >> 20} MiB"
    )
    assert statistics.median(loud.late) < 1, "others waited for the floods"
