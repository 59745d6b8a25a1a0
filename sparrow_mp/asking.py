"""Asking the supervisor: one request, one reply, and a true word where there is none."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import zmq

from sparrow_mp import connect
from sparrow_mp.ears import milliseconds
from sparrow_mp.paths import Places, supervisor_alive

_T = TypeVar("_T")
ATTEMPTS = 3
"""How often a request is made that it does no harm to repeat, where the supervisor goes away each time."""


class Lost(Exception):
    """The supervisor is not there any more; ``sent`` says whether it may have got the request."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__()
        self.sent = sent


class Asker:
    """Asks one supervisor after the other, whichever is there; safe to use from several threads.

    The socket takes a request only while its connection stands and never connects again by itself, so that a request is
    either surely not sent, and sent again, or may have been done, and then that is said.
    """

    def __init__(
        self, places: Places, *, start: bool, timeout: float, on_start: Callable[[str], None] | None = None
    ) -> None:
        self._places = places
        self._may_start = start
        self._timeout = timeout
        self._on_start = on_start
        self._lock = threading.Lock()
        self._socket: zmq.Socket[bytes] | None = None
        self._pid = os.getpid()

    def close(self) -> None:
        """Disconnect; the next request connects anew."""
        with self._lock:
            self._disconnect()

    def ask(self, body: connect.RequestLike, kind: type[_T], *, start: bool = True) -> _T:
        """The reply, as a ``kind``. Raises the error that it stands for, NoSupervisor or TimedOut where there is none."""
        return connect.read_reply(self._exchange(body, start), kind)

    def _exchange(self, body: connect.RequestLike, start: bool) -> bytes:
        """Send a request and give the reply's bytes; a request that surely did not arrive is sent again."""
        op = connect.op_of(body)
        encoded = connect.encode_request(body)
        again = ATTEMPTS - 1 if connect.may_repeat(body) else 0
        untaken, until = 0, time.monotonic() + self._timeout
        if self._pid != os.getpid():
            # Forked: the socket is the parent's (libzmq would wait on it for ever), and the lock may be held by nobody.
            self._lock, self._socket, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            while True:
                if not self._connected():
                    self.ensure(start)
                try:
                    return self._try(encoded, op)
                except Lost as lost:
                    self._disconnect()
                    if lost.sent and not again:
                        raise connect.died_within(op) from None
                    if lost.sent:
                        again -= 1
                        self._await_return(start)
                        continue
                    untaken += 1
                    if untaken >= ATTEMPTS and time.monotonic() > until:
                        raise connect.never_taken(op, self._places) from None
                except BaseException:  # whatever it is goes on up, once nothing is left open
                    self._disconnect()  # a late reply must not answer the next request
                    raise

    def _try(self, encoded: bytes, op: str) -> bytes:
        """One attempt, on a connection that does not come back by itself: so it is known what was lost."""
        deadline = time.monotonic() + self._timeout
        socket = self._connect(deadline, op)
        try:
            socket.send_multipart([b"", encoded], zmq.DONTWAIT)
        except zmq.Again:
            raise Lost(sent=False) from None
        while not socket.poll(milliseconds(min(connect.SLICE, deadline - time.monotonic())), zmq.POLLIN):
            if not _can_send(socket) or not supervisor_alive(self._places):
                if socket.poll(0, zmq.POLLIN):
                    break
                raise Lost(sent=True)
            if time.monotonic() >= deadline:
                raise connect.no_answer(op, self._timeout, self._places, sent=True)
        return socket.recv_multipart()[-1]

    def _connect(self, deadline: float, op: str) -> zmq.Socket[bytes]:
        """A socket whose connection stands. A supervisor that is there but not ready yet is waited for."""
        pause = 0.05
        while not self._connected():
            self._disconnect()
            socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.IMMEDIATE, 1)  # takes a request only when there is a connection
            socket.setsockopt(zmq.RECONNECT_IVL, -1)  # and never hands it to another supervisor
            socket.connect(connect.addresses(self._places).control)
            self._socket = socket
            if socket.poll(milliseconds(min(pause, deadline - time.monotonic())), zmq.POLLOUT):
                break
            if not supervisor_alive(self._places):
                raise Lost(sent=False)
            if time.monotonic() >= deadline:
                raise connect.no_answer(op, self._timeout, self._places, sent=False)
            pause = min(2 * pause, 1.0)
        assert self._socket is not None  # for the type checkers: the loop ends with one
        return self._socket

    def _connected(self) -> bool:
        return self._socket is not None and not self._socket.closed and _can_send(self._socket)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ensure(self, start: bool) -> None:
        """See that there is a supervisor. Raises NoSupervisor where there is none and none may be started."""
        if supervisor_alive(self._places):
            return
        if not (start and self._may_start):
            raise connect.no_supervisor()
        self.launch()

    def launch(self) -> None:
        """Start a supervisor, or find that somebody else has. Raises NoSupervisor where that fails."""
        from sparrow_mp.launch import start_supervisor

        start_supervisor(self._places, self._on_start)

    def _await_return(self, start: bool) -> None:
        """Where none may be started, give one that crashed a second to be restarted by whoever looks after it."""
        end = time.monotonic() + 1.0
        while not (start and self._may_start) and not supervisor_alive(self._places) and time.monotonic() < end:
            time.sleep(0.05)  # another process is starting, and nothing tells when it has


def _can_send(socket: zmq.Socket[bytes]) -> bool:
    """Whether its connection stands."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)
