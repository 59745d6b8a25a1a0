"""Promise L4: nothing stays of a time of use, neither descriptors nor memory, and a plot that shows it."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sparrow_mp import Client
from sparrow_mp.client import Run
from sparrow_mp.errors import SparrowError
from tests.support import processes
from tests.support.house import House
from tests.support.soak import PROCESSES, Sampler, draw
from tests.support.stress import FACTOR, Figure, scaled
from tests.support.waiting import eventually

pytestmark = [pytest.mark.stress, pytest.mark.alone]

ROOT = Path(__file__).resolve().parents[2]
MAX_RUNS = 4
WORKERS = 6
"""More than there are places, so that runs wait in the queue."""
ENGINES = """
from sparrow_mp import Message, Progress

def work(run):
    run.emit_many([Message(role="assistant", text="x" * 200)] * 300)
    for done in range(20):
        run.emit(Progress(done=done, total=20))
    return {"done": True}

def fail(run):
    raise ValueError("it was to fail")

def listen(run):
    return run.next_message(60)

def ask(run):
    return run.ask("may I?", timeout=60)
"""


def leave(run: Run) -> None:
    """Do nothing to it."""


def interrupt(run: Run) -> None:
    run.interrupt("enough", grace=0.3)


def kill(run: Run) -> None:
    run.interrupt(now=True)


def begun(run: Run) -> Any:
    """Its record, once it runs."""

    def record() -> Any:
        found = run.record()
        return found if found.status == "running" and found.pid else None

    return eventually(record, 60, "a run that runs")


def kill_running(run: Run) -> None:
    begun(run)
    run.interrupt(now=True)


def kill_monitor(run: Run) -> None:
    processes.kill(processes.parent(begun(run).pid))


def inject(run: Run) -> None:
    begun(run)
    run.inject("a word")


def approve(run: Run) -> None:
    eventually(lambda: run.record().waiting, 60, "a question")
    run.approve("AllowOnce")


SLEEP = {"argv": ["sleep", "1000"]}
LIVES: list[tuple[dict[str, Any], Callable[[Run], None], str]] = [
    ({"task": "echo hello; echo there >&2; sleep 0.02"}, leave, "completed"),
    ({"task": "sleep 1000 & setsid sleep 1000 & exit 7"}, leave, "failed"),
    ({"task": "kill -9 $$"}, leave, "crashed"),
    ({"argv": ["seq", "2000"]}, leave, "completed"),
    ({"argv": ["/no/such/program"]}, leave, "rejected"),
    ({"task": "engines.py:work", "engine": "python"}, leave, "completed"),
    ({"task": "engines.py:fail", "engine": "python"}, leave, "failed"),
    ({"task": "engines.py:listen", "engine": "python"}, inject, "completed"),
    ({"task": "engines.py:ask", "engine": "python"}, approve, "completed"),
    ({"task": "read line; echo got $line"}, inject, "completed"),
    ({"task": "sleep 1000", "timeout": 0.3}, leave, "timed_out"),
    ({"task": "trap '' TERM; sleep 1000 & setsid sleep 1000 & wait; wait"}, interrupt, "interrupted"),
    (SLEEP, interrupt, "interrupted"),
    (SLEEP, kill, "interrupted"),
    (SLEEP, kill_running, "interrupted"),
    (SLEEP, kill_monitor, "crashed"),
]
"""What is submitted, what is done to it, and how it has to end."""


KILLED: set[int] = set()
"""Of a command that is killed after a while, wherever it is."""


class Load:
    """Everything that is done to the house, each in a thread of its own, from ``with`` to its end; faults are raised there."""

    def __init__(self, house: House, seed: int) -> None:
        self.house = house
        self.unix = str(house.places.unix_socket)
        self.over = threading.Event()
        self.runs = self.clients = self.commands = 0
        self.recent: deque[str] = deque(maxlen=20)
        self.ended: deque[str] = deque(maxlen=200)
        self._faults: list[BaseException] = []
        parts = [self._submit] * WORKERS + [self._connect] * 4 + [self._follow] * 2 + [self._command] * 2 + [self._stay]
        self._threads = [
            threading.Thread(target=self._repeat, args=(part, random.Random(f"{seed}/{number}")), daemon=True)
            for number, part in enumerate(parts)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with Client(places=self.house.places, start=False) as client:
            while any(thread.is_alive() for thread in self._threads):
                client.submit("true", env=self.house.env, cwd=self.house.work).wait(60)  # wakes who follows all runs
        if self._faults:
            raise self._faults[0]

    @property
    def faulty(self) -> bool:
        """Whether it has found a fault, and so does nothing more."""
        return bool(self._faults)

    def _repeat(self, part: Callable[[Client, random.Random], None], chance: random.Random) -> None:
        with Client(places=self.house.places, start=False, timeout=30) as client:
            while not self.over.is_set() and not self.faulty:
                try:
                    part(client, chance)
                except BaseException as fault:  # whatever it is, the test's own thread has to raise it
                    self._faults.append(fault)

    def _submit(self, client: Client, chance: random.Random) -> None:
        asked, act, end = chance.choice(LIVES)
        try:
            run = client.submit(**asked, cwd=self.house.work, env=self.house.env, labels=["soak"])
            self.recent.append(run.id)
            act(run)
            record = run.wait(60)
        except (SparrowError, AssertionError) as error:
            raise AssertionError(f"{asked}: {error!r}") from error
        assert record.status == end, (asked, record)
        self.runs += 1
        self.ended.append(run.id)

    def _connect(self, client: Client, chance: random.Random) -> None:
        """A client of the adapters that asks for something or not, reads, stalls, and goes in some way."""
        address = client.status()[chance.choice(["unix", "tcp"])]  # the port is another one after each start
        host, colon, port = address.rpartition(":")
        run = chance.choice(self.recent) if self.recent else "none"
        asked = chance.choice(
            [None, {"run": run, "since": 0}, {"since": "2026-01-01T00:00:00Z"}, {"types": ["RunFinished"]}, "nonsense"]
        )
        with suppress(OSError), socket.socket(socket.AF_INET if colon else socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(1)
            peer.connect((host, int(port)) if colon else address)
            self.clients += 1
            if asked is not None:
                peer.sendall(json.dumps(asked).encode() + b"\n")
            until = time.monotonic() + chance.uniform(0, 2)
            if chance.random() < 0.3:
                self.over.wait(2)  # it stalls
            while time.monotonic() < until and peer.recv(1 << 16):
                pass
            if chance.random() < 0.5:  # it dies: a reset instead of an orderly end
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.over.wait(0.05)

    def _stay(self, client: Client, chance: random.Random) -> None:
        """A client of everything that stays for as long as the adapters do."""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(1)
            peer.connect(self.unix)
            while not self.over.is_set() and peer.recv(1 << 16):
                pass
        self.over.wait(0.05)

    def _follow(self, client: Client, chance: random.Random) -> None:
        """The library's streams: of a run to its end, of all of them for a while."""
        until = time.monotonic() + chance.uniform(0.5, 3)
        if self.recent and chance.random() < 0.7:
            with suppress(SparrowError):  # it may have been deleted by now
                for _ in client.events(chance.choice(self.recent)):
                    pass
            self.over.wait(0.1)
            return
        for _ in client.subscribe_all(types=["RunFinished"]):
            if time.monotonic() > until or self.over.is_set():
                break

    def _command(self, client: Client, chance: random.Random) -> None:
        if not self.ended:
            self.over.wait(0.2)
            return
        run = chance.choice(self.recent)
        choices: list[tuple[list[str], set[int]]] = [  # and the codes with which it may exit
            (["ps"], {0}),
            (["ps", "-a", "--json"], {0}),
            (["status"], {0}),
            (["doctor"], {0, 1}),
            (["logs", run], {0, 3}),
            (["logs", "-f", run], KILLED),
            (["events"], KILLED),
            (["wait", run], KILLED),
            (["prune", "--older-than", "10s"], {0}),
            (["rm", chance.choice(self.ended)], {0, 3}),
            (["run", "--", "echo", "hello"], {0}),
        ]
        args, codes = chance.choice(choices)
        with self.house.begin(*args) as going:
            if codes is KILLED:
                self.over.wait(chance.uniform(0.3, 1))
                return  # which kills it
            done = going.wait()
        assert done.code in codes, done
        assert b"Traceback" not in done.stderr, done
        self.commands += 1


