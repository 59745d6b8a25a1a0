"""The commands that an agent has run for it, each with what it has printed last."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Mapping

from acp.exceptions import RequestError

_MOST_BYTES = 1 << 20
_END_S = 2.0


class _Printed(asyncio.SubprocessProtocol):
    """What a process prints and when it ends. Who else holds its output is not waited for, as asyncio's ``wait`` does."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.printed = bytearray()
        self.truncated = False
        self.ended = asyncio.Event()
        self.closed = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.printed += data
        if len(self.printed) > self._most:
            self.truncated = True
            del self.printed[: len(self.printed) - self._most]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.closed.set()

    def process_exited(self) -> None:
        self.ended.set()


class Terminal:
    """One command, in a process group of its own."""

    def __init__(self, transport: asyncio.SubprocessTransport, said: _Printed) -> None:
        self._transport = transport
        self._said = said

    @property
    def returncode(self) -> int | None:
        """As subprocess has it; None while it runs."""
        return self._transport.get_returncode()

    @property
    def truncated(self) -> bool:
        """Whether it has printed more than is kept."""
        return self._said.truncated

    def output(self) -> str:
        """What it has printed last; a character that was cut in two is left out."""
        return self._said.printed.decode("utf-8", "ignore")

    async def wait(self) -> int | None:
        """Its end, with all that it has printed."""
        await self._said.ended.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._said.closed.wait(), _END_S)
        return self.returncode

    def kill(self) -> None:
        """End it, and what it has started in its group."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)

    async def close(self) -> None:
        """End it and wait for that."""
        self.kill()
        with contextlib.suppress(TimeoutError):  # one that hangs in the kernel is the monitor's to tell of
            await asyncio.wait_for(self._said.ended.wait(), _END_S)
        self._transport.close()


class Terminals:
    """All of a session's."""

    def __init__(self) -> None:
        self._terminals: dict[str, Terminal] = {}

    async def begin(self, words: list[str], folder: str, env: Mapping[str, str], most: int | None) -> str:
        """Run a command (a line for a shell where it is one word with spaces); its id. Raises OSError."""
        if len(words) == 1 and " " in words[0]:
            words = ["/bin/sh", "-c", words[0]]
        kept = _MOST_BYTES if most is None else max(0, min(most, _MOST_BYTES))
        transport, said = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Printed(kept),
            *words,
            cwd=folder,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
        )
        terminal = uuid.uuid4().hex[:8]
        self._terminals[terminal] = Terminal(transport, said)
        return terminal

    def get(self, terminal: str) -> Terminal:
        """Raises RequestError."""
        if terminal not in self._terminals:
            raise RequestError.resource_not_found(terminal)
        return self._terminals[terminal]

    async def release(self, terminal: str) -> None:
        """End it and forget it. Raises RequestError."""
        found = self.get(terminal)
        del self._terminals[terminal]
        await found.close()

    async def close(self) -> None:
        """End them all."""
        for terminal in list(self._terminals):
            await self.release(terminal)
