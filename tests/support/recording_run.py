"""A run for the loop of the engine `agent`, in the test's own process: it records what is emitted, and permits what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from sparrow_mp.events import Decision, Event, Risk
from sparrow_mp.run.context import RunContext


class RecordingRun:
    """What of a RunContext the loop uses."""

    def __init__(self, workspace: Path, task: str = "do it", *, budget: float | None = None) -> None:
        self.workspace = workspace
        self.task = task
        self.budget = budget
        self.events: list[Event] = []
        self.inbox: list[str] = []
        self._urgent: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._hurries = False
        self.refused: set[str] = set()
        self.asked: list[tuple[str, str, Risk, list[str]]] = []

    @property
    def context(self) -> RunContext:
        """Itself, by the type that the engine knows."""
        return cast(RunContext, self)

    def emit(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def messages(self) -> Iterator[str]:
        """What a test has put there."""
        while self.inbox:
            yield self.inbox.pop(0)

    async def urgent_async(self) -> None:
        """Wait until a test says that something is urgent."""
        came = asyncio.Event()
        self._urgent = (asyncio.get_running_loop(), came)
        if not self._hurries:
            await came.wait()
        self._hurries = False

    def hurry(self, text: str) -> None:
        """Something urgent is said, by another thread."""
        self.inbox.append(text)
        self._hurries = True
        if self._urgent is not None:
            loop, came = self._urgent
            loop.call_soon_threadsafe(came.set)

    async def permit_async(self, summary: str, *, tool: str, risk: Risk, paths: Iterable[str | Path] = ()) -> Decision:
        """Yes, unless the tool is among the refused."""
        self.asked.append((summary, tool, risk, [str(path) for path in paths]))
        return "Deny" if tool in self.refused else "Allow"

    def told(self, kind: type[Any]) -> list[Any]:
        """The events of a type."""
        return [event for event in self.events if isinstance(event, kind)]
