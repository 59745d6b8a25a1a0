"""ONE run's life: a table of what each input does in each phase.

    queued ──▶ starting ──▶ running ──▶ draining ──▶ ended
       │           └───────▶ stopping ──────▲           ▲
       └────────────────────────────────────────────────┘

The laws: a run is *ended* once, by exactly one Finish; it is ended only after its tree is gone (Exited) and everything it
said is recorded (Drained), unless it never began; who asked first decides how it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from sparrow_mp.events import DiffStat, Outcome, Status, Usage
from sparrow_mp.wire import ExitReport
from sparrow_supervisor.core.effects import Drain, Effect, Finish, KillMonitor, Save, Spawn, Tell
from sparrow_supervisor.core.inputs import (
    Admitted,
    Drained,
    Due,
    Exited,
    InterruptAsked,
    LimitReached,
    Now,
    Ready,
    RunInput,
    Spawned,
    SpawnRefused,
    Spent,
    Terms,
    Totals,
)

Phase = Literal["queued", "starting", "running", "stopping", "draining", "ended"]
PHASES: tuple[Phase, ...] = ("queued", "starting", "running", "stopping", "draining", "ended")

KILL_MARGIN_S = 4.0
"""How long after the grace period a monitor may take to see its tree gone, before it is killed itself."""


class Life:
    """One run. ``due`` is the moment (mono seconds) at which it wants to be told that time has passed."""

    def __init__(self, run: str, terms: Terms, phase: Phase = "queued") -> None:
        self.run = run
        self.terms = terms
        self.phase: Phase = phase
        self.pid: int | None = None
        self.spawned = phase == "running"
        self.began: Now | None = None
        self.asked: tuple[Status, str] | None = None
        self.kill_at: float | None = None
        self.forced = False
        self.exit: Exited | None = None

    @property
    def due(self) -> float | None:
        """The next moment that matters: the timeout, or the monitor's last chance."""
        if self.phase == "stopping":
            return self.kill_at
        if self.phase in ("starting", "running") and self.terms.timeout is not None and self.began is not None:
            return self.began.mono + self.terms.timeout
        return None

    def handle(self, what: RunInput, now: Now) -> list[Effect]:
        """Take one input; the effects, in their order."""
        return TABLE[self.phase, type(what)](self, what, now)

    # ── what the table's entries do ──

    def _nothing(self, what: RunInput, now: Now) -> list[Effect]:
        return []

    def _spawn(self, what: RunInput, now: Now) -> list[Effect]:
        self.phase = "starting"
        self.began = now
        return [Save(self.run, {"status": "starting", "started": now.wall}), Spawn(self.run)]

    def _spawned(self, what: RunInput, now: Now) -> list[Effect]:
        assert isinstance(what, Spawned)
        self.spawned = True
        return [Save(self.run, {"monitor_pid": what.pid})]

    def _refused(self, what: RunInput, now: Now) -> list[Effect]:
        assert isinstance(what, SpawnRefused)
        if self.spawned:
            return []  # a monitor lives, whatever else is said: only its exit ends the run
        if self.asked is None:
            self.asked = ("rejected", what.reason)
        return self._finish(None, Totals(), now)

    def _ready(self, what: RunInput, now: Now) -> list[Effect]:
        assert isinstance(what, Ready)
        self.pid = what.pid
        self.spawned = True
        if self.phase == "starting":
            self.phase = "running"
        return [Save(self.run, {"status": self.phase, "pid": what.pid})]

    def _withdraw(self, what: RunInput, now: Now) -> list[Effect]:
        assert isinstance(what, InterruptAsked)
        self.asked = self.asked or ("interrupted", what.words)
        return self._finish(None, Totals(), now)

    def _interrupt(self, what: RunInput, now: Now) -> list[Effect]:
        assert isinstance(what, InterruptAsked)
        grace = self.terms.grace if what.grace is None else what.grace
        return self._stop(("interrupted", what.words), grace, now)

    def _limit(self, what: RunInput, now: Now) -> list[Effect]:
        assert isinstance(what, LimitReached)
        effects = self._stop((what.status, what.reason), 0.0 if what.at_once else self.terms.grace, now)
        return [effect for effect in effects if not (what.told and isinstance(effect, Tell))]

    def _spent(self, what: RunInput, now: Now) -> list[Effect]:
        assert isinstance(what, Spent)
        if self.terms.budget is None or what.cost_usd < self.terms.budget:
            return []
        reason = f"it cost {what.cost_usd:.4f} USD of a budget of {self.terms.budget:.4f}"
        return self._stop(("over_budget", reason), self.terms.grace, now)

    def _stop(self, asked: tuple[Status, str], grace: float, now: Now) -> list[Effect]:
        """Ask the run to end. Who asked first decides the status; a later one can only hasten it."""
        first = self.asked is None
        if first:
            self.asked = asked
        latest = now.mono + grace + KILL_MARGIN_S
        hastened = self.kill_at is None or latest < self.kill_at
        if hastened:
            self.kill_at = latest
        self.phase = "stopping"
        effects: list[Effect] = []
        if first:
            effects.append(Save(self.run, {"status": "stopping", "asked": asked}))
        if first or hastened:
            effects.append(Tell(self.run, asked[1], grace))
        return effects

    def _timed_out(self, what: RunInput, now: Now) -> list[Effect]:
        if self.due is None or now.mono < self.due:
            return []
        return self._stop(("timed_out", f"it ran longer than {self.terms.timeout:g} s"), self.terms.grace, now)

    def _kill(self, what: RunInput, now: Now) -> list[Effect]:
        if self.kill_at is None or now.mono < self.kill_at:
            return []
        self.forced = True
        self.kill_at = now.mono + KILL_MARGIN_S
        return [KillMonitor(self.run)]

    def _exited(self, what: RunInput, now: Now) -> list[Effect]:
        assert isinstance(what, Exited)
        self.exit = what
        self.phase = "draining"
        return [Drain(self.run)]

    def _found_out(self, what: RunInput, now: Now) -> list[Effect]:
        """It has ended, and only what it left shows that it broke a law: that is how it ended all the same."""
        assert isinstance(what, LimitReached)
        if self.asked is None and what.at_once:
            self.asked = (what.status, what.reason)
        return []

    def _drained(self, what: RunInput, now: Now) -> list[Effect]:
        assert isinstance(what, Drained)
        return self._finish(what.report, what.totals, now)

    def _finish(self, report: ExitReport | None, totals: Totals, now: Now) -> list[Effect]:
        self.phase = "ended"
        outcome = self._outcome(report, totals, now)
        error = None
        if outcome.status == "interrupted":
            words = self.asked[1] if self.asked else (report.interrupted if report else None)
            error = f"interrupted: {words}" if words else "interrupted"
        elif outcome.status != "completed" and outcome.reason:
            error = outcome.reason
        began = self.began is not None and outcome.status != "rejected"
        return [Finish(self.run, outcome, error, began)]

    def _outcome(self, report: ExitReport | None, totals: Totals, now: Now) -> Outcome:
        status, why = self._verdict(report)
        reason = "; ".join(part for part in (why, self._unended(report)) if part) or None
        wait_status = report.wait_status if report else (self.exit.status if self.exit else None)
        outcome = Outcome(
            status=status,
            reason=reason,
            cost_usd=totals.cost_usd,
            tokens=totals.tokens,
            diffs=[DiffStat(file=diff.file, plus=diff.plus, minus=diff.minus) for diff in totals.diffs.values()],
            duration_ms=max(0, round((now.wall - self.began.wall) * 1000)) if self.began else 0,
            forced=self.forced or (report is not None and report.forced),
        )
        if report is not None:
            outcome.result = report.result
        if report is not None and report.max_rss_bytes:
            outcome.usage = Usage(
                cpu_user_s=report.cpu_user_s, cpu_system_s=report.cpu_system_s, max_rss_bytes=report.max_rss_bytes
            )
        if status == "rejected":
            outcome.exit_code = report.rejected_code if report else None
        elif wait_status is not None:
            outcome.exit_code, outcome.signal = exit_code(wait_status), ended_by(wait_status)
            if report is None and outcome.exit_code is not None:
                outcome.exit_code = None  # that is the monitor's own, which says nothing of the run
        return outcome

    def _verdict(self, report: ExitReport | None) -> tuple[Status, str | None]:
        """How the run ended, and why, where there is more to say than the status does."""
        if report is not None and report.limit is not None:
            return report.limit  # its monitor heard of this one first, whoever asks here at the same time
        if self.asked is not None and not (self.asked[0] == "timed_out" and ended_untold(report)):
            return self.asked[0], self.asked[1] or None
        if report is None:
            return self._unreported()
        if report.interrupted is not None:
            return "interrupted", report.interrupted or None
        if report.rejected is not None:
            return "rejected", report.rejected
        if report.wait_status is None:
            return "lost", report.reason or "its monitor could not say how it ended"
        if ended_by(report.wait_status) is not None:
            return "crashed", report.reason
        if exit_code(report.wait_status) == 0:
            return "completed", report.reason
        return "failed", report.reason

    def _unended(self, report: ExitReport | None) -> str | None:
        """What could not be ended. The zygote knows it better than the monitor, which left it to the zygote."""
        left = self.exit.left if self.exit is not None else None
        if left is None:
            left = tuple(report.left) if report is not None else ()
        if not left:
            return None
        who = f"process {left[0]}" if len(left) == 1 else "processes " + ", ".join(map(str, left))
        return f"{who} could not be ended"

    def _unreported(self) -> tuple[Status, str | None]:
        """The monitor ended without a word."""
        if self.exit is None or self.exit.status is None:
            return "lost", (self.exit.account if self.exit else "") or "it ended while nothing was left to see how"
        number = ended_by(self.exit.status)
        if number is not None:
            return "crashed", "its monitor was killed, and what it ran was ended with it"
        return "crashed", "its monitor failed; the zygote's log says why"


