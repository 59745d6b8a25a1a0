"""The control socket and the event socket, as a program in any language would use them: bare ZeroMQ and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from tests.support.house import House

_TIMEOUT_MS = 30_000


@contextmanager
def connected(house: House, kind: int = zmq.REQ) -> Iterator[zmq.Socket[bytes]]:
    """A socket that is connected to the house's control socket (SUB: to its event socket)."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(kind)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.RCVTIMEO, _TIMEOUT_MS)
    socket.set(zmq.SNDTIMEO, _TIMEOUT_MS)
    socket.connect(house.places.events if kind == zmq.SUB else house.places.control)
    try:
        yield socket
    finally:
        context.destroy(linger=0)


def ask(house: House, request: Any) -> dict[str, Any]:
    """One request and its reply. Bytes are sent as they are, anything else as JSON."""
    with connected(house) as socket:
        socket.send(request if isinstance(request, bytes) else json.dumps(request).encode())
        return json.loads(socket.recv())


def refusal(house: House, request: Any) -> str:
    """The code with which a request is refused; the refusal is checked to be a sentence."""
    reply = ask(house, request)
    assert reply["ok"] is False, reply
    assert len(reply["error"]["message"]) > 10, reply
    return reply["error"]["code"]
