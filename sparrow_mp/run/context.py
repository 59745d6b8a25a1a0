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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from sparrow_mp.events import (
    PLAIN_TYPES,
    ApprovalRequested,
    ApprovalResolved,
    Autonomy,
    CostUpdate,
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
from sparrow_mp.run.permits import Permits

_FULL_WAIT_S = 0.005
_LONGEST_WAIT_S = 3600.0
_NOT_OURS = (RunQueued, RunStarted, RunFinished)
_EMITTABLE = PLAIN_TYPES.difference(_NOT_OURS)


class Interrupted(BaseException):
    """Somebody asked this run to end. Not an Exception, so that ``except Exception`` does not swallow it."""


class CannotRun(Exception):
    """What an engine's ``find`` raises where it cannot do the run: it is rejected, with these words."""


class RunContext:
    """A run, seen from inside. Everything here is safe from any thread of the engine's process.

    ``id``, ``task``, ``agent``, ``autonomy``, ``budget`` (USD or None), ``argv`` and ``workspace`` (the folder it works in)
    are what they say; ``approval_timeout`` is how long an approval is waited for, in seconds; ``interpreter`` is the Python that
    the task wants where that is not this process's, else None; ``session`` is what an engine is to go on with, by the name that
    it gave it in an earlier run; ``config`` is the supervisor's configuration file.
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
        approval_timeout: float,
        permits: Permits,
        interpreter: str | None,
        session: str | None,
        config: Path | None,
        outbox: Outbox,
        channel: Channel,
    ) -> None:
        self.id = run
        self.task = task
        self.agent = agent
        self.autonomy: Autonomy = autonomy
        self.budget = budget
        self.argv = argv
        self.workspace = workspace
        self.approval_timeout = approval_timeout
        self.interpreter = interpreter
        self.session = session
        self.config = config
        self._outbox = outbox
        self._channel = channel
        self._process = os.getpid()
        self._interrupted = (
            False  # no Event: its lock may be held by the very thread that a signal's handler interrupts
        )
        self._words = ""
        self._inbox: deque[str] = deque()
        self._urgent = False
        self._decisions: dict[str, Decision] = {}
        self._permits = permits
        self._reading = threading.Condition()
        self._waiters: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._has_reader = False
        self._poke_in, self._poke_out = socket.socketpair()
        self._poke_out.setblocking(False)

    # ── events ──

    def emit(self, event: Event | Unknown) -> None:
        """Record an event: once this returns, it survives whatever dies. ``run``, ``seq`` and ``ts`` are filled in.

        Waits while more than the outbox holds is not recorded yet, or the disk is full. Raises TypeError for what is no
        event, ValueError for one over 1 MiB, RuntimeError in a process that the engine forked, Interrupted while it waits.
        """
        if not self._outbox.append_one(event):
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
        if self.budget is not None:
            self._tell_cost(events)

    def _tell_cost(self, events: Sequence[Event | Unknown]) -> None:
        """Have the monitor know what this has cost, which ends what costs too much whether a supervisor is there or not."""
        costs = [event.usd for event in events if isinstance(event, CostUpdate)]
        if costs:
            self._channel.send(cost=costs[-1])

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
        self._urgent = False
        while self._inbox:
            yield self._inbox.popleft()

    def next_message(self, timeout: float | None = None) -> str | None:
        """Wait for an injected message, at most ``timeout`` seconds; None where none came. Raises Interrupted."""
        return self._await(lambda: self._inbox.popleft() if self._inbox else None, timeout)

    async def next_message_async(self, timeout: float | None = None) -> str | None:  # noqa: ASYNC109  as the sync one
        """``next_message`` for an async engine."""
        return await self._await_async(lambda: self._inbox.popleft() if self._inbox else None, timeout)

    async def urgent_async(self) -> None:
        """Wait for a message that is not to wait until this run has ended what it is doing; ``messages`` has it. Raises
        Interrupted.
        """
        await self._await_async(lambda: "" if self._urgent else None, None)

    # ── approvals ──

    def ask(
        self, summary: str, tool: str | None = None, risk: Risk | None = None, timeout: float | None = None
    ) -> Decision:
        """Ask people for an approval and wait for the decision; after ``timeout`` seconds (default: ``approval_timeout``) it is
        ``Deny``. Raises Interrupted.
        """
        request = self._request(summary, tool, risk)
        limit = self.approval_timeout if timeout is None else timeout
        decision = self._await(lambda: self._decisions.pop(request, None), limit)
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
        limit = self.approval_timeout if timeout is None else timeout
        try:
            decision = await self._await_async(lambda: self._decisions.pop(request, None), limit)
        except asyncio.CancelledError:
            self._channel.send(withdraw=request, in_time=True)  # so that no person is asked what nobody waits for
            raise
        if decision is None:
            self._channel.send(withdraw=request)
            decision = await self._await_async(lambda: self._decisions.pop(request, None), None)
        return cast(Decision, decision or "Deny")

    def permit(self, summary: str, *, tool: str, risk: Risk, paths: Iterable[str | Path] = ()) -> Decision:
        """Whether a tool may do what the summary says with these paths (relative ones: to the workspace).

        The policy decides by ``autonomy`` and the risk, or has people asked. What begins with ``Allow`` is a yes. A refusal
        and whatever was asked for is recorded with who decided it. Raises Interrupted.
        """
        decision = self._rule(summary, tool, risk, paths)
        return decision or self._permits.settle(tool, risk, self.ask(summary, tool, risk))

    async def permit_async(self, summary: str, *, tool: str, risk: Risk, paths: Iterable[str | Path] = ()) -> Decision:
        """``permit`` for an async engine."""
        decision = self._rule(summary, tool, risk, paths)
        return decision or self._permits.settle(tool, risk, await self.ask_async(summary, tool, risk))

    def _rule(self, summary: str, tool: str, risk: Risk, paths: Iterable[str | Path]) -> Decision | None:
        """What is decided without asking anybody, a refusal recorded; None where somebody has to be asked."""
        decision, reason = self._permits.rule(tool, risk, paths)
        if decision == "Deny":
            request = uuid.uuid4().hex[:8]
            asked = ApprovalRequested(id=request, summary=summary, tool=tool, risk=risk, refused=True)
            self.emit_many((asked, ApprovalResolved(id=request, decision="Deny", by="policy", reason=reason)))
        return decision

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
            self._wake()
        finally:
            with self._reading:
                self._has_reader = False
                self._reading.notify_all()

    def _wake(self) -> None:
        """What has come may be for any of those who wait in an event loop, whoever has read it."""
        for came, loop in list(self._waiters.items()):
            try:
                loop.call_soon_threadsafe(came.set)
            except RuntimeError:
                pass  # that loop is closed: nobody waits in it

    def _sort(self, body: dict[str, Any]) -> None:
        if "message" in body:
            self._inbox.append(str(body["message"]))
            self._urgent = self._urgent or bool(body.get("now"))
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
        came = asyncio.Event()
        watched = os.dup(self._channel.fileno())  # a loop has one callback for a descriptor, and several may wait here
        self._waiters[came] = loop
        loop.add_reader(watched, came.set)
        try:
            while True:
                came.clear()
                self._take()
                found = look()
                if found is not None:
                    return found
                if self._interrupted:
                    raise Interrupted(self.interruption)
                left = None if deadline is None else deadline - loop.time()
                if (left is not None and left <= 0) or self._channel.closed:
                    return None
                await _within(came, left)
        finally:
            del self._waiters[came]
            loop.remove_reader(watched)
            os.close(watched)


async def _within(came: asyncio.Event, seconds: float | None) -> None:
    """Wait for it, but no longer than that. (Before Python 3.12 asyncio.wait_for forgets a cancellation that comes with it.)"""
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, came.set)
    try:
        await came.wait()
    finally:
        if timer is not None:
            timer.cancel()


def _check_types(events: Sequence[object]) -> None:
    """Raise TypeError for what an engine may not emit."""
    for event in events:
        if not isinstance(event, (Event, Unknown)):
            raise TypeError(f"not an event: {type(event).__name__}; emit a struct of sparrow_mp, or Custom")
        if isinstance(event, _NOT_OURS):
            raise TypeError(f"{type(event).__name__} is the supervisor's to say; emit a Message, or Custom")
