"""All runs: who is admitted, who waits, what is due, and how the house empties."""

from __future__ import annotations

import heapq
from typing import cast

from sparrow_supervisor.core.effects import Accepted, Effect, Refused, Stop
from sparrow_supervisor.core.inputs import (
    About,
    Admitted,
    Due,
    Found,
    Input,
    InterruptAsked,
    Now,
    RoomChanged,
    ShutdownAsked,
    Submitted,
    Tick,
)
from sparrow_supervisor.core.life import Life, Phase
from sparrow_supervisor.core.queue import Queue

_SLACK = 64


class House:
    """Every run that has not ended. Its laws: never more than ``max_runs`` are alive; within a priority of the
    queue the clients take turns, and each one's runs come in their order; nothing is accepted once it is closing; it stops once, when nothing is left.
    """

    def __init__(self, max_runs: int = 0, max_queue: int = 10_000) -> None:
        self.lives: dict[str, Life] = {}
        self.closing = False
        self.stopped = False
        self._max_runs = max_runs
        self._max_queue = max_queue
        self._queue = Queue()
        self._waiting = 0
        self._alive = 0
        self._timers: list[tuple[float, str]] = []
        self._asked_for: dict[str, float] = {}

    @property
    def next_due(self) -> float | None:
        """The moment (mono seconds) at which it wants a Tick; None where time alone changes nothing."""
        return self._timers[0][0] if self._timers else None

    def position(self, run: str) -> int | None:
        """A queued run's place, from 1."""
        before = self._queue.before(run)
        if before is None or not self._waits(run):
            return None
        return 1 + sum(map(self._waits, before))

    def positions(self) -> dict[str, int]:
        """Every queued run's place, from 1."""
        waiting = [run for run in self._queue.runs() if self._waits(run)]
        return {run: place for place, run in enumerate(waiting, 1)}

    def handle(self, what: Input, now: Now) -> list[Effect]:
        """Take one input; the effects, in their order."""
        match what:
            case Submitted():
                effects = self._submit(what, now)
            case About():
                effects = self._about(what, now)
            case Found():
                effects = self._find(what, now)
            case ShutdownAsked():
                effects = self._shut_down(what, now)
            case RoomChanged():
                self._max_runs, self._max_queue = what.max_runs, what.max_queue
                effects = self._admit(now)
            case Tick():
                effects = self._tick(now)
        if self.closing and not self.lives and not self.stopped:
            self.stopped = True
            effects = [*effects, Stop(keep_runs=False)]
        return effects

    def _submit(self, what: Submitted, now: Now) -> list[Effect]:
        if self.closing or self.stopped:
            return [Refused("shutting_down", "the supervisor is shutting down and takes no new runs")]
        waits = not self._has_room() or self._waiting > 0
        if waits and self._waiting >= self._max_queue:
            return [Refused("queue_full", f"{self._max_queue} runs wait already; try again when some have ended")]
        self.lives[what.run] = Life(what.run, what.terms)
        self._enqueue(what.run)
        if waits:
            return [Accepted(what.run, self.position(what.run))]
        return [Accepted(what.run, None), *self._admit(now)]

    def _find(self, what: Found, now: Now) -> list[Effect]:
        phase: Phase = cast(Phase, what.phase)
        life = Life(what.run, what.terms, phase)
        life.asked = what.asked
        self.lives[what.run] = life
        if what.started_wall is not None:
            elapsed = max(0.0, now.wall - what.started_wall)
            life.began = Now(now.mono - elapsed, what.started_wall)
        if phase == "queued" and what.asked is not None:
            self._enqueue(what.run)
            return self._about(About(what.run, InterruptAsked(what.asked[1])), now)
        if phase == "queued":
            self._enqueue(what.run)
            return self._admit(now)
        self._alive += 1
        if phase == "stopping":
            # Its monitor has the interruption, or gets it again: either way it has its full grace period from now.
            life.asked, asked = None, what.asked or ("interrupted", "")
            effects = life._stop(asked, what.terms.grace, now)
        else:
            effects = []
        self._set_timer(life)
        return effects

    def _about(self, what: About, now: Now) -> list[Effect]:
        life = self.lives.get(what.run)
        if life is None:
            return []
        was_alive = life.phase != "queued"
        effects = life.handle(what.what, now)
        return self._after(life, was_alive, effects, now)

    def _after(self, life: Life, was_alive: bool, effects: list[Effect], now: Now) -> list[Effect]:
        """Keep the books: a run that ended gives its place to the next one."""
        if life.phase == "ended":
            del self.lives[life.run]
            self._asked_for.pop(life.run, None)
            self._alive -= was_alive
            self._waiting -= not was_alive
            return [*effects, *self._admit(now)]
        self._set_timer(life)
        return effects

    def _shut_down(self, what: ShutdownAsked, now: Now) -> list[Effect]:
        if self.stopped:
            return []
        if what.keep_runs:
            self.closing = self.stopped = True
            return [Stop(keep_runs=True)]
        self.closing = True
        effects: list[Effect] = []
        asked = InterruptAsked("the supervisor is shutting down", 0.0 if what.at_once else None)
        for run in list(self.lives):
            effects += self._about(About(run, asked), now)
        return effects

    def _tick(self, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        while self._timers and self._timers[0][0] <= now.mono:
            _, run = heapq.heappop(self._timers)
            self._asked_for.pop(run, None)
            effects += self._about(About(run, Due()), now)
        return effects

    # ── the queue ──

    def _has_room(self) -> bool:
        return not self._max_runs or self._alive < self._max_runs

    def _waits(self, run: str) -> bool:
        life = self.lives.get(run)
        return life is not None and life.phase == "queued"

    def _enqueue(self, run: str) -> None:
        self._waiting += 1
        terms = self.lives[run].terms
        self._queue.add(run, terms.priority, terms.client)

    def _admit(self, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        while not self.closing and self._has_room() and (run := self._queue.pop(self._waits)) is not None:
            self._waiting -= 1
            self._alive += 1
            life = self.lives[run]
            effects += life.handle(Admitted(), now)
            self._set_timer(life)
        return effects

    def _set_timer(self, life: Life) -> None:
        """Ask for a Tick; what is no longer due by then is ignored by the run."""
        if life.due is not None and self._asked_for.get(life.run) != life.due:
            self._asked_for[life.run] = life.due
            heapq.heappush(self._timers, (life.due, life.run))
            if len(self._timers) > 2 * len(self._asked_for) + _SLACK:
                self._timers = [(due, run) for run, due in self._asked_for.items()]  # without those that ended since
                heapq.heapify(self._timers)
