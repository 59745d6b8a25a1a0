"""The commands that an agent runs: each in a process group of its own, which is gone when the command has ended or is given up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_READ_BYTES = 1 << 16
_END_S = 2.0
_STILL_TALKING_S = 0.5
"""What a command has left behind may hold its output open: that is not waited for."""


class Ended(NamedTuple):
    """How a command ended; ``code`` is subprocess's, None where it took too long."""

    code: int | None
    output: str


class Tail:
    """The beginning and the end of what was written, and how much was left out between."""

    def __init__(self, most: int) -> None:
        self._first = most // 4
        self._last = most - self._first
        self._head = bytearray()
        self._tail = bytearray()
        self._lost = 0

    def feed(self, data: bytes) -> None:
        """More was written."""
        room = self._first - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        extra = len(self._tail) - self._last
        if extra > 0:
            self._lost += extra
            del self._tail[:extra]

    def text(self) -> str:
        """What there is of it."""
        if not self._lost:
            return (self._head + self._tail).decode("utf-8", "replace")
        head, tail = self._head.decode("utf-8", "ignore"), self._tail.decode("utf-8", "ignore")
        return f"{head}\n[… {self._lost} bytes left out …]\n{tail}"


class _Pipe:
    """Where a command writes to. It is ours and not the loop's, which would wait until everybody has closed it."""

    def __init__(self, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd, self.end = os.pipe()
        os.set_blocking(self._fd, False)
        self.written = Tail(most)
        self.ended = asyncio.Event()
        self._loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        self.written.feed(data)
        if not data:
            self._loop.remove_reader(self._fd)
            self.ended.set()

    def close(self) -> None:
        """Nobody reads it any more."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


async def run_command(line: str, folder: Path, env: Mapping[str, str], timeout: float, most: int) -> Ended:  # noqa: ASYNC109  what a command has written by then is an answer, not an error
    """Run a line of shell in a folder, for at most ``timeout`` seconds, and keep ``most`` bytes of what it writes. Raises OSError."""
    pipe = _Pipe(most)
    try:
        process = await _start(line, folder, env, pipe.end)
        code: int | None = None
        try:
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(process.wait(), timeout)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pipe.ended.wait(), _STILL_TALKING_S)
        finally:
            await _end_group(process)
        return Ended(code, pipe.written.text())
    finally:
        pipe.close()


async def _start(line: str, folder: Path, env: Mapping[str, str], output: int) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            line,
            cwd=folder,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        )
    finally:
        os.close(output)


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End whatever is left of its group: asked first where it is not done, and then not asked."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_S)
    _signal_group(process.pid, signal.SIGKILL)
    if process.returncode is None:
        await process.wait()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
