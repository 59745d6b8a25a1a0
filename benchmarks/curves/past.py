"""`sparrow ps`, cold readers and the supervisor's start against the number of runs that have ended."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks import machine
from benchmarks.curves.curve import Curve
from benchmarks.daemon import Sparrow, milliseconds_since, sparrow
from benchmarks.history import lengthen
from benchmarks.rows import Failed, Plan

_LENGTHS = (10, 100, 1_000, 10_000, 100_000)
_SPARROW = str(Path(sys.executable).with_name("sparrow"))
_PS = "sparrow ps"
_LOGS = "sparrow logs RUN, without a supervisor"
_CLIENT = "an NDJSON client: what happened last"
_START = "the supervisor's start"


def by_length(plan: Plan) -> list[Curve]:
    """A history that grows; the last run there is has just ended."""
    curve = Curve("history", "With so many runs in the history", "ended runs", "ms", log_y=True)
    with sparrow(machine.roomy()) as bench:
        done, day = 0, 1
        for length in _LENGTHS[: plan.size(len(_LENGTHS), 3)]:
            day = lengthen(bench, length - done, day)
            done = length
            start = time.perf_counter()
            bench.client.start()
            curve.add(_START, length, milliseconds_since(start))
            last = bench.client.submit("seq 20", engine="shell")
            last.wait(30)
            rounds = range(plan.size(5, 2))
            curve.add(_PS, length, statistics.median(_timed("ps") for _ in rounds))
            curve.add(_CLIENT, length, statistics.median(_heard(bench, last.id) for _ in rounds))
            bench.client.shutdown(now=True)
            curve.add(_LOGS, length, statistics.median(_timed("logs", last.id) for _ in rounds))
    return [curve]


def _timed(*arguments: str) -> float:
    """A whole process, in ms."""
    start = time.perf_counter()
    done = subprocess.run([_SPARROW, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    taken = milliseconds_since(start)
    if done.returncode:
        raise Failed(f"sparrow {arguments[0]} failed: {done.stderr.decode(errors='replace')}")
    return taken


def _heard(bench: Sparrow, run: str) -> float:
    """Milliseconds until a client that asks for all runs of the last minute has the end of the newest."""
    since = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    wanted = f'"RunFinished","run":"{run}"'.encode()
    address = bench.client.status()["unix"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(60)
        start = time.perf_counter()
        client.connect(address)
        client.sendall(json.dumps({"since": since}).encode() + b"\n")
        got = b""
        while wanted not in got:
            data = client.recv(1 << 16)
            if not data:
                raise Failed(f"an NDJSON client was cut off: {got[-200:].decode(errors='replace')}")
            got = got[-200:] + data
        return milliseconds_since(start)
