"""What a subscriber gets of events that were recorded together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from sparrow_mp.paths import Places
from sparrow_supervisor.hub import Hub
from sparrow_supervisor.loop import Loop
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


@pytest.fixture
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, zmq.Socket[bytes]]]:
    folder = tmp_path_factory.mktemp("h")
    places = Places(state=folder / "s", runtime=folder, config=Path("none"))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    hub = Hub(context, places, Loop())
    sub = context.socket(zmq.SUB)
    sub.connect(places.events)
    sub.set(zmq.SUBSCRIBE, b"")
    sub.set(zmq.RCVTIMEO, 10_000)

    def connected() -> bool:
        hub.publish("probe", "Probe", b"{}\n", 1)
        return bool(sub.poll(5))

    eventually(connected, what="the subscription")
    yield hub, sub
    hub.close()
    context.destroy(linger=0)


def received(sub: zmq.Socket[bytes], total: int) -> list[bytes]:
    found: list[bytes] = []
    while sum(map(len, found)) < total:
        topic, payload = sub.recv_multipart()
        if topic == b"run/Message":
            found.append(payload)
    return found


@pytest.mark.parametrize(
    "lengths", [[10], [1000] * 500, [10, 40_000, 10, 10], [1 << 20], [32 << 10] * 3, [(32 << 10) - 1] * 3]
)
def test_what_is_long_comes_in_parts_that_end_where_events_do(wires, lengths: list[int]) -> None:
    hub, sub = wires
    lines = b"".join(b"%d" % (n % 10) * length + b"\n" for n, length in enumerate(lengths))
    hub.publish("run", "Message", lines, len(lengths))
    parts = received(sub, len(lines))
    assert b"".join(parts) == lines
    assert all(part.endswith(b"\n") for part in parts)
    assert all(len(part) <= 32 << 10 or part.count(b"\n") == 1 for part in parts)
