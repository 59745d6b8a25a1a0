"""One call of systemd's manager over its own socket, so that no program has to be started for it."""

from __future__ import annotations

import os
import socket
import struct

from benchmarks.rows import Failed

_PATH, _INTERFACE, _MEMBER, _SIGNATURE = 1, 2, 3, 8
_METHOD_CALL, _ERROR = 1, 3


class Bus:
    """A connection to the user's systemd. Raises Failed where it does not let us in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(20)
        try:
            self._socket.connect(f"{os.environ['XDG_RUNTIME_DIR']}/systemd/private")
            self._socket.sendall(b"\0AUTH EXTERNAL %s\r\n" % str(os.getuid()).encode().hex().encode())
            said = self._socket.recv(512)
        except (OSError, KeyError) as reason:
            raise Failed(f"systemd's own socket cannot be used: {reason}") from None
        if not said.startswith(b"OK"):
            raise Failed("systemd's own socket lets nobody in")
        self._socket.sendall(b"BEGIN\r\n")
        self._serial = 0

    def call(self, member: str, *arguments: str) -> None:
        """Call a method of the manager with strings, and wait for the first thing that it says."""
        self._forget()
        self._serial += 1
        body = b"".join(_string(argument) for argument in arguments[:-1]) + _string(arguments[-1], last=True)
        fields = b"".join(
            _padded(struct.pack("<B", code) + _signature(kind) + _value(kind, value))
            for code, kind, value in (
                (_PATH, "o", "/org/freedesktop/systemd1"),
                (_INTERFACE, "s", "org.freedesktop.systemd1.Manager"),
                (_MEMBER, "s", member),
            )
        )
        fields += struct.pack("<B", _SIGNATURE) + _signature("g") + _signature("s" * len(arguments))
        head = struct.pack("<cBBBIII", b"l", _METHOD_CALL, 0, 1, len(body), self._serial, len(fields))
        self._socket.sendall(_padded(head + fields) + body)
        if self._socket.recv(1 << 16)[1] == _ERROR:
            raise Failed(f"systemd refused {member}")

    def _forget(self) -> None:
        """Take what it has told since the last answer."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(20)

    def close(self) -> None:
        self._socket.close()


def _signature(kind: str) -> bytes:
    return struct.pack("<B", len(kind)) + kind.encode() + b"\0"


def _value(kind: str, value: str) -> bytes:
    """A string of a header field, whose struct began at a multiple of eight: code and signature are four bytes."""
    assert len(kind) == 1
    return _string(value, last=True)


def _string(value: str, *, last: bool = False) -> bytes:
    data = struct.pack("<I", len(value)) + value.encode() + b"\0"
    return data if last else data + bytes(-len(data) % 4)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
