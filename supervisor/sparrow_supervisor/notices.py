"""Tells the user: calls a command of theirs once when a run ends or begins to wait for an approval (``[notify]``).

A notice is a file in ``<state>/notices``. It is written before the run's end is booked, so it is not forgotten whatever
crashes; whoever calls the command renames it first (``notifier.py``), so the command is not called twice, whichever
supervisor comes. Lost is one whose notifier dies between renaming it and starting the command.

Nothing of this is done in the loop but writing small files: the notifiers are processes of their own, a few at most, which
end when there is nothing to call for a while.
"""

from __future__ import annotations

import errno
import logging
import re
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sparrow_mp import wire
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.paths import secure_folder
from sparrow_mp.wire import RunRecord
from sparrow_supervisor.notifier import BEGUN, Call, Said
from sparrow_supervisor.notifier_client import Notifier

if TYPE_CHECKING:
    from sparrow_supervisor.member import Member
    from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger(__name__)

_AT_ONCE = 4
_MOST = 10_000
"""How many may wait to be told; what comes on top is not told, but for a line in the log."""
_IDLE_S = 5.0
_AGAIN_S = 1.0
_MOST_IN_ENV = 4096
_DUE = ".due"
_NEW = ".new"
_NAME = re.compile(r"[0-9a-f-]{36}\.(ended|waiting)(\.[0-9]+)?(\.[a-z]+)*")

What = Literal["ended", "waiting"]


