"""The adapters, seen from the supervisor: a process of its own, started, heard once, restarted where it dies."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from sparrow_mp.config import Config
from sparrow_mp.paths import Places
from sparrow_supervisor.loop import Loop

_log = logging.getLogger(__name__)

_RESTART_AFTER_S = 1.0


class Addresses(msgspec.Struct):
    """What the adapters say once they are ready."""

    tcp: str | None = None
    unix: str | None = None
    problems: list[str] = []


class Crowd(msgspec.Struct, frozen=True):
    """How many NDJSON clients there are, and how many of them have still to get something that is recorded."""

    tcp: int = 0
    unix: int = 0
    behind: int = 0


class _Said(Addresses):
    """One line of theirs: the addresses at first, then the clients whenever that has changed."""

    clients: Crowd | None = None


class AdaptersProcess:
    """Keeps the adapters running. Its standard input tells it that the supervisor is gone, however that ends."""

    def __init__(self, loop: Loop, places: Places, config: Config, heard: Callable[[], None]) -> None:
        self._loop = loop
        self._heard = heard
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False
        self._said = b""
        self.addresses: Addresses | None = None
        self.clients = Crowd()
        unix = Path(config.ndjson.unix) if config.ndjson.unix else places.unix_socket
        settings = {
            "state": str(places.state),
            "runtime": str(places.runtime),
            "config": str(places.config),
            "tcp": config.ndjson.tcp,
            "unix": str(unix),
            "stall_timeout": config.ndjson.stall_timeout,
        }
        self._command = [
            sys.executable,
            "-P",
            "-m",
            "sparrow_supervisor.adapters",
            msgspec.json.encode(settings).decode(),
        ]
        self._start()

    @property
    def pid(self) -> int | None:
        """The process, None before the first start."""
        return self._process.pid if self._process is not None else None

    @property
    def gone(self) -> bool:
        """Whether no adapters run."""
        return self._process is None or self._process.poll() is not None

    def _start(self) -> None:
        if self._ending:
            return
        self._said = b""
        self.clients = Crowd()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/"
        )
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        os.set_blocking(self._fd, False)
        self._loop.watch(self._fd, self._hear)

    def _hear(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self._lost()
            return
        self._said += data
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            try:
                said = msgspec.json.decode(line, type=_Said)
            except msgspec.DecodeError as error:
                _log.error("the adapters said something else than their addresses: %s", error)
                continue
            if said.clients is not None:
                self.clients = said.clients
                continue
            self.addresses = Addresses(said.tcp, said.unix, said.problems)
            for problem in said.problems:
                _log.warning("%s", problem)
            self._heard()

    def _lost(self) -> None:
        self._loop.unwatch(self._fd)
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        if not self._ending:
            _log.error("the adapters ended; they are started again in %g s", _RESTART_AFTER_S)
            self._loop.later(_RESTART_AFTER_S, self._restart)

    def _restart(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()  # SIGKILL: at once
        self._start()

    def end(self) -> None:
        """Ask them to end; ``gone`` says when they have."""
        self._ending = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """They did not end when asked."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
