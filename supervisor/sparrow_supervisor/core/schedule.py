"""All jobs: which fires when, which does not and why. Pure: it is given the moment, and which runs there are.

Its laws: a moment of a job has at most one run, whatever the clock does and whoever crashes, since the run's id follows from the
moment; of the moments that were missed at most the last one is made up for; at most one firing of a job waits; what a run
changes in the files that its own job watches makes that fire once more at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sparrow_mp.cron import Cron
from sparrow_mp.job_memory import Fired, Firing, Memory, NotFired, Remembered, run_of

LATE_S = 60.0
"""A moment up to so long ago is still kept: a supervisor that is started again has missed nothing."""
BACK_S = 60.0
"""A clock that is set back by less than this is only waited for."""
AGAIN_S = 5.0
"""After so long a firing that could not become a run, for a reason that passes, is tried again."""


@dataclass(frozen=True)
class Rule:
    """When a job fires; ``fingerprint`` says which cron line this is."""

    name: str
    cron: Cron | None
    missed: str = "skip"
    overlap: str = "skip"
    paused: bool = False
    fingerprint: str = ""


@dataclass(frozen=True)
class Fire:
    """Have a run for this firing; then say ``fired`` or ``failed``."""

    job: str
    firing: Firing


@dataclass(frozen=True)
class Interrupt:
    """A job's run has to make room for the next."""

    job: str
    run: str


Effect = Fire | Interrupt


@dataclass
class _State:
    """What is known of a job, beside what is remembered. ``ended`` is when its last run did, ``asked`` which were asked to end."""

    rule: Rule
    memory: Memory
    next: float | None = None
    live: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    ended: float = 0.0
    try_again: float = 0.0


