"""ROUTER: requests in, replies out. What a request means is the desk's business."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial

import zmq

from sparrow_mp import wire
from sparrow_mp.errors import SparrowError
from sparrow_mp.paths import Places, check_address
from sparrow_supervisor.clients import client_of
from sparrow_supervisor.doorkeeper import Doorkeeper
from sparrow_supervisor.loop import Loop

_log = logging.getLogger(__name__)

_REQUESTS_A_TURN = 32
_REQUESTS_WAITING = 16
"""Of one client, in memory, each of up to 64 MiB; further ones wait in the client."""

Answer = Callable[[bytes], None]
"""Sends the reply to whoever asked; called once, now or later."""


class Control:
    """The control socket. Nothing that comes over it raises."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        places: Places,
        loop: Loop,
        decide: Callable[[wire.AnyRequest, Answer, Callable[[], str]], None],
        look_again: Callable[[], None],
    ) -> None:
        """Bind; ``decide`` answers a request or raises SparrowError, and can ask which client it is; ``look_again`` is called after each send, which may have
        swallowed the descriptor's word that there is something to read. Raises zmq.ZMQError, StateError.
        """
        self._look_again = look_again
        check_address(places.runtime / "control.sock", "the control socket")
        self._decide = decide
        self._path = places.runtime / "control.sock"
        self._socket = context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 500)
        self._socket.set(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        self._socket.set(zmq.RCVHWM, _REQUESTS_WAITING)
        self._socket.set(zmq.IPC_FILTER_UID, os.geteuid())
        self._doorkeeper = Doorkeeper(loop, self._socket, self._path)
        self._socket.bind(places.control)
        self.fd = int(self._socket.get(zmq.FD))

    def turn(self) -> bool:
        """Answer a bounded number of requests. True where there may be more: then call again."""
        for _ in range(_REQUESTS_A_TURN):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            self._serve([frame.bytes for frame in frames], partial(client_of, frames[-1]))
        return True

    def _serve(self, frames: list[bytes], client: Callable[[], str]) -> None:
        route = frames[0]
        if len(frames) == 3 and not frames[1]:
            envelope, body = [route, b""], frames[2]
        else:
            envelope, body = [route] + ([b""] if b"" in frames[1:2] else []), None

        def answer(reply: bytes) -> None:
            try:
                self._socket.send_multipart([*envelope, reply], zmq.NOBLOCK)
            except zmq.Again:
                _log.warning("a client does not read its replies; one was dropped")
            self._look_again()

        if body is None:
            answer(wire.refused("bad_request", "a request is one frame of JSON (after the empty frame that REQ sends)"))
            return
        try:
            if len(body) > wire.MAX_REQUEST_BYTES:
                limit = wire.MAX_REQUEST_BYTES
                answer(wire.refused("too_large", f"the request has {len(body)} bytes, the limit is {limit}"))
                return
            self._decide(wire.decode_request(body), answer, client)
        except SparrowError as error:
            answer(wire.refused(error.code, error.message, error.retry_after))
        except Exception as error:  # no request stops the supervisor: what nobody foresaw is answered and logged
            _log.exception("a request failed")
            answer(
                wire.refused(
                    "internal", f"the supervisor failed at this request ({type(error).__name__}); its log says more"
                )
            )

    def close(self) -> None:
        """Close, and see that no socket file stays."""
        self._doorkeeper.close()
        self._socket.close()
        self._path.unlink(missing_ok=True)
