"""S3: a million frames that nobody should send, over all sockets at once: nothing ends, nothing is wedged."""

from __future__ import annotations

import multiprocessing
import random

import pytest

from tests.acceptance.test_hostile_clients import all_is_well, senders
from tests.support.house import House
from tests.support.stress import Figure, scaled

pytestmark = pytest.mark.stress

BATCHES = 10
SHARES = {
    "control": 0.80, "subscriptions": 0.13, "Unix socket": 0.02, "TCP": 0.02, "raw control": 0.01,
    "raw events": 0.01, "raw PAIR": 0.005, "zygote": 0.005,
}  # fmt: skip
"""ZeroMQ takes thousands of frames a connection; elsewhere a frame is a connection of its own."""


@pytest.mark.timeout(1800)
def test_no_frame_stops_or_wedges_anything(house: House, figure: Figure):
    bystander = house.detach("--", "cat")
    house.pid_of(bystander)
    before = house.status()
    count = scaled(1_000_000) // BATCHES
    sent = 0
    fork = multiprocessing.get_context("fork")
    for batch in range(BATCHES):
        results = fork.SimpleQueue()
        works = senders(house)
        assert works.keys() == SHARES.keys()

        def work(names: list[str], batch: int = batch, works: dict = works, results=results) -> None:
            done = 0
            for name in names:
                done += works[name](random.Random(f"{name} {batch}"), round(count * SHARES[name]))
            results.put(done)

        # ZeroMQ's senders each in a process without a context; two at a time, like the machine's cores.
        shares = [["control", "raw PAIR"], [name for name in SHARES if name not in ("control", "raw PAIR")]]
        processes = [fork.Process(target=work, args=(share,)) for share in shares]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        sent += results.get() + results.get()
        all_is_well(house, bystander)
        after = house.status()
        for name in ("pid", "zygote_pid", "adapters_pid"):
            assert after[name] == before[name], f"{name}: it ended, and came again"
    figure(
        f"S3: {sent:,} hostile frames over {len(SHARES)} kinds of socket: 0 crashes, 0 wedged (all was well {BATCHES} times)"
    )
