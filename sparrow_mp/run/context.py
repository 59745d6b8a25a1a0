"""What an engine gets: its run. Emit events, take messages, ask for approvals, hear an interruption."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from sparrow_mp.events import (
    PLAIN_TYPES,
    ApprovalRequested,
    Autonomy,
    Decision,
    Event,
    Risk,
    RunFinished,
    RunQueued,
    RunStarted,
    Unknown,
)
from sparrow_mp.run.channel import Channel
from sparrow_mp.run.outbox import Outbox

_FULL_WAIT_S = 0.005
_LONGEST_WAIT_S = 3600.0
_NOT_OURS = (RunQueued, RunStarted, RunFinished)
_EMITTABLE = PLAIN_TYPES.difference(_NOT_OURS)


class Interrupted(BaseException):
    """Somebody asked this run to end. Not an Exception, so that ``except Exception`` does not swallow it."""


class RunContext:
    """A run, seen from inside. Everything here is safe from any thread of the engine's process.

    ``id``, ``task``, ``agent``, ``autonomy``, ``budget`` (USD or None), ``argv`` and ``workspace`` (the folder it works in)
    are what they say; ``interpreter`` is the Python that the task wants where that is not this process's, else None.
    """

    def __init__(
        self,
        *,
        run: str,
        task: str,
        agent: str,
        autonomy: Autonomy,
        budget: float | None,
        argv: list[str] | None,
        workspace: Path,
        interpreter: str | None,
        outbox: Outbox,
        channel: Channel,
    ) -> None:
        self.id = run
        self.task = task
        self.agent = agent
        self.autonomy = autonomy
        self.budget = budget
        self.argv = argv
        self.workspace = workspace
        self.interpreter = interpreter
        self._outbox = outbox
        self._channel = channel
        self._process = os.getpid()
        self._interrupted = (
            False  # no Event: its lock may be held by the very thread that a signal's handler interrupts
        )
        self._words = ""
        self._inbox: deque[str] = deque()
        self._decisions: dict[str, Decision] = {}
        self._reading = threading.Condition()
        self._has_reader = False
        self._poke_in, self._poke_out = socket.socketpair()
        self._poke_out.setblocking(False)

    # ── events ──

    def emit(self, event: Event | Unknown) -> None:
        """Record an event: once this returns, it survives whatever dies. ``run``, ``seq`` and ``ts`` are filled in.

        Waits while more than the outbox holds is not recorded yet, or the disk is full. Raises TypeError for what is no
        event, ValueError for one over 1 MiB, RuntimeError in a process that the engine forked, Interrupted while it waits.
        """
        self.emit_many((event,))

    def emit_many(self, events: Sequence[Event | Unknown]) -> None:
        """Record several events in their order; much faster than one by one. Raises as ``emit`` does, before any is recorded
        for what is no event; for one that is too large, those before it are recorded.
        """
        if not _EMITTABLE.issuperset(map(type, events)):
            _check_types(events)
        if os.getpid() != self._process:
            raise RuntimeError("this process was forked by the engine; only the engine's own process may emit events")
        left = events
        while left:
            done = self._outbox.append(left)
            left = left[done:]
            # Full: the supervisor is behind or away, or the disk is full. Nobody signals room, hence the short wait.
            if left and not done and self._interrupted_within(_FULL_WAIT_S):
                raise Interrupted(self.interruption)

    def _interrupted_within(self, seconds: float) -> bool:
        if not self._interrupted:
            select.select([self._poke_in], [], [], seconds)
        return self._interrupted

    # ── interruption ──

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked this run to end. Does not wait."""
        if not self._interrupted:
            self._take()
        return self._interrupted

    @property
    def interruption(self) -> str:
        """The words of whoever asked; empty where none were given."""
        if not self._words and self._interrupted:
            self._take()  # they were sent before the signal, which may have been faster all the same
        return self._words

    def check(self) -> None:
        """Raise Interrupted once somebody asked this run to end."""
        if self.interrupted:
            raise Interrupted(self.interruption)

    def interrupt(self) -> None:
        """Somebody asks this run to end: the monitor said so, or SIGTERM came. Safe in a signal's handler."""
        self._interrupted = True
        try:
            self._poke_out.send(b"!")
        except OSError:
            pass

    # ── messages ──

    def messages(self) -> Iterator[str]:
        """What has been injected since, oldest first. Does not wait."""
        self._take()
        while self._inbox:
            yield self._inbox.popleft()

    def next_message(self, timeout: float | None = None) -> str | None:
        """Wait for an injected message, at most ``timeout`` seconds; None where none came. Raises Interrupted."""
        return self._await(lambda: self._inbox.popleft() if self._inbox else None, timeout)

    async def next_message_async(self, timeout: float | None = None) -> str | None:  # noqa: ASYNC109  as the sync one
        """``next_message`` for an async engine."""
        return await self._await_async(lambda: self._inbox.popleft() if self._inbox else None, timeout)

    # ── approvals ──

    def ask(
        self, summary: str, tool: str | None = None, risk: Risk | None = None, timeout: float | None = None
    ) -> Decision:
        """Ask for an approval and wait for the decision; after ``timeout`` seconds it is ``Deny``. Raises Interrupted."""
        request = self._request(summary, tool, risk)
        decision = self._await(lambda: self._decisions.pop(request, None), timeout)
        if decision is None:
            self._channel.send(withdraw=request)  # whoever decided in this moment is heard all the same
            decision = self._await(lambda: self._decisions.pop(request, None), None)
        return cast(Decision, decision or "Deny")

    async def ask_async(
        self,
        summary: str,
        tool: str | None = None,
        risk: Risk | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  as the sync one: None of it is an error here, but an answer
    ) -> Decision:
        """``ask`` for an async engine."""
        request = self._request(summary, tool, risk)
        decision = await self._await_async(lambda: self._decisions.pop(request, None), timeout)
        if decision is None:
            self._channel.send(withdraw=request)
            decision = await self._await_async(lambda: self._decisions.pop(request, None), None)
        return cast(Decision, decision or "Deny")

    def _request(self, summary: str, tool: str | None, risk: Risk | None) -> str:
        request = uuid.uuid4().hex[:8]
        self._channel.send(ask=request)
        self.emit(ApprovalRequested(id=request, summary=summary, tool=tool, risk=risk))
        return request

    # ── reading the channel: one thread reads for all, the others wait for it ──

    def _take(self, wait_s: float = 0.0) -> None:
        """Sort what the monitor has sent. Only one thread is in here at a time."""
        with self._reading:
            if self._has_reader:
                self._reading.wait(wait_s)
                return
            self._has_reader = True
        try:
            if wait_s:
                select.select([self._channel.socket, self._poke_in], [], [], wait_s)
            for body in self._channel.receive():
                self._sort(body)
        finally:
            with self._reading:
                self._has_reader = False
                self._reading.notify_all()

    def _sort(self, body: dict[str, Any]) -> None:
        if "message" in body:
            self._inbox.append(str(body["message"]))
        elif "decision" in body:
            self._decisions[str(body["id"])] = body["decision"]
        elif "interrupt" in body:
            self._words = str(body["interrupt"])
            self.interrupt()

    def _await(self, look: Callable[[], str | None], timeout: float | None) -> str | None:
        """Wait until ``look`` gives something other than None."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._take()
        while True:
            found = look()
            if found is not None:
                return found
            if self._interrupted:
                raise Interrupted(self.interruption)
            left = _LONGEST_WAIT_S if deadline is None else deadline - time.monotonic()
            if left <= 0 or self._channel.closed:
                return None
            self._take(min(left, _LONGEST_WAIT_S))

    async def _await_async(
        self,
        look: Callable[[], str | None],
        timeout: float | None,  # noqa: ASYNC109  as above
    ) -> str | None:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            self._take()
            found = look()
            if found is not None:
                return found
            if self._interrupted:
                raise Interrupted(self.interruption)
            left = None if deadline is None else deadline - loop.time()
            if (left is not None and left <= 0) or self._channel.closed:
                return None
            readable = asyncio.Event()
            loop.add_reader(self._channel.fileno(), readable.set)
            try:
                await asyncio.wait_for(readable.wait(), left)
            except TimeoutError:
                pass
            finally:
                loop.remove_reader(self._channel.fileno())


def _check_types(events: Sequence[object]) -> None:
    """Raise TypeError for what an engine may not emit."""
    for event in events:
        if not isinstance(event, (Event, Unknown)):
            raise TypeError(f"not an event: {type(event).__name__}; emit a struct of sparrow_mp, or Custom")
        if isinstance(event, _NOT_OURS):
            raise TypeError(f"{type(event).__name__} is the supervisor's to say; emit a Message, or Custom")
