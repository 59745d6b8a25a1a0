"""What nobody should send: for each kind of socket a sender of frames that are wrong in every way that we could think of."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import zmq

OPS = (
    "submit", "list", "get", "events", "inject", "interrupt", "approve", "status", "reload", "prune", "schedule.add", "",
)  # fmt: skip
"""Without shutdown, which may be asked for."""
FIELDS = (
    "run",
    "task",
    "engine",
    "argv",
    "env",
    "cwd",
    "limit",
    "since",
    "text",
    "data",
    "grace",
    "labels",
    "runs",
    "op",
)
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\0" + bytes(31)
READY = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
_NUMBERS = (0, -1, 1 << 31, 1 << 53, 1 << 63, 1 << 64, 1e308, -1e308, 10**400, 0.1)
_TEXTS = (
    "",
    " ",
    "\0",
    "x" * 3000,
    "é",
    "\ud7ff",
    "..",
    "/",
    "../../etc/passwd",
    "00000000-0000-4000-8000-000000000000",
)

Sender = Callable[[random.Random, int], int]
"""Sends about so many frames; how many they were."""


def value(rng: random.Random, depth: int = 0) -> object:
    """Any JSON value."""
    kind = rng.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return rng.choice(_TEXTS)
    if kind < 4:
        return rng.choice(_NUMBERS)
    if kind == 4:
        return rng.choice((None, True, False))
    if kind < 7:
        return [value(rng, depth + 1) for _ in range(rng.randrange(3))]
    return {rng.choice(_TEXTS): value(rng, depth + 1) for _ in range(rng.randrange(3))}


def request(rng: random.Random) -> bytes:
    """One that is not a request, or hardly. A submission never succeeds: it names no engine that there is."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return rng.choice(
            (b"", b"{}", b"[]", b"null", b"{", b"\0" * 50, b"[" * 20_000, b'{"a":' * 20_000, b"\xff\xfe{}")
        )
    if kind == 2:
        return b'{"op":"' + rng.choice(OPS).encode() + b'","run":' + b"[" * rng.randrange(3000)
    body: dict[str, object] = {rng.choice(FIELDS): value(rng) for _ in range(rng.randrange(4))}
    body["op"] = rng.choice(OPS) if kind < 7 else value(rng)
    if body["op"] == "submit":
        body["engine"] = "no such engine"
    data = json.dumps(body).encode()
    if kind == 3 and data:
        cut = rng.randrange(len(data))
        data = data[:cut] + rng.randbytes(rng.randrange(3)) + data[cut + rng.randrange(3) :]
    return data if b"no such engine" in data or b"submit" not in data else b"?"


def control(address: str) -> Sender:
    """Multipart messages to the ROUTER."""

    def send(rng: random.Random, count: int) -> int:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        sender = context.socket(zmq.DEALER)
        sender.set(zmq.LINGER, 0)
        sender.set(zmq.SNDTIMEO, 20_000)
        if rng.random() < 0.5:
            sender.set(zmq.IDENTITY, rng.randbytes(rng.randrange(1, 255)).replace(b"\0", b"x"))
        sender.connect(address)
        sent = 0
        while sent < count:
            frames = [b"", request(rng)]
            shape = rng.randrange(10)
            if shape == 0:
                frames = [rng.randbytes(rng.randrange(5)) for _ in range(rng.randrange(1, 20))]
            elif shape == 1:
                frames.insert(rng.randrange(3), b"")
            elif shape == 2:
                del frames[0]
            elif rng.random() < 0.0002:
                frames[1] = b"x" * (5 << 20)
            sender.send_multipart(frames)
            sent += len(frames)
            while sender.poll(0):
                sender.recv_multipart()
        context.destroy(linger=0)
        return sent

    return send


def subscriptions(address: str) -> Sender:
    """What a subscriber may send to PUB, and what none does."""

    def send(rng: random.Random, count: int) -> int:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        sender = context.socket(zmq.XSUB)
        sender.set(zmq.LINGER, 0)
        sender.set(zmq.SNDTIMEO, 20_000)
        sender.connect(address)
        for _ in range(count):
            sender.send(rng.choice((b"\1", b"\0", b"", b"\7")) + rng.randbytes(rng.choice((0, 1, 60, 2000))))
        context.destroy(linger=0)
        return count

    return send


def raw(path: Path) -> Sender:
    """Bytes that are no ZMTP, or half of it, to the file of a ZeroMQ socket; or JSON lines where those are expected."""

    def send(rng: random.Random, count: int) -> int:
        for _ in range(count):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                try:
                    client.connect(os.fspath(path))
                    client.sendall(_bytes(rng))
                    if rng.random() < 0.2:
                        client.shutdown(socket.SHUT_WR)
                    if rng.random() < 0.1:
                        client.recv(100)
                except OSError:
                    continue  # it was refused, as it may be
        return count

    return send


def lines(connect: Callable[[], socket.socket]) -> Sender:
    """What an NDJSON client may not say, many lines a connection (the first of which is the last that counts)."""

    def send(rng: random.Random, count: int) -> int:
        for _ in range(count):
            with connect() as client:
                client.settimeout(20)
                try:
                    client.sendall(_line(rng))
                    if rng.random() < 0.3:
                        client.settimeout(0.05)  # it may have been a request after all, with nothing to tell
                        client.recv(1000)
                except OSError:
                    continue  # it was refused, as it may be
        return count

    return send


def _bytes(rng: random.Random) -> bytes:
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 2000))
    if kind == 1:
        return GREETING[: rng.randrange(1, 64)]
    if kind == 2:
        return GREETING + rng.randbytes(rng.randrange(200))
    if kind == 3:
        return GREETING + READY + b"\x02" + struct.pack(">Q", rng.choice((1 << 62, 1 << 40, 65 << 20))) + b"x" * 50
    if kind == 4:
        return GREETING + READY + rng.randbytes(100)
    if kind == 5:
        return GREETING + READY + b"\1\0\0" * rng.randrange(100)
    return request(rng) + b"\n"


def _line(rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 500)) + b"\n"
    if kind == 1:
        return json.dumps({rng.choice(("run", "since", "types", "x")): value(rng) for _ in range(2)}).encode() + b"\n"
    if kind == 2:
        return b"x" * rng.choice((10, 70_000)) + b"\n" * rng.randrange(2)
    if kind == 3:
        return b'{"since":' + b"[" * 5000 + b"\n"
    if kind == 4:
        return b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n{}\n"
    return request(rng) + b"\n" + request(rng) + b"\n"
