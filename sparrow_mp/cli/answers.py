"""Answering what a run asks for while it is followed on a terminal.

`sparrow run` takes one key: nothing else is typed there. `sparrow attach` takes a line of one letter, since what is typed
there may be half a message when the question comes. Nobody is asked in a pipe, in the background, or about what has been
settled by the time it is shown.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from msgspec import json

from sparrow_mp import events as ev
from sparrow_mp.cli.output import coloured, on_terminal, paint, say, write
from sparrow_mp.cli.words import clean
from sparrow_mp.errors import BadRequest, NotRunning, SparrowError

if TYPE_CHECKING:
    from types import FrameType

    from sparrow_mp.client import Client
    from sparrow_mp.wire import RunRecord

_SETTLING_S = 0.15
"""How long a question stays open before people are asked: what policy or a replay settles at once is nobody's business."""
_LOOK_S = 0.5
_LOOKED_BACK = 500
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_LOCK_S = 1.0
_KEYS: dict[str, ev.Decision] = {"y": "Allow", "n": "Deny", "s": "AllowSession", "a": "AllowAlways"}
_WORDS = {"Allow": "yes", "Deny": "no", "AllowSession": "yes, for this session", "AllowAlways": "yes, always"}


class Questions:
    """What the run asks for and nobody has answered, oldest first. Its lock also guards the terminal."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._open: dict[str, tuple[ev.ApprovalRequested, float]] = {}

    def heard(self, event: ev.AnyEvent) -> None:
        """Take an event of the run into account."""
        with self.lock:
            if isinstance(event, ev.ApprovalRequested) and not event.refused:
                self._open[event.id] = (event, time.monotonic())
            elif isinstance(event, ev.ApprovalResolved):
                self._open.pop(event.id, None)
            elif isinstance(event, ev.RunFinished):
                self._open.clear()

    def first(self) -> ev.ApprovalRequested | None:
        """The oldest that has been open for a moment."""
        with self.lock:
            for asked, since in self._open.values():
                return asked if time.monotonic() - since >= _SETTLING_S else None
            return None

    def settled(self, request: str) -> None:
        """Somebody answers it just now."""
        with self.lock:
            self._open.pop(request, None)

    def __bool__(self) -> bool:
        return bool(self._open)


def decision_of(word: str, asked: ev.ApprovalRequested) -> ev.Decision | None:
    """What a key or a word means; None where it is no answer. What is destructive is allowed one time only."""
    decision = _KEYS.get(word.strip().lower()[:1]) if word.strip().lower() in _LONG else None
    return None if asked.risk == "Destructive" and decision in ("AllowSession", "AllowAlways") else decision


_LONG = {"y", "yes", "n", "no", "s", "session", "a", "always"}


def choices(asked: ev.ApprovalRequested) -> str:
    """The answers there are."""
    return "y(es), n(o)" if asked.risk == "Destructive" else "y(es), n(o), s(ession), a(lways)"


def give(client: Client, run: str, asked: ev.ApprovalRequested, decision: ev.Decision) -> None:
    """Hand the answer over. Where another was faster, or the run has ended, its transcript tells."""
    try:
        client.approve(run, decision, asked.id)
    except (BadRequest, NotRunning):
        pass
    except SparrowError as error:
        say(f"could not answer: {error.message}")


class KeyAnswers:
    """Asks on the terminal of `sparrow run` and takes a key, in a daemon thread with a client of its own.

    The question stands on the last line, and makes room while something else is written. ``make_room`` ends a line that
    the run has left unfinished.
    """

    def __init__(self, run: str, connect: Callable[[], Client], make_room: Callable[[], None]) -> None:
        self._run = run
        self._connect = connect
        self._make_room = make_room
        self._questions = Questions()
        self._shown: ev.ApprovalRequested | None = None
        self._former: list[Any] | None = None
        self._closed = False
        self._wake_in, self._wake_out = os.pipe()
        # Without a handler these end the process on the spot, and the terminal would stay as it is while it asks.
        self._handlers = {number: signal.getsignal(number) for number in _ENDING}
        for number, former in self._handlers.items():
            if former is not signal.SIG_IGN:
                signal.signal(number, self._end)
        self._thread = threading.Thread(target=self._serve, name="answers", daemon=True)
        self._thread.start()

    @contextmanager
    def shown(self, event: ev.AnyEvent) -> Iterator[None]:
        """While an event is written the question is out of the way."""
        with self._questions.lock:
            self._questions.heard(event)
            shown = self._shown
            if shown is not None:
                write(sys.stderr, "\r\x1b[K")
            yield
            if shown is not None and self._questions.first() is shown:
                self._draw(shown)
            elif shown is not None:
                self._restore()
        if self._questions and isinstance(event, ev.ApprovalRequested):
            os.write(self._wake_out, b"!")

    def close(self) -> None:
        """Leave the terminal as it was found."""
        with self._questions.lock:
            self._closed = True
            if self._shown is not None:
                write(sys.stderr, "\r\x1b[K")
            self._restore()
        for number, former in self._handlers.items():
            signal.signal(number, former)
        os.write(self._wake_out, b"!")

    def _end(self, number: int, _frame: FrameType | None) -> None:
        """Somebody ends this process: leave the terminal as it was found, and die of the signal all the same."""
        self._questions.lock.acquire(timeout=_LOCK_S)  # and keep it, so that nobody asks again
        self._closed = True
        if self._former is not None:
            with suppress(OSError, termios.error):  # it may have hung up
                termios.tcsetattr(0, termios.TCSANOW, self._former)
                os.write(2, b"\n")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _serve(self) -> None:
        client: Client | None = None
        while not self._closed:
            answered = self._look()
            if answered is None:
                continue
            try:
                client = client or self._connect()
            except SparrowError as error:
                say(f"could not answer: {error.message}")
                continue
            give(client, self._run, *answered)

    def _look(self) -> tuple[ev.ApprovalRequested, ev.Decision] | None:
        """Wait for a question or a key; an answer, where that was one."""
        with self._questions.lock:
            self._ask()
            watched = [self._wake_in] if self._shown is None else [self._wake_in, 0]
            wait = _SETTLING_S if self._questions and self._shown is None else _LOOK_S if self._questions else None
        ready, _, _ = select.select(watched, [], [], wait)
        if self._wake_in in ready:
            os.read(self._wake_in, 64)
        with self._questions.lock:
            shown = self._shown
            if 0 not in ready or shown is None or self._closed or not _in_foreground():
                return None
            decision = decision_of(os.read(0, 1).decode("ascii", "replace"), shown)
            if decision is None:
                return None
            self._questions.settled(shown.id)
            write(sys.stderr, _WORDS[decision] + "\n")
            self._restore()
            return shown, decision

    def _ask(self) -> None:
        """Put the oldest question onto the terminal, unless it is there."""
        asked = self._questions.first()
        if self._closed or self._shown is not None or asked is None or not _in_foreground():
            return
        self._former = termios.tcgetattr(0)
        tty.setcbreak(0)  # what was typed before is dropped: it was no answer to this
        self._shown = asked
        self._draw(asked)

    def _draw(self, asked: ev.ApprovalRequested) -> None:
        self._make_room()
        end = f"? {choices(asked)}: "
        besides = len("allow: ") + len(end) + max(map(len, _WORDS.values()))  # the answer comes to stand there too
        text = f"allow: {_one_line(clean(asked.summary), besides)}"
        write(sys.stderr, paint([(text, "bold cyan"), (end, "")], coloured(sys.stderr)))

    def _restore(self) -> None:
        if self._former is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._former)
        self._former = None
        self._shown = None


def _one_line(text: str, besides: int) -> str:
    """The text cut so that it fits on one line of the terminal with so many columns besides."""
    from rich.cells import cell_len, set_cell_size

    try:
        room = max(10, os.get_terminal_size(2).columns - besides - 1)
    except OSError:
        room = 40
    text = " ".join(text.split())
    return text if cell_len(text) <= room else set_cell_size(text, room - 1) + "…"


def _in_foreground() -> bool:
    """Whether the terminal listens to us: a job in the background would be stopped for touching it."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def people_can_answer() -> bool:
    """Whether somebody sees a question and can press a key."""
    return on_terminal(sys.stdin) and on_terminal(sys.stderr)


