"""A run's end: what its outbox holds is recorded, its last events are written, and everything kept for it is let go."""

from __future__ import annotations

import logging
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING

from sparrow_mp import wire
from sparrow_mp.events import Error, Outcome, RunFinished
from sparrow_mp.run.outbox import timestamp
from sparrow_mp.transcript import META
from sparrow_supervisor.core import effects as do
from sparrow_supervisor.core.inputs import Drained
from sparrow_supervisor.member import Member
from sparrow_supervisor.reports import exit_report

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger(__name__)

_RETRY_S = 0.2


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
        if not self._reactor.intake.drain(member):
            self._reactor.loop.later(
                _RETRY_S, partial(self.drain, member)
            )  # a full disk: nothing ends before it is recorded
            return
        report = exit_report(member.folder)
        for taken in report.taken if report is not None else ():
            self._reactor.delivery.confirmed(wire.Receipt(id=taken))
        self._reactor.tell(member.run, Drained(report, member.totals))

    def finish(self, last: do.Finish) -> None:
        """Record the run's last events, and let go of it. Tried again where the disk is full."""
        run, outcome = last.run, last.outcome
        member = self._reactor.members[run]
        member.part()
        if last.error is not None:
            line = self._reactor.recorder.add(run, Error(message=last.error))
            if line is None:
                self._reactor.loop.later(_RETRY_S, partial(self.finish, last))
                return
            self._reactor.hub.publish(run, "Error", line, self._reactor.recorder.seq(run))
        line = self._reactor.recorder.add(run, RunFinished(outcome=outcome))
        if line is None:
            self._reactor.loop.later(_RETRY_S, partial(self.finish, do.Finish(run, outcome, None)))
            return
        self.close_books(run, outcome, self._reactor.recorder.seq(run))
        self._reactor.hub.publish(run, "RunFinished", line, self._reactor.recorder.seq(run))
        self.clear_away(
            run
        )  # not before it is published: adapters that start just now know the live runs by their folders
        self._reactor.recorder.close(run)
        self._reactor.delivery.give_up(run)
        del self._reactor.members[run]
        _log.info("run %s: %s after %.1f s", run, describe(outcome), outcome.duration_ms / 1000)

    def close_books(self, run: str, outcome: Outcome, events: int) -> None:
        """The run is ended in the index and in meta.json."""
        ended = timestamp(time.time_ns() // 1000)
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
        self._reactor.save(run, fields)
        try:
            meta = {"run": run, "ended": ended, "events": events, "outcome": outcome}
            (self._reactor.places.transcript(run) / META).write_bytes(wire.encode(meta))
        except OSError as error:
            _log.error("run %s: its meta.json cannot be written: %s", run, error.strerror)

    def clear_away(self, run: str) -> None:
        """Its working folder and its exit status are no longer needed."""
        self._reactor.zygote.ask(op="release", run=run)
        shutil.rmtree(self._reactor.places.run_folder(run), ignore_errors=True)


def describe(outcome: Outcome) -> str:
    """An outcome in a few words, for the log."""
    words = outcome.status
    if outcome.signal is not None:
        words += f" by signal {outcome.signal}"
    elif outcome.exit_code:
        words += f" with exit code {outcome.exit_code}"
    return words + (f" ({outcome.reason})" if outcome.reason else "")
