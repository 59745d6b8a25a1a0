"""Following one run to its end, and what people do meanwhile: interrupt it, detach, feed its standard input.

One thread follows. What has to be sent meanwhile is sent by daemon threads, each with a client of its own (a ZeroMQ
socket belongs to one thread), so that neither a signal nor a slow standard input disturbs the stream or delays the end.
"""

from __future__ import annotations

import os
import queue
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from sparrow_mp import events as ev
from sparrow_mp.cli.output import answer, on_terminal, out_json, say, write
from sparrow_mp.cli.screen import FollowView, finish_line
from sparrow_mp.cli.words import ending, exit_code, short
from sparrow_mp.errors import NotRunning, RateLimited, SparrowError

if TYPE_CHECKING:
    from types import FrameType

    from sparrow_mp.client import Client

STDIN_CHUNK = 64 << 10
_SHORTEST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.2


class Detached(Exception):  # not an error: the user asked for it
    """The user wants to leave the run alone."""


class Answering(Protocol):
    """Whoever asks people for the run's approvals."""

    def shown(self, event: ev.AnyEvent) -> AbstractContextManager[None]:
        """Entered while an event is written."""
        ...

    def close(self) -> None:
        """The run is followed no longer."""
        ...


def follow(
    client: Client,
    run: str,
    *,
    since: int = 0,
    as_json: bool = False,
    injected: bool = True,
    answering: Callable[[FollowView], Answering] | None = None,
) -> int:
    """Show a run's events until its last one, and tell how it ended. Returns the exit code that this stands for.

    ``answering`` makes who asks people for approvals meanwhile, where people are there.
    """
    outcome: ev.Outcome | None = None
    if as_json:
        for line in client.lines(run, since=since):
            out_json(line)
            if b'"RunFinished"' in line[:32]:
                outcome = _outcome(line)
        return tell_end(run, outcome)
    view = FollowView(injected=injected)
    answers = answering(view) if answering is not None else None
    try:
        for line in client.lines(run, since=since):
            try:
                event = ev.decode(line)
            except ev.EventError as error:
                say(f"run {run[:8]}: an event cannot be read: {error}")
                continue
            with answers.shown(event) if answers is not None else nullcontext():
                view.show(event)
            if isinstance(event, ev.RunFinished):
                outcome = event.outcome
            elif isinstance(event, ev.RunQueued):
                say(f"run {run[:8]} waits for a free place; it is number {event.position} in the queue")
    finally:
        if answers is not None:
            answers.close()
        view.close()
    return tell_end(run, outcome, view.last_error)


def tell_end(run: str, outcome: ev.Outcome | None, told: str = "") -> int:
    """Say how the run ended where that was not well (``told``: what has been said already); the exit code."""
    if outcome is None:
        say(f"the record of run {short(run)} ends without saying how it ended")
        return 1
    code = exit_code(outcome.status, outcome.exit_code, outcome.signal)
    if code:
        reason = outcome.reason if outcome.reason != told else None
        say(f"run {short(run)} {ending(outcome.status, outcome.exit_code, outcome.signal, reason)}")
    elif on_terminal(sys.stderr) and (outcome.cost_usd or outcome.tokens.input or outcome.diffs):
        write(sys.stderr, f"{finish_line(outcome)}\n")
    return code


def _outcome(line: bytes) -> ev.Outcome | None:
    try:
        event = ev.decode(line)
    except ev.EventError:
        return None
    return event.outcome if isinstance(event, ev.RunFinished) else None


class Controls:
    r"""Ctrl-C and Ctrl-\ while a run is followed.

    The handlers only put a word into a queue (SimpleQueue's put may be called from a handler); a daemon thread acts.
    """

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._presses = 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While this lasts, signals are ours. One that was ignored stays so (`nohup`, `&` in a script)."""
        handlers = {signal.SIGINT: self._on_interrupt, signal.SIGQUIT: self._on_quit}
        before = {number: signal.getsignal(number) for number in handlers}
        for number, handler in handlers.items():
            if before[number] is not signal.SIG_IGN:
                signal.signal(number, handler)
        try:
            yield
        finally:
            for number, former in before.items():
                signal.signal(number, former)

    def serve(self, run: str) -> None:
        """The run is known now: do what was asked, or will be."""
        threading.Thread(target=self._serve, args=(run,), name="controls", daemon=True).start()

    def _serve(self, run: str) -> None:
        client: Client | None = None
        while True:
            now = self._asked.get()
            try:
                if client is None:
                    client = self._connect()
                client.interrupt(run, now=now)
            except NotRunning:
                pass  # it has ended meanwhile, which is all that was wanted
            except SparrowError as error:
                client = None
                say(f"could not interrupt: {error.message}")

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._presses += 1
        if self._presses == 1:
            answer("interrupting it; Ctrl-C again kills it")
        elif self._presses == 2:
            answer("killing it")
        else:
            raise KeyboardInterrupt  # not even that is answered: let the user go
        self._asked.put(self._presses > 1)

    def _on_quit(self, _number: int, _frame: FrameType | None) -> None:
        raise Detached


def stdin_to_forward() -> bool:
    """Whether there is a standard input whose bytes are the run's: not a terminal, and open."""
    try:
        kind = os.fstat(0).st_mode
    except OSError:
        return False
    # Python leaves sys.stdin None where descriptor 0 was closed; what has the number now is something else of ours.
    return sys.stdin is not None and not stat.S_ISDIR(kind) and not os.isatty(0)


def forward_stdin(run: str, connect: Callable[[], Client]) -> None:
    """Hand the bytes of standard input to the run, then its end, in a daemon thread.

    It reads as they come, at most 64 KiB ahead, until the run has ended; what it read and the run did not is gone for
    whoever reads the same input next, as with ssh. (`--stdin null` leaves it alone.)
    """
    threading.Thread(target=_forward, args=(run, connect), name="stdin", daemon=True).start()


def inject_patiently(client: Client, run: str, **what: Any) -> None:
    """Inject, and try again while the run has more than it reads, so that whoever writes to us waits as at a pipe."""
    pause = _SHORTEST_PAUSE_S
    while True:
        try:
            client.inject(run, **what)
            return
        except RateLimited:
            time.sleep(pause)  # nothing tells when a program reads; this thread has nothing else to do
            pause = min(pause * 2, _LONGEST_PAUSE_S)


def _forward(run: str, connect: Callable[[], Client]) -> None:
    try:
        client = connect()
        while data := os.read(0, STDIN_CHUNK):
            inject_patiently(client, run, data=data)
        client.inject(run, eof=True)
    except NotRunning:
        pass  # it ended without reading all of it, as any program may
    except SparrowError as error:  # before OSError: one that timed out is both
        say(f"standard input is not handed on any further: {error.message}")
    except OSError as error:
        say(f"standard input cannot be read any further: {error.strerror}")
