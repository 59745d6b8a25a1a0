"""The curves: how each figure grows with what it depends on. A function each, which measures and gives its plots."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.curves import clients, latency, memory, past, throughput
from benchmarks.curves.curve import Curve
from benchmarks.rows import Plan

CURVES: dict[str, tuple[str, Callable[[Plan], list[Curve]]]] = {
    "size": ("throughput against the size of an event", throughput.by_size),
    "runs": ("throughput against the number of runs", throughput.by_runs),
    "latency": ("latency of one event", latency.of_events),
    "starts": ("from submit to the first event", latency.of_starts),
    "memory": ("memory against the number of runs", memory.by_runs),
    "history": ("`ps` and cold readers against the length of the history", past.by_length),
    "clients": ("the cost of NDJSON clients", clients.by_count),
}
"""What is measured, by a name for the command line."""
