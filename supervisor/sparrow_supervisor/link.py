"""One run's PAIR socket, seen from the supervisor, and the check of what comes over it.

A stranger that connects first would lock the run out for good, so the socket takes only the monitor's pid of our own user,
and is bound when that pid is known.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import zmq

from sparrow_mp import events, wire
from sparrow_mp.events import AnyEvent, Error, EventError, RunFinished, RunQueued, RunStarted
from sparrow_mp.run.stamp import timestamp

_RESERVED = frozenset({RunQueued, RunStarted, RunFinished})
_TS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_TS_LENGTH = 27


class ProtocolBroken(Exception):
    """The run lies about its id or its seq; ``good`` is how many lines before that were right."""

    def __init__(self, reason: str, good: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.good = good


class Group(NamedTuple):
    """Consecutive events of one type: what one PUB message carries."""

    kind: str
    lines: bytes
    events: list[AnyEvent]


def check(lines: bytes, run: str, first: int, since: str = "") -> list[Group]:
    """Check the lines that a run sent, of which the first must have the seq ``first``; the groups to record and publish.
    ``since`` is the time of the event before them.

    A line that is no event becomes an Error that takes its number. Raises ProtocolBroken.
    """
    try:
        decoded: list[AnyEvent] = list(events.decode_lines(lines))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _check_slowly(lines, run, first, since)
    if not _is_one_a_line(lines, len(decoded)):
        return _check_slowly(lines, run, first, since)
    seq = first
    kind = type(decoded[0]) if decoded else None
    alike = kind not in _RESERVED
    for event in decoded:
        if event.run != run or event.seq != seq:
            raise ProtocolBroken(_lie(event, run, seq), seq - first)
        if len(event.ts) != _TS_LENGTH:
            return _check_slowly(lines, run, first, since)
        if type(event) is not kind:
            alike = False
        seq += 1
    if alike:
        return [Group(events.type_name(decoded[0]), lines, decoded)] if decoded else []
    if not _RESERVED.isdisjoint(map(type, decoded)):
        return _check_slowly(lines, run, first, since)
    return _grouped(zip(lines.splitlines(keepends=True), decoded, strict=True))


def _is_one_a_line(lines: bytes, count: int) -> bool:
    """Whether each of the ``count`` objects that were decoded is a line: the decoder takes line breaks for any other space.

    A line break between two braces can be between two objects only, so there is one between any two; and there is no
    further one but the last. False also for what is only written in an unusual way, which is looked at line by line then.
    """
    return (
        lines.count(b'}\n{"type":"') == max(0, count - 1)
        and lines.count(b"\n") == count
        and lines.endswith(b"\n") is (count > 0)
        and b"\r" not in lines
    )


def _check_slowly(lines: bytes, run: str, first: int, ts: str) -> list[Group]:
    """The same line by line: some type or field is new to us, or some line is no event."""
    checked: list[tuple[bytes, AnyEvent]] = []
    for seq, line in enumerate(lines.split(b"\n")[:-1], first):
        try:
            if b"\r" in line:
                raise EventError("a carriage return between its parts, which many take for a line break")
            event = events.decode(line)
            _check_words(event, seq)
        except EventError as refused:
            event = Error(
                run=run,
                seq=seq,
                ts=ts or timestamp(time.time_ns() // 1000),
                message=f"malformed event: {str(refused)[:500]}",
            )
            line = events.encode(event)
        if event.run != run or event.seq != seq:
            raise ProtocolBroken(_lie(event, run, seq), seq - first)
        ts = event.ts
        checked.append((line + b"\n", event))
    return _grouped(checked)


def _check_words(event: AnyEvent, seq: int) -> None:
    """Raise EventError for what a run may not say. Its RunStarted comes first, or second where it was queued."""
    if isinstance(event, tuple(_RESERVED)) and not (isinstance(event, RunStarted) and seq <= 2):
        raise EventError(f"{events.type_name(event)} is the supervisor's to say")
    if not _TS.fullmatch(event.ts):
        raise EventError(f"`ts` is {event.ts[:50]!r}; write UTC with microseconds: 2026-11-22T12:00:00.123456Z")


def _grouped(checked: Iterable[tuple[bytes, AnyEvent]]) -> list[Group]:
    groups: list[Group] = []
    kind = ""
    parts: list[bytes] = []
    members: list[AnyEvent] = []
    for line, event in checked:
        name = events.type_name(event)
        if name != kind and members:
            groups.append(Group(kind, b"".join(parts), members))
            parts, members = [], []
        kind = name
        parts.append(line)
        members.append(event)
    if members:
        groups.append(Group(kind, b"".join(parts), members))
    return groups


def _lie(event: AnyEvent, run: str, seq: int) -> str:
    if event.run != run:
        return f"an event with the wrong run ({str(event.run)[:50]!r}) where event {seq} was due"
    return f"an event with the wrong seq ({event.seq}) where {seq} was due"


class Link:
    """The socket. It never waits; what cannot be sent now is kept and sent with ``pump``."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        run: str,
        endpoint: str,
        monitor_pid: int,
        look_again: Callable[[], None],
    ) -> None:
        """Bind. ``look_again`` is called after each send: it may have swallowed the descriptor's word that there is
        something to read, which is not said twice. Raises zmq.ZMQError.
        """
        self.run = run
        self.monitor_pid = monitor_pid
        self._look_again = look_again
        self._path = endpoint.removeprefix("ipc://")
        self._out: deque[bytes] = deque()
        self._socket = context.socket(zmq.PAIR)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.RCVHWM, 64)
        self._socket.set(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        # Not IPC_FILTER_UID as well: libzmq lets in whoever passes one of its filters, so every process of ours.
        self._socket.set(zmq.IPC_FILTER_PID, monitor_pid)
        self._socket.bind(endpoint)
        self.fd = int(self._socket.get(zmq.FD))

    def receive(self) -> bytes | None:
        """The next frame; None where there is none now."""
        try:
            return self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def send(self, frame: bytes) -> None:
        """Send, or keep until the run is there and has room."""
        self._out.append(frame)
        self.pump()

    def acknowledge(self, seq: int) -> None:
        """Say what is recorded. Lost where there is no room: a later one says it too."""
        if not self._out:
            self._send(wire.ACK + str(seq).encode())

    def resend(self, seq: int) -> None:
        """Ask for everything after ``seq`` again."""
        self._send(wire.RESEND + str(seq).encode())

    def pump(self) -> bool:
        """Send what is kept; whether all of it went."""
        while self._out and self._send(self._out[0]):
            self._out.popleft()
        return not self._out

    def _send(self, frame: bytes) -> bool:
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            self._look_again()
        return True

    def close(self) -> None:
        """Close, and see that no socket file stays: libzmq leaves it."""
        self._socket.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
