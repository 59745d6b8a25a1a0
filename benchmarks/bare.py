"""The baseline of F8: what one bare PAIR socket can receive, a message an event, from a process that only sends."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import zmq

from benchmarks.machine import PLACE
from benchmarks.rows import Failed

_SIZE = 200


class Pair:
    """The end that receives, and the sender's orders."""

    def __init__(self, socket: zmq.Socket[bytes], sender: subprocess.Popen[bytes]) -> None:
        self._socket = socket
        self._sender = sender

    def flood(self, count: int) -> float:
        """Messages a second, from the first that is received until the last is."""
        assert self._sender.stdin is not None
        self._sender.stdin.write(b"%d\n" % (count + 1))
        self._sender.stdin.flush()
        receive = self._socket.recv
        try:
            receive()
            start = time.perf_counter()
            for _ in range(count):
                receive()
        except zmq.Again:
            raise Failed("the bare PAIR socket got nothing") from None
        return count / (time.perf_counter() - start)


@contextmanager
def pair() -> Iterator[Pair]:
    """Both processes, connected; this is the one that receives."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory(prefix="spb-", dir=PLACE) as folder:
        address = f"ipc://{folder}/pair"
        socket = context.socket(zmq.PAIR)
        socket.set(zmq.RCVTIMEO, 20_000)
        socket.bind(address)
        sender = subprocess.Popen([sys.executable, "-m", "benchmarks.bare", address], stdin=subprocess.PIPE)
        try:
            bench = Pair(socket, sender)
            bench.flood(1000)
            yield bench
        finally:
            context.destroy(linger=0)
            sender.kill()
            sender.communicate()


def _send(address: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PAIR)
    socket.connect(address)
    send, event = socket.send, b"x" * _SIZE
    for line in sys.stdin:
        for _ in range(int(line)):
            send(event)


if __name__ == "__main__":
    _send(sys.argv[1])
