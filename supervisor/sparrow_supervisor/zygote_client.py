"""The supervisor's end of its connection to the zygote: starts one where there is none, asks, and hears."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections import deque
from typing import Any

import msgspec

from sparrow_mp.paths import Places, check_address


class ZygoteClient:
    """A connection that never waits once it is made. ``closed`` is set when the zygote is gone."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._process: subprocess.Popen[bytes] | None = None
        self.adopted = False
        self.closed = False
        self.pid: int | None = None
        self._in = b""
        self._out = b""
        self._fds: deque[int] = deque()
        self._socket = self._connect()
        self._socket.setblocking(False)

    def _connect(self) -> socket.socket:
        """The zygote that an earlier supervisor left, or a new one. Raises OSError, StateError."""
        path = self._places.zygote_socket
        check_address(path, "the zygote's socket")
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(str(path))
            self.adopted = True
            return peer
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))  # in a folder that is ours alone, under our umask
        listener.listen(8)
        command = [sys.executable, "-P", "-m", "sparrow_supervisor.zygote", str(listener.fileno())]
        self._process = subprocess.Popen(
            [*command, str(self._places.state / "zygote.log")],
            pass_fds=(listener.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        self.pid = self._process.pid
        listener.close()
        peer.connect(str(path))
        return peer

    def fileno(self) -> int:
        """For the loop: readable when the zygote has said something."""
        return self._socket.fileno()

    @property
    def unsent(self) -> bool:
        """Whether something asked has not been sent for want of room."""
        return bool(self._out)

    def ask(self, **body: Any) -> None:
        """Ask for something; ``pump`` sends what finds no room now."""
        self._out += msgspec.json.encode(body) + b"\n"
        self.pump()

    def pump(self) -> None:
        """Send what the zygote takes now."""
        try:
            while self._out:
                self._out = self._out[self._socket.send(self._out, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    def receive(self) -> list[tuple[dict[str, Any], int]]:
        """What it has said, each with the pidfd that came with it (-1 where none did)."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(1 << 16, socket.CMSG_SPACE(253 * 4))
        except BlockingIOError:
            return []
        except OSError:
            data, ancillary = b"", []
        for level, kind, packed in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
                for fd in fds:
                    os.set_inheritable(fd, False)
                self._fds.extend(fds)
        if not data:
            self.closed = True
        *lines, self._in = (self._in + data).split(b"\n")
        said: list[tuple[dict[str, Any], int]] = []
        for line in lines:
            body = msgspec.json.decode(line)
            if "zygote" in body:
                self.pid = body["zygote"]
            carries = ("spawned" in body or "alive" in body) and self._fds
            said.append((body, self._fds.popleft() if carries else -1))
        return said

    def reap(self) -> bool:
        """Collect a zygote of our own that has ended. False where there is one that has not."""
        return self._process is None or self._process.poll() is not None

    def close(self) -> None:
        """Let go of the connection; the zygote lives on."""
        self._socket.close()
        while self._fds:
            os.close(self._fds.popleft())
