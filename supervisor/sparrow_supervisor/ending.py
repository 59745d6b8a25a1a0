"""A run's end: what its outbox holds is recorded, its last events are written, and everything kept for it is let go."""

from __future__ import annotations

import errno
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from sparrow_mp import wire
from sparrow_mp.events import Error, Event, Outcome, RunFinished, RunStarted
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.regular import remove_tree
from sparrow_mp.run import cgroup
from sparrow_mp.run.stamp import timestamp
from sparrow_mp.transcript import META, write_meta
from sparrow_supervisor.core import effects as do
from sparrow_supervisor.core.inputs import Drained
from sparrow_supervisor.member import Member
from sparrow_supervisor.reports import exit_report, unfinished_report

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger(__name__)

_RETRY_S = 0.2
_CGROUP_S = 2.0
_LOOK_S = 0.02


class Ending:
    """Ends runs, with what the reactor has in hand. Each step is tried again where the disk is full."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def drain(self, member: Member) -> None:
        """Its tree is gone: what its outbox holds is recorded, and then the core says how it ended."""
        if member.link is not None:
            self._reactor.loop.unwatch(member.link.fd)
        if member.monitor_fd >= 0:
            self._reactor.loop.unwatch(member.monitor_fd)
        member.part()
        cgroup.kill(member.folder)  # where monitor and zygote have died, this is all that is left to reach its tree by
        self._drain(member, time.monotonic() + _CGROUP_S)

    def _drain(self, member: Member, patience: float) -> None:
        if not cgroup.remove(member.folder) and time.monotonic() < patience:
            self._reactor.loop.later(_LOOK_S, partial(self._drain, member, patience))
            return
        drained = self._reactor.intake.drain(member)
        if drained == "more":
            self._reactor.loop.again(partial(self._drain, member, patience))
            return
        if drained == "full":  # nothing ends before it is recorded
            self._reactor.loop.later(_RETRY_S, partial(self._drain, member, patience))
            return
        if ARMED:
            reach("ending.drained")
        report = exit_report(member.folder) or unfinished_report(member.folder, member.run)
        for taken in report.taken if report is not None else ():
            self._reactor.delivery.confirmed(member.run, wire.Receipt(id=taken))
        self._reactor.tell(member.run, Drained(report, member.totals))

    def finish(self, last: do.Finish) -> None:
        """Record the run's last events, and let go of it."""
        member = self._reactor.members[last.run]
        member.part()
        events: list[Event] = []
        if last.began and not member.totals.started:
            row = self._reactor.index.row(last.run)
            events.append(RunStarted(task=row["task"] if row else "", agent=row["agent"] if row else ""))
        if last.error is not None and last.error != member.last_error:
            events.append(Error(message=last.error))
        self._say_last(member, last.outcome, [*events, RunFinished(outcome=last.outcome)])

    def _say_last(self, member: Member, outcome: Outcome, events: list[Event]) -> None:
        """Record them one by one, and then the run has ended. Tried again where the disk is full."""
        run, line = member.run, b""
        for number, event in enumerate(events):
            written = self._reactor.recorder.add(run, event)
            if written is None:
                self._reactor.loop.later(_RETRY_S, partial(self._say_last, member, outcome, events[number:]))
                return
            line = written
            if ARMED:
                reach("ending.said")
            if not isinstance(event, RunFinished):  # which is told when all that it says is true of the files too
                self._reactor.hub.publish(run, type(event).__name__, line, self._reactor.recorder.seq(run))
        self._finished(run, outcome, line)

    def _finished(self, run: str, outcome: Outcome, line: bytes) -> None:
        """Its last event is recorded: close its books, tell of it, and let go of it. Tried again where the disk is full."""
        if not self.close_books(run, outcome, self._reactor.recorder.seq(run)):
            self._reactor.loop.later(_RETRY_S, partial(self._finished, run, outcome, line))
            return
        if ARMED:
            reach("ending.booked")
        self._reactor.hub.publish(run, "RunFinished", line, self._reactor.recorder.seq(run))
        self.clear_away(
            run
        )  # not before it is published: adapters that start just now know the live runs by their folders
        if ARMED:
            reach("ending.cleared")
        self._reactor.recorder.close(run)
        self._reactor.delivery.give_up(run)
        del self._reactor.members[run]
        self._reactor.schedule.ended(run)
        self._reactor.notices.ended(run)
        _log.info("run %s: %s after %.1f s", run, describe(outcome), outcome.duration_ms / 1000)

    def close_books(self, run: str, outcome: Outcome, events: int) -> bool:
        """The run is ended in meta.json, then in the index. False where the disk is full: then try again.

        In this order, because a supervisor that takes over looks only at those that have not ended in the index.
        """
        if not self._reactor.notices.will_end(run):
            return False
        ended = timestamp(time.time_ns() // 1000)
        folder = self._reactor.places.transcript(run)
        try:
            write_meta(folder, run, ended, events, outcome)
            self._reactor.recorder.settle(folder / META, folder)
        except OSError as error:
            _log.error("run %s: its meta.json cannot be written: %s", run, error.strerror)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return False
        if ARMED:
            reach("ending.noted")
        fields: dict[str, object] = {
            "status": outcome.status,
            "ended": ended,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "reason": outcome.reason,
            "events": events,
            "cost_usd": outcome.cost_usd,
            "tokens": wire.encode(outcome.tokens).decode(),
        }
        return self._reactor.save(run, fields)

    def clear_away(self, run: str) -> None:
        """Its working folder and its exit status are no longer needed."""
        self._reactor.zygotes.tell_all(op="release", run=run)
        remove_tree(self._reactor.places.run_folder(run))


def describe(outcome: Outcome) -> str:
    """An outcome in a few words, for the log."""
    words = outcome.status
    if outcome.signal is not None:
        words += f" by signal {outcome.signal}"
    elif outcome.exit_code:
        words += f" with exit code {outcome.exit_code}"
    return words + (f" ({outcome.reason})" if outcome.reason else "")
