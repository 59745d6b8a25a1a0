"""Taking over the runs that an earlier supervisor spawned, in whatever state they are."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sparrow_mp import events, transcript
from sparrow_mp.errors import StateError
from sparrow_mp.events import Error, RunFinished, Status
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.regular import remove_tree
from sparrow_mp.run.alive import monitor_of, protocol_of
from sparrow_mp.wire import LIVE_STATUSES
from sparrow_supervisor.core import totals
from sparrow_supervisor.core.inputs import Exited, Found, Terms, Totals
from sparrow_supervisor.member import Member
from sparrow_supervisor.reports import exit_report, reaped_status

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor
    from sparrow_supervisor.zygote_client import ZygoteClient

_log = logging.getLogger(__name__)

_COUNTED = tuple(b'{"type":"%b"' % name.encode() for name in totals.COUNTED)


def adopt(reactor: Reactor) -> None:
    """Take over every run that the index says is live. Called before the loop turns."""
    told = reactor.zygotes.greet()
    known = {str(body.get("alive") or body.get("exited")) for _, body, _ in told}
    rows = reactor.index.live()
    for row in sorted(
        rows, key=lambda row: _waits(reactor, row, known)
    ):  # who is alive has its place before anyone new
        _adopt_or_leave(reactor, row, known=row["run"] in known)
    for zygote, body, fd in told:
        reactor.heard_of_zygote(zygote, body, fd)
    if ARMED:
        reach("adoption.done")
    if rows:
        _log.info("adopted %d runs of an earlier supervisor", len(rows))
    _sweep(reactor)


def readopt(reactor: Reactor, dead: ZygoteClient) -> None:
    """A zygote has died: the runs that it had forked, or was asked to fork, are looked at again."""
    for run, member in list(reactor.members.items()):
        life = reactor.house.lives.get(run)
        if life is None or life.phase not in ("starting", "running", "stopping"):
            continue
        if member.zygote is dead:
            reactor.orphan(member)
        elif member.monitor_fd < 0:
            look_for_monitor(reactor, member)


def _adopt_or_leave(reactor: Reactor, row: sqlite3.Row, *, known: bool) -> None:
    """Take a run over; one that cannot be is left as it is, and told of. Raises OSError where none can be."""
    try:
        _adopt_one(reactor, row, known=known)
    except Exception as error:  # whatever one run's files are like, the others have their supervisor
        if _affects_all(error):
            raise
        _log.exception("run %s cannot be taken over", row["run"])
        reactor.members.pop(row["run"], None)
        reactor.recorder.close(row["run"])
        reactor.left_alone[row["run"]] = str(error)


def _adopt_one(reactor: Reactor, row: sqlite3.Row, *, known: bool) -> None:
    run = row["run"]
    member = Member(run, reactor.places.run_folder(run), reactor.places.endpoint(run), row["engine"])
    reactor.recorder.open(run)
    last = _last_event(reactor, run)
    if isinstance(last, RunFinished):
        _close_books(reactor, run, last)
        return
    member.protocol = protocol_of(member.folder)
    member.last_error = last.message if isinstance(last, Error) else None
    if ARMED:
        reach("adoption.opened")
    _add_up(reactor, member)
    reactor.delivery.recall(member)
    spawned = known or not (member.folder / "spec.json").exists()
    phase = "queued" if _waits(reactor, row, {run} if known else set()) else row["status"]
    asked: tuple[Status, str] | None = (
        msgspec.json.decode(row["asked"], type=tuple[Status, str]) if row["asked"] else None
    )
    terms = msgspec.json.decode(row["terms"], type=Terms)
    reactor.members[run] = member
    reactor.feed(Found(run, terms, phase, row["started"], asked))
    if spawned and not known:
        look_for_monitor(reactor, member)
    life = reactor.house.lives.get(run)
    if life is not None and life.phase == "queued":
        reactor.recorder.rest(run)


def _waits(reactor: Reactor, row: sqlite3.Row, known: Collection[str]) -> bool:
    """Whether the run has not begun: no zygote knows it, and nobody has read its specification."""
    unread = (reactor.places.run_folder(row["run"]) / "spec.json").exists()
    return row["run"] not in known and (unread or row["status"] not in LIVE_STATUSES)


def _last_event(reactor: Reactor, run: str) -> events.AnyEvent | None:
    line = transcript.last_event(reactor.places.transcript(run))
    try:
        return events.decode(line) if line else None
    except events.EventError as error:
        _log.error("run %s: its last line is no event: %s", run, error)
        return None


def _add_up(reactor: Reactor, member: Member) -> None:
    """What the events that are recorded already add up to. A line that is no event counts for nothing."""
    try:
        kept = reactor.index.sums(member.run)
        if kept is not None and kept[0] <= reactor.recorder.seq(member.run):  # else a power cut took what it is about
            member.totals = msgspec.json.decode(kept[1], type=Totals)
            member.summed = kept[0]
    except msgspec.DecodeError:
        pass  # of another version: it is added up anew
    try:
        for line in _lines_that_count(member.run, reactor.places.transcript(member.run), member.summed):
            totals.add(member.totals, [line])
    except (OSError, StateError) as error:
        _log.error("run %s: its transcript cannot be read to its end (%s): sparrow doctor --repair", member.run, error)


def _lines_that_count(run: str, folder: Path, since: int) -> Iterator[events.AnyEvent]:
    for line in transcript.iter_lines(folder, since):
        if line.startswith(b'{"type":"') and not line.startswith(_COUNTED):
            continue  # as nearly all lines are, of which there may be millions
        try:
            if events.decode_header(line).type in totals.COUNTED:
                yield events.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, events.EventError) as error:
            _log.error("run %s: its transcript has a line that is no event: %s", run, error)


def _close_books(reactor: Reactor, run: str, last: RunFinished) -> None:
    """The earlier supervisor died between the run's last event and its books."""
    if not reactor.ending.close_books(run, last.outcome, last.seq):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    reactor.ending.clear_away(run)
    reactor.recorder.close(run)


def look_for_monitor(reactor: Reactor, member: Member) -> None:
    """The zygote does not know it. Its monitor may live on without one; else its folder says what is known."""
    if (member.folder / "spec.json").exists() and monitor_of(member.folder) is None:
        reactor.spawn(member)
        return
    found = monitor_of(member.folder)
    if found is not None:
        pid, pidfd = found
        _log.info("run %s: its zygote is gone, its monitor %d lives on", member.run, pid)
        reactor.meet(member, pid, pidfd, None)
        return
    status = reaped_status(member.folder)
    account = "its monitor and the zygote died, and nothing was left to see how it ended"
    if status is None and exit_report(member.folder) is not None:
        account = ""
    reactor.tell(member.run, Exited(status, account))


def _affects_all(error: Exception) -> bool:
    """Whether no run can be taken over just now: then the supervisor cannot start, and nothing is touched."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


def _sweep(reactor: Reactor) -> None:
    """What no live run has: a working folder (a supervisor died between making one and saying yes), a socket's file."""
    reactor.index.forget_all_but(set(os.listdir(reactor.places.transcripts)))
    live = {row["run"] for row in reactor.index.live()}
    for folder in reactor.places.runs.iterdir():
        if folder.name not in live:
            remove_tree(folder)
    wanted = {Path(member.endpoint.removeprefix("ipc://")) for member in reactor.members.values()}
    for path in reactor.places.endpoints.iterdir():
        if path not in wanted:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("%s is none of ours and stays: %s", path, error.strerror)
