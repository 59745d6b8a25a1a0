"""The supervisor's end of its connection to the zygote: starts one where there is none, asks, and hears."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from sparrow_mp.paths import check_address

_IDLE_S = 600.0
"""How long a zygote that has loaded modules beforehand waits for the next run before it ends."""


class ZygoteClient:
    """A connection that never waits once it is made. ``closed`` is set when the zygote is gone, ``found`` if it was there."""

    def __init__(self, path: Path, connection: socket.socket, process: subprocess.Popen[bytes] | None = None) -> None:
        connection.setblocking(False)
        self.path = path
        self._socket = connection
        self._process = process
        self.found = process is None
        self.closed = False
        self.pid = process.pid if process is not None else None
        self.version: str | None = None
        self.preloaded: list[str] = []
        """The modules that it has loaded for its runs beforehand."""
        self.strays: list[int] = []
        """Processes of ended runs that it could not end yet."""
        self._in = b""
        self._out = b""
        self._fds: deque[int] = deque()

    @classmethod
    def find(cls, path: Path) -> ZygoteClient:
        """The zygote that an earlier supervisor has left there.

        Raises FileNotFoundError, ConnectionRefusedError where there is none, another OSError where it cannot be reached.
        """
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            raise
        return cls(path, connection)

    @classmethod
    def find_or_start(cls, path: Path, log: Path) -> ZygoteClient:
        """The same, or a new one. Raises OSError, StateError."""
        check_address(path, "the zygote's socket")
        try:
            return cls.find(path)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        return cls.start(path, log)

    @classmethod
    def start(cls, path: Path, log: Path, becomes: Path | None = None, modules: Sequence[str] = ()) -> ZygoteClient:
        """A new one, which listens there; once these modules are loaded its socket is renamed to what it ``becomes``.

        Raises OSError, and ValueError for names that no program can be given.
        """
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))  # in a folder that is ours alone, under our umask
            listener.listen(8)
            warm = [] if becomes is None else [str(becomes), str(_IDLE_S), *modules]
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sparrow_supervisor.zygote", str(listener.fileno()), str(log), *warm],
                pass_fds=(listener.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(path))
        return cls(becomes or path, connection, process)

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
                self.pid, self.version = body["zygote"], body["version"]
                self.preloaded = body.get("preloaded", [])
            carries = ("spawned" in body or "alive" in body) and self._fds
            said.append((body, self._fds.popleft() if carries else -1))
        return said

    def reap(self) -> bool:
        """Collect a zygote of our own that has ended. False where there is one that has not."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """End one of our own that no run is below. ``reap`` is still to be called."""
        if self._process is not None:
            self._process.kill()
        self.close()

    def close(self) -> None:
        """Let go of the connection; the zygote lives on."""
        self._socket.close()
        while self._fds:
            os.close(self._fds.popleft())