class Notices:
    """``record`` gives a run's row as clients see it, None where there is none."""

    def __init__(self, reactor: Reactor, record: Callable[[str], RunRecord | None]) -> None:
        self._reactor = reactor
        self._record = record
        self._folder = reactor.places.state / "notices"
        secure_folder(self._folder)
        self._queue: deque[Path] = deque()
        self._told: dict[str, int] = {}
        """The last wait of each live run that a notice was made of, by the seq of its request."""
        self._notifiers: set[Notifier] = set()
        self._begun = False
        self._ending = False
        self._complained = False

    # ── what there is to tell ──

    def begin(self) -> None:
        """Take up what an earlier supervisor left, and what ended while it was taken over."""
        self._begun = True
        for path in sorted(self._folder.iterdir()):
            if not _NAME.fullmatch(path.name):
                _log.warning("%s is none of ours and stays", path)
                continue
            run, what, seq = _parts(path)
            live = run in self._reactor.members or run in self._reactor.left_alone
            if path.suffix == _NEW:
                _remove(path)
                continue
            if what == "waiting" and live:
                self._told[run] = max(seq, self._told.get(run, 0))
            if path.suffix == _DUE and (what == "waiting" or not live):
                self._queue.append(path)
            elif path.suffix != _DUE and not (what == "waiting" and live):
                _remove(path)  # it was told, or was about to be: nobody is told twice
        for member in list(self._reactor.members.values()):
            self.look(member)
        self._go_on()

    def look(self, member: Member) -> None:
        """The run may have begun to wait for an approval: then make a notice of it, once."""
        asked = member.totals.asked
        if not member.totals.waiting or asked is None or self._told.get(member.run, 0) >= asked.seq:
            return
        if "waiting" not in self._on() or len(self._queue) >= _MOST:
            return
        before, self._told[member.run] = self._told.get(member.run), asked.seq
        if before is not None:
            self._forget(member.run, before)
        path = self._folder / f"{member.run}.waiting.{asked.seq}{_DUE}"
        approval = {"id": asked.id, "summary": asked.summary, "tool": asked.tool, "risk": asked.risk}
        if self._write(path, {"approval": approval}):
            self._queue.append(path)
            self._go_on()

    def will_end(self, run: str) -> bool:
        """The run's end is about to be booked: make a notice of it. False where the disk is full: then try again."""
        if "ended" not in self._on():
            return True
        if len(self._queue) >= _MOST:
            if not self._complained:
                _log.error("%d notices wait for the command of [notify] already; further ends are not told", _MOST)
            self._complained = True
            return True
        return self._write(self._due(run), {})

    def ended(self, run: str) -> None:
        """The run's end is booked: now it can be told."""
        last = self._told.pop(run, None)
        if last is not None:
            self._forget(run, last)
        if self._begun and self._due(run).exists():
            self._queue.append(self._due(run))
            self._go_on()

    def _on(self) -> list[str]:
        settings = self._reactor.config.notify
        return list(settings.on) if settings.command else []

    def _due(self, run: str) -> Path:
        return self._folder / f"{run}.ended{_DUE}"

    def _forget(self, run: str, seq: int) -> None:
        """A wait that is over need no longer be remembered. If nobody has been told of it yet, nobody need be."""
        for suffix in (_DUE, BEGUN):
            (self._folder / f"{run}.waiting.{seq}{suffix}").unlink(missing_ok=True)

    def _write(self, path: Path, body: Any) -> bool:
        """False where the disk is full."""
        new = path.with_suffix(_NEW)
        try:
            new.write_bytes(wire.encode(body))
            new.replace(path)
            self._reactor.recorder.settle(path, self._folder)
        except OSError as error:
            _log.error("%s: a notice cannot be written: %s", path, error.strerror)
            return error.errno not in (errno.ENOSPC, errno.EDQUOT)
        if ARMED:
            reach("notices.written")
        return True

    # ── telling it ──

    def _go_on(self) -> None:
        """Give notifiers that have nothing to do what waits."""
        while self._queue and not self._ending:
            idle = next((notifier for notifier in self._notifiers if notifier.idle), None)
            if idle is None and len(self._notifiers) >= _AT_ONCE:
                return
            path = self._queue.popleft()
            call = self._call(path)
            if call is None:
                path.unlink(missing_ok=True)
                continue
            if not self._write(path, call):
                self._queue.appendleft(path)
                self._reactor.loop.later(_AGAIN_S, self._go_on)
                return
            if idle is None:
                try:
                    idle = Notifier(self._reactor.loop, self._said, self._gone)
                except OSError as error:
                    _log.error("a notifier cannot be started: %s", error.strerror)
                    self._queue.appendleft(path)
                    self._reactor.loop.later(_AGAIN_S, self._go_on)
                    return
                self._notifiers.add(idle)
            idle.take(path, call.timeout)

    def _call(self, path: Path) -> Call | None:
        """What to call for a notice; None where there is nothing to call any more."""
        settings = self._reactor.config.notify
        run, what, _ = _parts(path)
        try:
            body = msgspec.json.decode(path.read_bytes(), type=_Body)
        except (OSError, msgspec.DecodeError):
            return None
        record = self._record(run)
        if not settings.command or record is None:
            return None
        facts = {"event": what, **msgspec.to_builtins(record)}
        if body.approval is not None:
            facts["approval"] = body.approval
        argv = ["/bin/sh", "-c", settings.command]
        env = {name: value.replace("\0", "") for name, value in _env(facts).items()}
        env |= {
            "SPARROW_STATE_DIR": str(self._reactor.places.state),
            "SPARROW_CONFIG": str(self._reactor.places.config),
        }
        env |= {"SPARROW_RUNTIME_DIR": str(self._reactor.places.runtime)}
        text = wire.encode(facts).decode() + "\n"
        return Call(argv, env, text, settings.timeout, self._reactor.usual.umask, body.approval)

    def _said(self, notifier: Notifier, path: Path, said: Said) -> None:
        run, what, seq = _parts(path)
        if said.problem:
            words = f"; it said: {said.stderr}" if said.stderr else ""
            _log.warning("run %s (%s): the command of [notify] failed: %s%s", run, what, said.problem, words)
        else:
            _log.info("run %s (%s): told by the command of [notify]", run, what)
        if (
            what == "ended" or self._told.get(run) != seq
        ):  # else it says that this wait has been told, as long as it lasts
            path.with_suffix(BEGUN).unlink(missing_ok=True)
        self._go_on()
        if notifier.idle:
            self._reactor.loop.later(_IDLE_S, partial(notifier.end_where_idle, notifier.taken))

    def _gone(self, notifier: Notifier) -> None:
        self._notifiers.discard(notifier)
        self._go_on()

    # ── the supervisor's end ──

    @property
    def waiting(self) -> int:
        """How many notices nobody has been told of yet."""
        return len(self._queue) + sum(not notifier.idle for notifier in self._notifiers)

    @property
    def busy(self) -> bool:
        """Whether somebody is just being told, or waits to be."""
        return self.waiting > 0

    @property
    def gone(self) -> bool:
        """Whether no notifier runs."""
        return not self._notifiers

    def end(self) -> None:
        """End the notifiers, and whatever they are calling. What nobody was told of yet is told by the next supervisor."""
        if not self._ending:
            self._ending = True
            for notifier in self._notifiers:
                notifier.end()


class _Body(msgspec.Struct):
    approval: dict[str, Any] | None = None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s cannot be removed: %s", path, error.strerror)


def _parts(path: Path) -> tuple[str, What, int]:
    """Which run, what, and which request a notice is about, from its name."""
    run, what, *rest = path.name.split(".")
    return run, "waiting" if what == "waiting" else "ended", int(rest[0]) if rest and rest[0].isdigit() else 0


def _env(facts: dict[str, Any]) -> dict[str, str]:
    """The facts as variables; what is not known is empty."""
    names = ("event", "run", "name", "status", "engine", "agent", "cwd", "reason", "exit_code", "signal", "cost_usd")
    env = {f"SPARROW_{name.upper()}": "" if facts.get(name) is None else str(facts[name]) for name in names}
    env["SPARROW_TASK"] = facts["task"]
    env["SPARROW_SUMMARY"] = str(facts.get("approval", {}).get("summary", ""))
    return {
        name: value[:_MOST_IN_ENV] for name, value in env.items()
    }  # execve(2) takes no long one; stdin has it whole
