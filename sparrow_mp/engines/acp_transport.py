"""The agent's standard input and output as the library's transport: a JSON object a line. What is none is the run's output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

LONGEST_LINE = 50 << 20
_SHOWN = 1000
_NO_ANSWER = -32603


class Transport:
    """Never fails at what the agent writes. ``garbage`` is called with the beginning of each line that is no message.

    ``fault`` says, for people, what the agent has written after which it cannot be understood any more; empty till then.
    """

    def __init__(self, process: asyncio.subprocess.Process, garbage: Callable[[str], None]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self._garbage = garbage
        self.fault = ""

    async def send(self, message: dict[str, Any]) -> None:
        """Raises ConnectionError where the agent has gone."""
        self._in.write(msgspec.json.encode(message) + b"\n")
        await self._in.drain()

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end."""
        while True:
            try:
                line = await self._out.readline()
            except ValueError:  # it may have been the answer that is waited for: there is no going on
                self.fault = f"has written a line of more than {LONGEST_LINE >> 20} MiB"
                return None
            if not line:
                return None
            message = _message(line)
            if message is not None:
                return message
            if line.strip():
                self._garbage(line[:_SHOWN].decode("utf-8", "replace").strip())

    async def close(self) -> None:
        """Tell the agent that there is no more to come."""
        self._in.close()


def _message(line: bytes) -> dict[str, Any] | None:
    """A request, a notification or an answer of JSON-RPC 2.0 as the library can take it; None for all else.

    An answer whose error is none stays an answer, else it would be waited for for ever.
    """
    try:
        message = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    if "method" in message:
        return message if isinstance(message["method"], str) and _is_id(message.get("id")) else None
    if type(message.get("id")) is not int:  # ours are numbers
        return None
    if "result" not in message and not _is_error(message.get("error")):
        message["error"] = {"code": _NO_ANSWER, "message": "an answer that is neither a result nor an error"}
    return message


def _is_id(value: object) -> bool:
    return value is None or isinstance(value, int | str)


def _is_error(value: object) -> bool:
    return isinstance(value, dict) and type(value.get("code")) is int and isinstance(value.get("message"), str)
