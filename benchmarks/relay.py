"""The baseline of F1 and F7: PAIR → PUB → SUB with bare pyzmq, one message an event, in three processes.

It checks nothing and records nothing. The sender and the relay are processes of their own; the subscriber is the caller.

What it publishes is what sparrow publishes: two frames, a topic to subscribe by and the event, sent and received with
pyzmq's own multipart calls. Without a topic (``plain``) it is several times as fast and of little use, since then every
subscriber gets everything; that is measured as well, so that nobody is led to think that a relay cannot be faster.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from benchmarks.machine import PLACE
from benchmarks.rows import Failed

_MOMENT = struct.Struct("<Q")
_TOPIC = b"1b0c6a52-7c1e-4f0e-9d0e-2f1f0a9b7c11/Message"


class Relay:
    """The subscriber's end, and the sender's orders."""

    def __init__(self, sub: zmq.Socket[bytes], sender: subprocess.Popen[bytes], *, plain: bool) -> None:
        self._sub = sub
        self._sender = sender
        self._plain = plain

    def order(self, what: str) -> None:
        """Have the sender do something."""
        assert self._sender.stdin is not None
        self._sender.stdin.write(what.encode() + b"\n")
        self._sender.stdin.flush()

    def join(self) -> None:
        """Return when what is sent is received, and nothing is under way."""
        self._sub.set(zmq.RCVTIMEO, 100)
        for _ in range(100):
            self.order("flood 1")
            try:
                self._receive()
                break
            except zmq.Again:
                continue
        else:
            raise Failed("the bare relay does not work")
        try:
            while True:
                self._receive()
        except zmq.Again:
            pass
        self._sub.set(zmq.RCVTIMEO, 10_000)

    def flood(self, count: int) -> float:
        """Events a second, from before the first is sent until the last is received."""
        self.order(f"flood {count}")
        receive = self._sub.recv if self._plain else self._sub.recv_multipart
        try:
            (began,) = _MOMENT.unpack(self._receive())
            for _ in range(count):
                receive()
        except zmq.Again:
            raise Failed("the bare relay lost events") from None
        return count / ((time.monotonic_ns() - began) / 1e9)

    def ticks(self, count: int, pause: float) -> list[float]:
        """The latency of each of some events, a pause apart, in ms."""
        self.order(f"tick {count} {pause}")
        late: list[float] = []
        for _ in range(count):
            data = self._receive()
            late.append((time.monotonic_ns() - _MOMENT.unpack_from(data)[0]) / 1e6)
        return late

    def _receive(self) -> bytes:
        """The event of the next message."""
        return self._sub.recv() if self._plain else self._sub.recv_multipart()[1]


@contextmanager
def relay(*, plain: bool = False, size: int = 200) -> Iterator[Relay]:
    """The three processes, connected; an event has so many bytes."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory(prefix="spb-", dir=PLACE) as folder:
        pair, pub = f"ipc://{folder}/pair", f"ipc://{folder}/pub"
        middle = subprocess.Popen([sys.executable, "-m", "benchmarks.relay", "plain" if plain else "relay", pair, pub])
        sender = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.relay", "send", pair, str(size)], stdin=subprocess.PIPE
        )
        try:
            sub = context.socket(zmq.SUB)
            sub.set(zmq.RCVHWM, 0)
            sub.set(zmq.SUBSCRIBE, b"")
            sub.connect(pub)
            bench = Relay(sub, sender, plain=plain)
            bench.join()
            yield bench
        finally:
            context.destroy(linger=0)
            for process in (sender, middle):
                process.kill()
                process.wait()
            assert sender.stdin is not None
            sender.stdin.close()


def _relay(pair: str, pub: str, *, plain: bool) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    source, sink = context.socket(zmq.PAIR), context.socket(zmq.PUB)
    sink.set(zmq.SNDHWM, 0)  # a PUB that is full drops, and a relay that loses events would be no baseline
    source.bind(pair)
    sink.bind(pub)
    receive, send, send_multipart = source.recv, sink.send, sink.send_multipart
    if plain:
        while True:
            send(receive())
    while True:
        send_multipart((_TOPIC, receive()))


def _send(pair: str, size: int) -> None:
    event = b"x" * size
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sink = context.socket(zmq.PAIR)
    sink.connect(pair)
    send = sink.send
    for line in sys.stdin:
        what, *numbers = line.split()
        if what == "flood":
            send(_MOMENT.pack(time.monotonic_ns()))
            for _ in range(int(numbers[0])):
                send(event)
        elif what == "tick":
            for _ in range(int(numbers[0])):
                time.sleep(float(numbers[1]))
                send(_MOMENT.pack(time.monotonic_ns()) + event[8:])


if __name__ == "__main__":
    if sys.argv[1] == "send":
        _send(sys.argv[2], int(sys.argv[3]))
    else:
        _relay(sys.argv[2], sys.argv[3], plain=sys.argv[1] == "plain")