def ended_untold(report: ExitReport | None) -> bool:
    """Whether the run is known to have ended by itself, before anybody told it to."""
    return report is not None and report.wait_status is not None and report.interrupted is None and not report.told


def exit_code(wait_status: int) -> int | None:
    """The exit code in a wait status, None where a signal ended the process (wait(2): WIFEXITED, WEXITSTATUS)."""
    return wait_status >> 8 & 0xFF if wait_status & 0x7F == 0 else None


def ended_by(wait_status: int) -> int | None:
    """The signal in a wait status, None where the process exited (wait(2): WIFSIGNALED, WTERMSIG)."""
    number = wait_status & 0x7F
    return number if number not in (0, 0x7F) else None


_Entry = Callable[[Life, RunInput, Now], list[Effect]]

_BEFORE: dict[type, _Entry] = {
    Admitted: Life._nothing,
    Spawned: Life._nothing,
    SpawnRefused: Life._nothing,
    Ready: Life._nothing,
    InterruptAsked: Life._nothing,
    LimitReached: Life._nothing,
    Spent: Life._nothing,
    Exited: Life._nothing,
    Drained: Life._nothing,
    Due: Life._nothing,
}
"""Nothing happens, unless a phase below says otherwise: what comes late or twice is no fault."""

_ALIVE: dict[type, _Entry] = {
    Spawned: Life._spawned,
    Ready: Life._ready,
    InterruptAsked: Life._interrupt,
    LimitReached: Life._limit,
    Spent: Life._spent,
    Exited: Life._exited,
}

_ROWS: dict[Phase, dict[type, _Entry]] = {
    "queued": {Admitted: Life._spawn, InterruptAsked: Life._withdraw},
    "starting": {**_ALIVE, SpawnRefused: Life._refused, Due: Life._timed_out},
    "running": {**_ALIVE, Due: Life._timed_out},
    "stopping": {**_ALIVE, SpawnRefused: Life._refused, Due: Life._kill},
    "draining": {Drained: Life._drained, LimitReached: Life._found_out},
    "ended": {},
}

TABLE: dict[tuple[Phase, type], _Entry] = {
    (phase, kind): _ROWS[phase].get(kind, entry) for phase in PHASES for kind, entry in _BEFORE.items()
}