class LineAnswers:
    """The same for `sparrow attach`: a line of one letter, while there is a question, is its answer."""

    def __init__(self) -> None:
        self._questions = Questions()
        self._told = ""
        self._closed = threading.Event()
        self._changed = threading.Event()
        threading.Thread(target=self._serve, name="questions", daemon=True).start()

    @contextmanager
    def shown(self, event: ev.AnyEvent) -> Iterator[None]:
        """An event is written."""
        with self._questions.lock:
            self._questions.heard(event)
            yield
        if self._questions:
            self._changed.set()

    def recall(self, client: Client, record: RunRecord, until: int) -> None:
        """Find out what the run asked before the event from which it is followed, as far as anybody would look back."""
        begin = max(0, until - _LOOKED_BACK)
        if until > begin:
            told = client.request({"op": "events", "run": record.run, "since": begin, "limit": until - begin})
            for event in told["events"]:
                with self.shown(ev.decode(json.encode(event))):
                    pass

    def close(self) -> None:
        """There will be no more questions."""
        self._closed.set()
        self._changed.set()

    def take(self, line: str) -> tuple[ev.ApprovalRequested, ev.Decision] | None:
        """What a typed line answers; None where it is a message to the run."""
        with self._questions.lock:
            asked = self._questions.first()
            if asked is None or asked.id != self._told:
                return None
            decision = decision_of(line, asked)
            if decision is None:
                return None
            self._questions.settled(asked.id)
            self._changed.set()
            return asked, decision

    def _serve(self) -> None:
        while not self._closed.is_set():
            self._changed.wait(_SETTLING_S if self._questions else None)
            self._changed.clear()
            with self._questions.lock:
                asked = self._questions.first()
                if asked is not None and asked.id != self._told:
                    self._told = asked.id
                    summary = _one_line(clean(asked.summary), 60)
                    say(f"allow: {summary}? type {choices(asked)} and Enter")
            if self._questions:
                self._closed.wait(_SETTLING_S)