class Schedule:
    """Every job in force. ``dirty`` says that something is to be remembered that is not yet."""

    def __init__(self, remembered: Remembered) -> None:
        self._seed = remembered.seed
        self._before = dict(remembered.jobs)
        self._jobs: dict[str, _State] = {}
        self.dirty = False

    @property
    def remembered(self) -> Remembered:
        """All that has to outlive this supervisor."""
        return Remembered(
            seed=self._seed, jobs={name: state.memory for name, state in self._jobs.items()} | self._before
        )

    def memory(self, job: str) -> Memory:
        """What is remembered of a job in force."""
        return self._jobs[job].memory

    def live(self, job: str) -> list[str]:
        """Its runs that have not ended."""
        return sorted(self._jobs[job].live)

    def next_of(self, job: str) -> float | None:
        """The next moment at which a job fires by the clock; None where there is none, and while it is paused."""
        state = self._jobs[job]
        return None if state.rule.paused else state.next

    @property
    def next_due(self) -> float | None:
        """The next moment at which ``tick`` has anything to do."""
        moments = [state.next for state in self._jobs.values() if state.next is not None]
        moments += [state.try_again for state in self._jobs.values() if state.memory.waiting and not state.live]
        return min(moments, default=None)

    # ── what happens ──

    def change(self, rules: list[Rule], now: float) -> None:
        """These are the jobs from now on. One that is new, goes on after a pause or has a new cron line begins now."""
        known, self._jobs = self._jobs, {}
        for rule in rules:
            old = known.pop(rule.name, None)
            memory = old.memory if old is not None else self._before.pop(rule.name, None)
            goes_on = memory is not None and memory.rule == rule.fingerprint
            if old is not None and old.rule.paused and not rule.paused:
                goes_on = False
            if memory is None:
                memory = Memory(settled=now)
            if not goes_on:
                memory.settled, memory.rule = now, rule.fingerprint
                self.dirty = True
            state = _State(rule, memory) if old is None else old
            state.rule = rule
            self._jobs[rule.name] = state
            self._plan(state)
        if known or self._before:
            self._before.clear()
            self.dirty = True

    def found(self, job: str, run: str) -> None:
        """A run of an earlier supervisor is alive."""
        if job in self._jobs:
            self._jobs[job].live.add(run)

    def tick(self, now: float, ran: Callable[[str], bool]) -> list[Effect]:
        """Time has passed. ``ran`` says whether there is a run with this id."""
        effects: list[Effect] = []
        for state in self._jobs.values():
            if state.memory.waiting is not None:
                effects += self._look_after(state, now, ran)
            if state.next is None:
                continue
            if now < state.memory.settled - BACK_S:  # the clock was set back: what has had its run is known by its id
                state.memory.settled = now
                self.dirty = True
                self._plan(state)
            elif now >= state.next:
                effects += self._due(state, now, ran)
        return effects

    def changed(self, job: str, run: str, at: float, now: float) -> list[Effect]:
        """Files that a job watches have changed, last ``at`` this moment; ``run`` is an id for its run."""
        state = self._jobs.get(job)
        if state is None or state.rule.paused or state.memory.waiting is not None:
            return []  # a firing that waits will see them
        last = state.memory.last
        if last is not None and at <= last.at:
            return []  # the last run has begun since
        own = last is not None and (bool(state.live) or at <= state.ended)
        if own and state.rule.overlap == "skip":
            self._not_fired(state, now, now, 'files changed while its own run went on (overlap = "skip")')
            return []
        if own and last is not None and last.echo:
            self._not_fired(
                state, now, now, "files changed again during a run that such a change had made: it would go on for ever"
            )
            return []
        return self._begin(state, Firing(run=run, why="watch", due=now, echo=own), now, keep=True)

    def asked(self, job: str, run: str, now: float) -> list[Effect] | str:
        """Somebody wants it to fire now, with this id for the run; or why it does not."""
        state = self._jobs[job]
        if state.memory.waiting is not None:
            return f"a firing of job `{job}` waits already, and becomes run {state.memory.waiting.run[:8]}"
        if state.live and state.rule.overlap == "skip":
            return f'run {min(state.live)[:8]} of job `{job}` goes on (overlap = "skip"); end it first: sparrow kill {min(state.live)[:8]}'
        return self._begin(state, Firing(run=run, why="asked", due=now), now, keep=True)

    def fired(self, job: str, firing: Firing, now: float, *, live: bool = True) -> None:
        """The firing has become a run."""
        state = self._jobs.get(job)
        if state is None:
            return
        memory = state.memory
        if memory.waiting is not None and memory.waiting.run == firing.run:
            memory.waiting = None
        if live:
            state.live.add(firing.run)
        state.try_again = 0.0
        memory.last = Fired(run=firing.run, why=firing.why, due=firing.due, echo=firing.echo, at=now)
        self._settle(state, firing)

    def failed(self, job: str, firing: Firing, reason: str, now: float, *, passes: bool) -> None:
        """The firing could not become a run; where the reason ``passes`` it is tried again."""
        state = self._jobs.get(job)
        if state is None:
            return
        self._not_fired(state, now, firing.due, reason + (", which is tried again" if passes else ""))
        state.memory.waiting = firing if passes else None
        state.try_again = now + AGAIN_S
        self._settle(state, firing)

    def ended(self, job: str, run: str, now: float) -> None:
        """A run of a job has ended."""
        state = self._jobs.get(job)
        if state is not None:
            state.live.discard(run)
            state.ended, state.try_again = now, 0.0

    # ── deciding ──

    def _due(self, state: _State, now: float, ran: Callable[[str], bool]) -> list[Effect]:
        """A moment of its cron line has come, or several."""
        rule, memory = state.rule, state.memory
        assert rule.cron is not None
        assert state.next is not None
        due = rule.cron.latest(now)
        assert due is not None
        first, late = state.next, now - due > LATE_S
        firing = Firing(run=run_of(self._seed, rule.name, due), why="missed" if late else "cron", due=due)
        if rule.paused:
            memory.settled = due
            self._plan(state)
            return []
        had = ran(firing.run)
        passed = first < due and now - first > LATE_S  # there were others before it
        if rule.missed == "skip" and (passed or (late and not had)):
            self._not_fired(state, now, first, _missed(late))
        if had:
            if memory.last is None or memory.last.due < due:
                self.fired(rule.name, firing, now, live=False)  # whoever had it begun died before noting it
            self._settle(state, firing)
            return []
        if late and rule.missed == "skip":
            self._settle(state, firing)
            return []
        return self._begin(state, firing, now, keep=False)

    def _begin(self, state: _State, firing: Firing, now: float, *, keep: bool) -> list[Effect]:
        """It is to fire: now, later or not at all, as its ``overlap`` says. ``keep`` a firing that no moment brings again."""
        live, overlap = sorted(state.live), state.rule.overlap
        if state.memory.waiting is not None or (live and overlap == "skip"):
            which = f"run {live[0][:8]} of it still went on" if live else "an earlier firing still waits"
            self._not_fired(state, now, firing.due, f'{which} (overlap = "{overlap}")')
            self._settle(state, firing)
            return []
        if live and overlap != "allow":
            state.memory.waiting = firing
            self._settle(state, firing)
            return self._replace(state)
        if keep:
            state.memory.waiting = firing
            state.try_again = now + AGAIN_S
            self.dirty = True
        return [Fire(state.rule.name, firing)]

    @staticmethod
    def _replace(state: _State) -> list[Effect]:
        """Where a firing replaces the runs that are there, those that have not been asked are asked to end."""
        new = sorted(state.live - state.asked) if state.rule.overlap == "replace" else []
        state.asked = (state.asked & state.live) | set(new)
        return [Interrupt(state.rule.name, run) for run in new]

    def _look_after(self, state: _State, now: float, ran: Callable[[str], bool]) -> list[Effect]:
        """A firing waits: for a run to end, or for a reason to pass."""
        firing = state.memory.waiting
        assert firing is not None
        if ran(firing.run):
            self.fired(state.rule.name, firing, now, live=False)
            return []
        if state.rule.paused and firing.why != "asked":
            state.memory.waiting = None
            self._not_fired(state, now, firing.due, "it was paused while the firing waited")
            return []
        if state.live and state.rule.overlap != "allow":
            return self._replace(state)  # again after a crash, and where the rule has changed meanwhile
        if now < state.try_again <= now + AGAIN_S:
            return []
        state.try_again = now + AGAIN_S
        return [Fire(state.rule.name, firing)]

    def _settle(self, state: _State, firing: Firing) -> None:
        if firing.why in ("cron", "missed"):
            state.memory.settled = max(state.memory.settled, firing.due)
        self.dirty = True
        self._plan(state)

    def _not_fired(self, state: _State, now: float, due: float, reason: str) -> None:
        state.memory.not_fired = NotFired(at=now, due=due, reason=reason)
        self.dirty = True

    @staticmethod
    def _plan(state: _State) -> None:
        state.next = state.rule.cron.after(state.memory.settled) if state.rule.cron is not None else None


def _missed(late: bool) -> str:
    """Why nothing came of the moments since the first that was not kept."""
    until = "" if late else ", and others until just now,"
    return f'its moment{until} passed while no supervisor was there, or the machine slept, or its clock jumped (missed = "skip")'
