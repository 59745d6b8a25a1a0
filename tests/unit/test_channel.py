"""The channel between an engine and its monitor: whole objects in order, and nobody waits for the monitor's end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from sparrow_mp.run.channel import Channel


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    yield Channel(one), Channel(other)
    one.close()
    other.close()


def test_objects_come_in_their_order(ends: tuple[Channel, Channel]) -> None:
    engine, monitor = ends
    assert monitor.receive() == []
    engine.send(started=True)
    engine.send(message="several\nlines", n=None)
    assert monitor.receive() == [{"started": True}, {"message": "several\nlines", "n": None}]
    assert monitor.receive() == []
    assert not monitor.closed


def test_an_object_may_come_in_pieces(ends: tuple[Channel, Channel]) -> None:
    engine, monitor = ends
    for byte in b'{"a":1}':
        engine.socket.send(bytes([byte]))
        assert monitor.receive() == []
    engine.socket.send(b'\n{"b"')
    assert monitor.receive() == [{"a": 1}]
    engine.socket.send(b":2}\n")
    assert monitor.receive() == [{"b": 2}]


def test_what_is_none_is_dropped(ends: tuple[Channel, Channel]) -> None:
    engine, monitor = ends
    engine.socket.send(b'nonsense\n[1]\n\n3\n\xff\n{"a":1}\n' + b"[" * 5000 + b"]" * 5000 + b'\n{"b":2}\n')
    assert monitor.receive() == [{"a": 1}, {"b": 2}]


def test_posting_never_waits_and_loses_nothing(ends: tuple[Channel, Channel]) -> None:
    engine, monitor = ends
    for number in range(300):
        monitor.post(message="x" * 10_000, n=number)
    assert monitor.unread
    received: list[int] = []
    while len(received) < 300:
        received += [body["n"] for body in engine.receive()]
        monitor.pump()
    assert received == list(range(300))
    assert not monitor.unread


def test_a_peer_that_is_gone(ends: tuple[Channel, Channel]) -> None:
    engine, monitor = ends
    monitor.post(message="late")
    monitor.socket.close()
    assert engine.receive() == [{"message": "late"}]
    assert engine.closed


@pytest.mark.parametrize("how", ["send", "post"])
def test_speaking_to_a_peer_that_is_gone_is_no_error(ends: tuple[Channel, Channel], how: str) -> None:
    engine, monitor = ends
    engine.socket.close()
    for _ in range(3):
        getattr(monitor, how)(message="x" * 100_000)
    assert monitor.closed
    assert not monitor.unread


def test_sending_waits_for_a_slow_peer(ends: tuple[Channel, Channel]) -> None:
    engine, monitor = ends
    pid = os.fork()
    if pid == 0:
        engine.send(result="x" * 2_000_000)
        os._exit(0)
    received: list[dict[str, object]] = []
    while not received:
        received = monitor.receive()
    os.waitpid(pid, 0)
    assert received == [{"result": "x" * 2_000_000}]
