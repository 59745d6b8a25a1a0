"""The run's end of its PAIR socket, against a real socket that plays the supervisor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from sparrow_mp import wire
from sparrow_mp.events import Message, decode
from sparrow_mp.run.outbox import Outbox
from sparrow_mp.run.uplink import Uplink

pytestmark = pytest.mark.process

RUN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PAIR)
    socket.set(zmq.RCVTIMEO, 5000)
    socket.bind(f"ipc://{tmp_path}/s")
    yield socket
    context.destroy(linger=0)


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[Outbox, int], Uplink]]:
    """Makes an uplink to the supervisor, and closes it at the end."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made: list[Uplink] = []

    def make(outbox: Outbox, last_seq: int) -> Uplink:
        made.append(Uplink(context, f"ipc://{tmp_path}/s", outbox, RUN, last_seq))
        return made[-1]

    yield make
    for uplink in made:
        uplink.close()
    context.term()


def outbox_with(tmp_path: Path, last_seq: int, count: int) -> Outbox:
    Outbox.create(tmp_path / "outbox", 1 << 20, last_seq)
    outbox = Outbox(tmp_path / "outbox", RUN)
    assert outbox.append([Message(role="a", text=str(number)) for number in range(count)]) == count
    return outbox


def events(frame: bytes) -> list[int]:
    assert frame[:1] == wire.EVENTS
    first, lines = wire.split_events(frame)
    seqs = [decode(line).seq for line in lines.splitlines()]
    assert seqs[0] == first
    return seqs


@pytest.mark.parametrize("last_seq", [0, 1, 7])
def test_what_was_appended_before_it_connects_is_numbered_as_it_is(
    tmp_path: Path, supervisor: zmq.Socket[bytes], connect: Callable[[Outbox, int], Uplink], last_seq: int
) -> None:
    outbox = outbox_with(tmp_path, last_seq, 3)
    uplink = connect(outbox, last_seq)
    uplink.hello()
    assert uplink.pump()
    assert supervisor.recv()[:1] == wire.HELLO
    assert events(supervisor.recv()) == [last_seq + 1, last_seq + 2, last_seq + 3]


def test_it_goes_back_to_where_the_supervisor_says(
    tmp_path: Path, supervisor: zmq.Socket[bytes], connect: Callable[[Outbox, int], Uplink]
) -> None:
    outbox = outbox_with(tmp_path, 0, 5)
    uplink = connect(outbox, 0)
    assert uplink.pump()
    assert events(supervisor.recv()) == [1, 2, 3, 4, 5]
    supervisor.send(wire.RESEND + b"2")
    pump_until(uplink, supervisor)
    assert events(supervisor.recv()) == [3, 4, 5]


def test_what_is_acknowledged_is_free_and_a_new_socket_begins_behind_it(
    tmp_path: Path, supervisor: zmq.Socket[bytes], connect: Callable[[Outbox, int], Uplink]
) -> None:
    outbox = outbox_with(tmp_path, 0, 4)
    uplink = connect(outbox, 0)
    uplink.pump()
    supervisor.recv()
    supervisor.send(wire.ACK + b"4")
    while outbox.acked < outbox.state.end:
        uplink.receive()
    assert uplink.silent_for == pytest.approx(0, abs=5)
    outbox.append([Message(role="a", text="more")])
    assert uplink.pump()
    assert events(supervisor.recv()) == [5]


def pump_until(uplink: Uplink, supervisor: zmq.Socket[bytes]) -> None:
    """Turn as the monitor does until something comes out."""
    for _ in range(1000):
        uplink.receive()
        uplink.pump()
        if supervisor.poll(5):
            return
    pytest.fail("nothing was sent again")
