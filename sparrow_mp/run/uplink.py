"""The run's end of its PAIR socket: sends what the outbox holds, frees what is acknowledged.

The supervisor binds and the run connects, so that a new supervisor finds its runs coming back by themselves. Whatever is
lost on the way is still in the outbox: the supervisor says RESEND where it sees a hole, and a run that has unacknowledged
events and hears nothing for a while closes its socket and opens another (in this order: PAIR takes one peer).
"""

from __future__ import annotations

import time
from collections import deque

import zmq
from zmq.backend import Context, Socket

from sparrow_mp import wire
from sparrow_mp.events import Status
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.run.outbox import Outbox

_SILENCE_S = 2.0
_BATCH_BYTES = 1 << 17
_WINDOW_BYTES = 1 << 20
_FRAMES_A_TURN = 64


class Uplink:
    """Owns the socket. It never waits."""

    def __init__(self, context: Context, endpoint: str, outbox: Outbox, run: str, last_seq: int) -> None:
        """Connect. ``last_seq`` is the last event that was recorded when the outbox was made: the engine may have appended
        some since.
        """
        self._endpoint = endpoint
        self._outbox = outbox
        self._run = run
        self.engine_pid: int | None = None
        self.limit: tuple[Status, str] | None = None
        self._acked_seq = last_seq
        self._sent_seq = self._acked_seq
        self.sent = outbox.acked
        self._batches: deque[tuple[int, int]] = deque()
        self._heard = time.monotonic()
        self._waits = False
        self._context = context
        self._socket = self._connect()

    def _connect(self) -> Socket:
        socket = Socket(self._context, zmq.PAIR)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.SNDHWM, 64)
        socket.set(zmq.RCVHWM, 1000)
        socket.set(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        socket.set(zmq.RECONNECT_IVL, 1)  # the supervisor binds a moment after it has learnt our pid
        socket.set(zmq.RECONNECT_IVL_MAX, 200)
        socket.connect(self._endpoint)
        return socket

    def fileno(self) -> int:
        """Edge-triggered: after each event, and after each send, go on until there is nothing more."""
        return int(self._socket.get(zmq.FD))

    def hello(self) -> None:
        """Say that this run is there, and how far its events go."""
        body = wire.Hello(
            protocol=wire.PROTOCOL,
            run=self._run,
            last=self._outbox.state.seq,
            pid=self.engine_pid,
            limit=self.limit,
        )
        self._send(wire.frame(wire.HELLO, body))
        if ARMED:
            reach("uplink.greeted")

    def receipt(self, body: wire.Receipt) -> None:
        """Answer an injection or an approval. A lost answer is asked for again by the supervisor."""
        self._send(wire.frame(wire.RECEIPT, body))

    def pump(self) -> bool:
        """Send what the outbox holds beyond what is sent. False where more is left than may be under way."""
        end = self._outbox.state.end
        waits = end > self._outbox.acked
        if waits and not self._waits:
            self._heard = time.monotonic()  # the silence begins now: until here there was nothing to answer
        self._waits = waits
        while self.sent < end:
            if self.sent - self._outbox.acked > _WINDOW_BYTES:
                return False
            lines = self._outbox.read(self.sent, _BATCH_BYTES)
            if not self._send(wire.events_frame(self._sent_seq + 1, lines)):
                return False
            self.sent += len(lines)
            self._sent_seq += lines.count(b"\n")
            if ARMED:
                reach("uplink.sent")
            self._batches.append((self._sent_seq, self.sent))
        return True

    def receive(self) -> list[bytes]:
        """What the supervisor has said, less the acknowledgements, which are dealt with here."""
        frames: list[bytes] = []
        while len(frames) < _FRAMES_A_TURN:
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return frames
            self._heard = time.monotonic()
            kind, body = data[:1], data[1:]
            if kind == wire.ACK and body.isdigit():
                self._acknowledged(int(body))
            elif kind == wire.RESEND and body.isdigit():
                self._resend(int(body))
            else:
                frames.append(data)
        return frames

    @property
    def readable(self) -> bool:
        """Whether the socket has something for us (its descriptor tells only of changes)."""
        return bool(int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN)

    @property
    def silent_for(self) -> float:
        """Seconds for which something in the outbox has had no answer; 0 where nothing waits for one."""
        return time.monotonic() - self._heard if self._waits else 0.0

    @property
    def silence_allowed(self) -> float:
        """Seconds of silence after which the socket is opened anew."""
        return _SILENCE_S

    def reopen(self) -> None:
        """Close the socket, then open another, and begin again from what is acknowledged."""
        self.close()
        self._socket = self._connect()
        self._heard = time.monotonic()
        self._rewind()
        self.hello()

    def close(self) -> None:
        """Give the socket back, with what it has not sent."""
        self._socket.close(linger=0)

    def _send(self, data: bytes) -> bool:
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _acknowledged(self, seq: int) -> None:
        while self._batches and self._batches[0][0] <= seq:
            self._acked_seq, offset = self._batches.popleft()
            self._outbox.acknowledge(offset)
            if ARMED:
                reach("uplink.acknowledged")

    def _resend(self, seq: int) -> None:
        """Go back to after ``seq``: what lies before it is recorded, so it is free as well."""
        self._acknowledged(seq)
        self._rewind()
        while self._sent_seq < seq and self.sent < self._outbox.state.end:
            lines = self._outbox.read(self.sent, _BATCH_BYTES)
            wanted = lines.split(b"\n", seq - self._sent_seq)
            skipped = lines if len(wanted) <= seq - self._sent_seq else lines[: len(lines) - len(wanted[-1])]
            self.sent += len(skipped)
            self._sent_seq += skipped.count(b"\n")
        if self.sent > self._outbox.acked:
            self._acked_seq = self._sent_seq
            self._outbox.acknowledge(self.sent)

    def _rewind(self) -> None:
        self._batches.clear()
        self.sent = self._outbox.acked
        self._sent_seq = self._acked_seq