def another_than(client: Client, adapters: int) -> int:
    """The pid of adapters that are not these; 0 where there are none yet."""
    pid = client.status()["adapters_pid"]
    return pid if pid and pid != adapters else 0


def mib(size: float) -> str:
    return f"{size / (1 << 20):.1f}"


def test_l4_nothing_stays_of_a_time_of_use(house: House, figure: Figure) -> None:
    seconds = max(12, scaled(180))
    house.write("engines.py", ENGINES)
    house.configure(f"[supervisor]\nmax_runs = {MAX_RUNS}\n")
    house.start()
    client = Client(places=house.places, start=False)
    told = client.status()  # from here on it has its one connection
    pids = {name: told["pid" if name == "supervisor" else f"{name}_pid"] for name in PROCESSES}
    marks: list[tuple[float, str]] = []
    with client, Sampler(house, lambda: list(pids.values())) as sampler:
        with Load(house, 0) as load:
            load.over.wait(min(20, seconds / 4))  # until everything has been used once
        begin, held = sampler.at_rest(), sampler.links()
        with Load(house, 1) as load:
            began = time.monotonic()
            kills = iter([seconds * share for share in (0.2, 0.5, 0.8)])
            kill_at = next(kills)
            while (gone := time.monotonic() - began) < seconds and not load.faulty:
                load.over.wait(0.2)  # how often the time is looked at
                if gone > kill_at:
                    kill_at = next(kills, float("inf"))
                    victim = pids["adapters"]
                    processes.kill(victim)
                    marks.append((sampler.look().at, "adapters killed"))
                    pids["adapters"] = eventually(partial(another_than, client, victim), 30, "new adapters")
        loaded_end = sampler.look().at
        end = sampler.at_rest()
        links = sampler.links()
    plot = ROOT / "benchmarks" / "out" / "soak.svg"
    draw(sampler.samples, marks, plot)
    if os.environ.get("SPARROW_PLOTS") == "docs":
        shutil.copy(plot, ROOT / "docs" / "plots" / "soak.svg")
    third = (loaded_end - begin.at) / 3
    middle = sampler.memory(begin.at + third, begin.at + 2 * third)
    last = sampler.memory(begin.at + 2 * third, loaded_end)
    words = [
        f"{name} {begin.descriptors[n]} → {end.descriptors[n]} descriptors, {mib(middle[n])} → {mib(last[n])} MiB"
        for n, name in enumerate(PROCESSES)
    ]
    figure(
        f"L4: {seconds} s, {load.runs:,} runs, {load.clients:,} clients, {load.commands:,} commands, {len(marks)} kills of"
        f" the adapters: {'; '.join(words)} (memory: middle → last third); {end.zombies} zombies, {end.folders} folders left"
    )
    assert house.status()["pid"] == pids["supervisor"], "it has to be one supervisor all the time"
    assert end.zombies == end.folders == 0
    assert (links - held, held - links) == (Counter(), Counter()), "descriptors: more, fewer"
    assert end.held() == begin.held()
    for before, after, name in zip(middle, last, PROCESSES, strict=True):
        assert after < before * 1.1 + (8 << 20), f"the {name} grew from {mib(before)} to {mib(after)} MiB"
    assert load.runs > seconds * min(1.0, FACTOR)
