"""What NDJSON clients cost: CPU time of the adapters and of the supervisor an event, with 0 to 100 clients of everything."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks import crowd
from benchmarks.curves.curve import Curve
from benchmarks.daemon import Sparrow, sparrow
from benchmarks.rows import Failed, Plan

_COUNTS = (0, 1, 3, 10, 30, 100)


def by_count(plan: Plan) -> list[Curve]:
    """One run floods; every client has to get every event, the last one included."""
    cpu = Curve("clients", "Cost of NDJSON clients that take everything", "clients", "µs of CPU an event", log_x=False)
    rate = Curve("clients-rate", "Throughput of one run while NDJSON clients take everything", "clients", "events/s")
    rate.log_x = False
    count = plan.size(20_000, 3_000)
    with sparrow() as bench:
        pids = {
            name: bench.client.status()[key]
            for name, key in (("the supervisor", "pid"), ("the adapters", "adapters_pid"))
        }
        for clients in _COUNTS if not plan.quick else (0, 1, 10):
            before = {name: _seconds(pid) for name, pid in pids.items()}
            with _Readers(bench, clients, count) as readers:
                rate.add("emit_many() of 100", clients, crowd.emitted_whole(bench, 1, count))
                readers.finish()
            for name, pid in pids.items():
                cpu.add(name, clients, (_seconds(pid) - before[name]) / count * 1e6)
    return [cpu, rate]


class _Readers:
    """A process that reads with so many clients and counts."""

    def __init__(self, bench: Sparrow, clients: int, events: int) -> None:
        argv = [sys.executable, "-m", "benchmarks.readers", bench.client.status()["unix"], str(clients), str(events)]
        # Without a buffer, in which what it says next might stay.
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"there\n":
            raise Failed("the NDJSON clients could not connect")

    def __enter__(self) -> _Readers:
        return self

    def finish(self) -> None:
        """Return when each of them has got everything. Raises Failed where one has not."""
        try:
            said, _ = self._process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            raise Failed("an NDJSON client did not get everything within a minute") from None
        if said != b"all\n":
            raise Failed("an NDJSON client did not get everything")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _seconds(pid: int) -> float:
    """The CPU time of all threads of a process, in seconds; finer than the hundredths of /proc/PID/stat."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9
