"""Taking over the runs that an earlier supervisor spawned, in whatever state they are."""

from __future__ import annotations

import logging
import os
import select
import shutil
import sqlite3
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sparrow_mp import events, transcript
from sparrow_mp.events import RunFinished, Status
from sparrow_mp.run.alive import monitor_of
from sparrow_mp.wire import LIVE_STATUSES
from sparrow_supervisor.core import totals
from sparrow_supervisor.core.inputs import Exited, Found, Terms
from sparrow_supervisor.member import Member
from sparrow_supervisor.reports import exit_report, reaped_status

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger(__name__)

_ZYGOTE_ANSWERS_S = 5.0


def adopt(reactor: Reactor) -> None:
    """Take over every run that the index says is live. Called before the loop turns."""
    told = _ask_zygote(reactor) if reactor.zygote.adopted else []
    known = {str(body.get("alive") or body.get("exited")) for body, _ in told}
    rows = reactor.index.live()
    waiting = [row for row in rows if _waits(reactor, row, known)]
    for row in [row for row in rows if row not in waiting] + waiting:  # who is alive has its place before anyone new
        reactor.loop.guard(partial(_adopt_one, reactor, row, known=row["run"] in known))
    for body, fd in told:
        reactor.heard_of_zygote(body, fd)
    if rows:
        _log.info("adopted %d runs of an earlier supervisor", len(rows))
    _sweep(reactor)


def readopt(reactor: Reactor) -> None:
    """The zygote is another one: every live run is looked at again."""
    for run, member in list(reactor.members.items()):
        life = reactor.house.lives.get(run)
        if life is not None and life.phase in ("starting", "running", "stopping"):
            look_for_monitor(reactor, member)


def _ask_zygote(reactor: Reactor) -> list[tuple[dict[str, object], int]]:
    """What the zygote tells a new supervisor, up to its last word. The loop does not turn yet, so waiting is allowed."""
    told: list[tuple[dict[str, object], int]] = []
    deadline = time.monotonic() + _ZYGOTE_ANSWERS_S
    while time.monotonic() < deadline and not reactor.zygote.closed:
        select.select([reactor.zygote], [], [], 0.1)
        for body, fd in reactor.zygote.receive():
            if "told" in body:
                return told
            if "zygote" not in body:
                told.append((body, fd))
    _log.error("the zygote does not answer; going on without it")
    return told


def _adopt_one(reactor: Reactor, row: sqlite3.Row, *, known: bool) -> None:
    run = row["run"]
    member = Member(run, reactor.places.run_folder(run), reactor.places.endpoint(run))
    reactor.recorder.open(run)
    if _ended_already(reactor, run):
        return
    reactor.members[run] = member
    _add_up(reactor, member)
    reactor.delivery.recall(member)
    spawned = known or not (member.folder / "spec.json").exists()
    phase = "queued" if _waits(reactor, row, {run} if known else set()) else row["status"]
    asked: tuple[Status, str] | None = (
        msgspec.json.decode(row["asked"], type=tuple[Status, str]) if row["asked"] else None
    )
    terms = msgspec.json.decode(row["terms"], type=Terms)
    reactor.feed(Found(run, terms, phase, row["started"], asked))
    if spawned and not known:
        look_for_monitor(reactor, member)


def _waits(reactor: Reactor, row: sqlite3.Row, known: Collection[str]) -> bool:
    """Whether the run has not begun: no zygote knows it, and nobody has read its specification."""
    unread = (reactor.places.run_folder(row["run"]) / "spec.json").exists()
    return row["run"] not in known and (unread or row["status"] not in LIVE_STATUSES)


def _add_up(reactor: Reactor, member: Member) -> None:
    """What the events that are recorded already add up to. A line that is no event counts for nothing."""
    for line in transcript.iter_lines(reactor.places.transcript(member.run)):
        try:
            if events.decode_header(line).type in totals.COUNTED:
                totals.add(member.totals, [events.decode(line)])
        except (msgspec.DecodeError, UnicodeDecodeError, events.EventError) as error:
            _log.error("run %s: its transcript has a line that is no event: %s", member.run, error)


def _ended_already(reactor: Reactor, run: str) -> bool:
    """Whether the earlier supervisor died between the run's last event and its books."""
    line = transcript.last_event(reactor.places.transcript(run))
    last = events.decode(line) if line else None
    if not isinstance(last, RunFinished):
        return False
    reactor.ending.close_books(run, last.outcome, last.seq)
    reactor.ending.clear_away(run)
    reactor.recorder.close(run)
    return True


def look_for_monitor(reactor: Reactor, member: Member) -> None:
    """The zygote does not know it. Its monitor may live on without one; else its folder says what is known."""
    if (member.folder / "spec.json").exists() and monitor_of(member.folder) is None:
        sequence = reactor.recorder.open(member.run).seq
        reactor.zygote.ask(op="spawn", run=member.run, folder=str(member.folder), last_seq=sequence)
        return
    found = monitor_of(member.folder)
    if found is not None:
        pid, pidfd = found
        _log.info("run %s: its zygote is gone, its monitor %d lives on", member.run, pid)
        reactor.meet(member, pid, pidfd)
        reactor.watch_monitor(member)
        return
    status = reaped_status(member.folder)
    account = "its monitor and the zygote died, and nothing was left to see how it ended"
    if status is None and exit_report(member.folder) is not None:
        account = ""
    reactor.tell(member.run, Exited(status, account))


def _sweep(reactor: Reactor) -> None:
    """What no live run has: a working folder (a supervisor died between making one and saying yes), a socket's file."""
    reactor.index.forget_all_but(set(os.listdir(reactor.places.transcripts)))
    for folder in reactor.places.runs.iterdir():
        if folder.name not in reactor.members:
            shutil.rmtree(folder, ignore_errors=True)
    wanted = {Path(member.endpoint.removeprefix("ipc://")) for member in reactor.members.values()}
    for path in reactor.places.endpoints.iterdir():
        if path not in wanted:
            path.unlink(missing_ok=True)
