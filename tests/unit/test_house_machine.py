"""The house under any order of inputs, late and repeated ones included: its laws hold after each of them.

A small model beside it keeps what the laws speak of (who waits, who is alive, who asked first, what is due when). It is told
the same inputs, and looks at each effect as it comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sparrow_mp.events import Status
from sparrow_mp.wire import ExitReport
from sparrow_supervisor.core.effects import (
    Accepted,
    Drain,
    Effect,
    Finish,
    KillMonitor,
    Refused,
    Save,
    Spawn,
    Stop,
    Tell,
)
from sparrow_supervisor.core.house import House
from sparrow_supervisor.core.inputs import (
    About,
    Drained,
    Due,
    Exited,
    Found,
    Input,
    InterruptAsked,
    LimitReached,
    Now,
    Ready,
    RoomChanged,
    RunInput,
    ShutdownAsked,
    Spawned,
    SpawnRefused,
    Spent,
    Submitted,
    Terms,
    Tick,
    Totals,
)
from sparrow_supervisor.core.life import KILL_MARGIN_S

WALL = 1_800_000_000.0


@dataclass
class Known:
    """What the laws need to know of one run."""

    terms: Terms
    arrival: int
    turn: int = 0
    place: str = "waiting"  # then alive, draining, finished
    began: float = 0.0
    forked: bool = False
    asked: tuple[Status, str] | None = None
    kill_at: float | None = None
    report: ExitReport | None = None
    refusal: str = ""

    @property
    def rank(self) -> tuple[int, int, int]:
        return -self.terms.priority, self.turn, self.arrival

    @property
    def due(self) -> float | None:
        if self.place != "alive":
            return None
        if self.asked is not None:
            return self.kill_at
        return None if self.terms.timeout is None else self.began + self.terms.timeout


@dataclass
class Seen:
    """What came out of one input, sorted."""

    spawned: list[str] = field(default_factory=list)
    drained: list[str] = field(default_factory=list)
    finished: dict[str, Finish] = field(default_factory=dict)
    told: list[Tell] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    answers: list[Accepted | Refused] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)


GRACES = st.sampled_from([None, 0.0, 1.0, 50.0])
TERMS = st.builds(
    Terms,
    grace=st.sampled_from([0.0, 2.0, 10.0]),
    timeout=st.sampled_from([None, 0.5, 20.0]),
    budget=st.sampled_from([None, 1.0]),
    priority=st.integers(-1, 1),
    client=st.sampled_from(["a", "b"]),
)
REPORTS = st.one_of(
    st.none(),
    st.builds(
        ExitReport,
        wait_status=st.sampled_from([None, 0, 7 << 8, 9]),
        interrupted=st.sampled_from([None, "", "by hand"]),
        rejected=st.sampled_from([None, "no such program"]),
        forced=st.booleans(),
        told=st.booleans(),
        limit=st.sampled_from([None, None, ("out_of_memory", "it used too much")]),
    ),
)


def decides(known: Known) -> tuple[Status, str] | None:
    """What decides how a run's end is called, where anybody has asked for it: the limit that its monitor saw it reach before it
    was asked; not a timeout that came after its own end.
    """
    report = known.report
    if report is not None and report.limit is not None:
        return report.limit
    by_itself = report is not None and report.wait_status is not None and report.interrupted is None and not report.told
    return None if known.asked is not None and known.asked[0] == "timed_out" and by_itself else known.asked


class HouseMachine(RuleBasedStateMachine):
    """Inputs in any order; see the module's docstring."""

    def __init__(self) -> None:
        super().__init__()
        self.house = House()
        self.runs: dict[str, Known] = {}
        self.mono = 1000.0
        self.max_runs = 0
        self.max_queue = 10_000
        self.closing = False
        self.stops = 0
        self.arrivals = 0
        self.given: dict[tuple[int, str], int] = {}
        self.served: dict[int, int] = {}
        self.sound = True

    @initialize(max_runs=st.sampled_from([1, 2, 0]), max_queue=st.sampled_from([2, 1, 10_000]))
    def build(self, max_runs: int, max_queue: int) -> None:
        self.house = House(max_runs, max_queue)
        self.max_runs, self.max_queue = max_runs, max_queue

    # ── the model ──

    def at(self, place: str) -> list[str]:
        return [run for run, known in self.runs.items() if known.place == place]

    @property
    def alive(self) -> int:
        return len(self.at("alive")) + len(self.at("draining"))

    @property
    def waiting(self) -> list[str]:
        return sorted(self.at("waiting"), key=lambda run: self.runs[run].rank)

    @property
    def has_room(self) -> bool:
        return self.max_runs == 0 or self.alive < self.max_runs

    def any_run(self, data: st.DataObject, *places: str) -> str:
        """Usually a run that is at such a place, else any, one that has ended or never was included."""
        fitting = [run for run in self.runs if self.runs[run].place in places]
        strange = data.draw(st.integers(0, 5), "strange if 0") == 0
        if fitting and not strange:
            return data.draw(st.sampled_from(fitting), "run")
        return data.draw(st.sampled_from(["stranger", *self.runs]), "any run")

    def ask(self, known: Known, asked: tuple[Status, str], grace: float) -> None:
        """The laws of asking: the first decides, a later one can only hasten."""
        known.asked = known.asked or asked
        known.kill_at = min(math.inf if known.kill_at is None else known.kill_at, self.mono + grace + KILL_MARGIN_S)

    def feed(self, what: Input) -> Seen:
        """Tell the house, and look at each effect in its order."""
        note(f"{self.mono - 1000:g} s: {what}")
        seen = Seen()
        self.sound = False
        stopped_before = self.stops > 0
        for effect in self.house.handle(what, Now(self.mono, WALL + self.mono)):
            self.look(effect, seen)
        assert len(seen.stops) <= 1
        assert not (stopped_before and seen.stops), "it stops twice"
        self.sound = True
        return seen

    def look(self, effect: Effect, seen: Seen) -> None:
        match effect:
            case Spawn(run):
                known = self.runs[run]
                assert not self.closing, "it starts something while it is closing"
                assert self.has_room, "more than max_runs are alive"
                assert run == self.waiting[0], f"{self.waiting[0]} came before"
                known.place, known.began = "alive", self.mono
                self.served[known.terms.priority] = known.turn
                seen.spawned.append(run)
            case Finish(run, outcome, error):
                known = self.runs[run]
                assert known.place in ("waiting", "alive", "draining"), "it ends twice"
                asked = decides(known)
                assert error is None or error.startswith(asked[1] if asked else "") or "interrupted" in error
                if known.place == "draining":
                    assert known.report is not None or outcome.usage is None
                else:
                    assert not known.forked, "it ends before its process does"
                if asked is not None:
                    assert (outcome.status, outcome.reason) == (asked[0], asked[1] or None)
                known.place = "finished"
                seen.finished[run] = effect
            case Drain(run):
                known = self.runs[run]
                assert known.place == "alive", "it is drained twice, or before it has begun"
                known.place = "draining"
                seen.drained.append(run)
            case Tell(run, _, grace):
                assert self.runs[run].place == "alive"
                assert grace >= 0
                seen.told.append(effect)
            case KillMonitor(run):
                assert self.runs[run].place == "alive"
                assert self.runs[run].asked is not None, "killed without having been asked to end"
                seen.killed.append(run)
            case Save(run):
                assert self.runs[run].place != "finished"
            case Accepted() | Refused():
                seen.answers.append(effect)
            case Stop(keep_runs):
                assert self.closing
                assert keep_runs or not (self.at("waiting") or self.alive), "it stops while something is left"
                self.stops += 1
                seen.stops.append(effect)

    def about(self, run: str, what: RunInput) -> Seen:
        return self.feed(About(run, what))

    # ── the rules ──

    @rule(all_terms=st.lists(TERMS, min_size=1, max_size=3))
    def submit(self, all_terms: list[Terms]) -> None:
        for terms in all_terms:
            self.submit_one(terms)

    def submit_one(self, terms: Terms) -> None:
        run = f"r{len(self.runs)}"
        if self.closing:
            self.refused(run, terms, "shutting_down")
        elif not self.has_room and len(self.waiting) >= self.max_queue:
            self.refused(run, terms, "queue_full")
        else:
            waits = not self.has_room
            self.runs[run] = self.comes(terms)
            position = self.waiting.index(run) + 1 if waits else None
            seen = self.feed(Submitted(run, terms))
            assert seen.answers == [Accepted(run, position)]
            assert seen.spawned == ([] if waits else [run])

    def comes(self, terms: Terms, *, queued: bool = True) -> Known:
        """It has the turn after its client's last one, or the one that is being served."""
        self.arrivals += 1
        known = Known(terms, self.arrivals)
        if queued:
            mine = terms.priority, terms.client
            known.turn = max(self.given.get(mine, 0) + 1, self.served.get(terms.priority, 0))
            self.given[mine] = known.turn
        return known

    def refused(self, run: str, terms: Terms, code: str) -> None:
        (answer,) = self.feed(Submitted(run, terms)).answers
        assert isinstance(answer, Refused)
        assert answer.code == code

    @rule(data=st.data())
    def spawned(self, data: st.DataObject) -> None:
        run = self.any_run(data, "alive")
        if run in self.runs and self.runs[run].place == "alive":
            self.runs[run].forked = True
        self.about(run, Spawned(4242))

    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        run = self.any_run(data, "alive")
        if run in self.runs and self.runs[run].place == "alive":
            self.runs[run].forked = True
        self.about(run, Ready(4243))

    @rule(data=st.data())
    def spawn_refused(self, data: st.DataObject) -> None:
        run = self.any_run(data, "alive")
        known = self.runs.get(run)
        ends = known is not None and known.place == "alive" and not known.forked
        if known is not None and ends and known.asked is None:
            known.asked = ("rejected", "no new process")
        seen = self.about(run, SpawnRefused("no new process"))
        assert list(seen.finished) == ([run] if ends else [])

    @rule(data=st.data(), grace=GRACES, words=st.sampled_from(["", "enough"]))
    def interrupt(self, data: st.DataObject, grace: float | None, words: str) -> None:
        run = self.any_run(data, "waiting", "alive", "alive")
        known = self.runs.get(run)
        place = known.place if known else ""
        before = known.kill_at if known else None
        if known is not None and place in ("waiting", "alive"):
            self.ask(known, ("interrupted", words), known.terms.grace if grace is None else grace)
        seen = self.about(run, InterruptAsked(words, grace))
        assert list(seen.finished) == ([run] if place == "waiting" else [])
        assert [tell.run for tell in seen.told] == (
            [run] if known is not None and place == "alive" and known.kill_at != before else []
        )

    @rule(
        data=st.data(),
        at_once=st.booleans(),
        told=st.booleans(),
        status=st.sampled_from(["over_limit", "out_of_memory", "failed"]),
    )
    def limit(self, data: st.DataObject, at_once: bool, told: bool, status: Status) -> None:
        run = self.any_run(data, "alive")
        known = self.runs.get(run)
        if known is not None and known.place == "alive":
            self.ask(known, (status, "too much"), 0.0 if at_once else known.terms.grace)
        if known is not None and known.place == "draining" and at_once and known.asked is None:
            known.asked = (status, "too much")  # what it left shows that it broke a law
        seen = self.about(run, LimitReached(status, "too much", at_once, told))
        assert not (told and seen.told), "it tells a monitor what that has said"

    @rule(data=st.data(), cost=st.sampled_from([0.5, 1.0, 3.0]))
    def spent(self, data: st.DataObject, cost: float) -> None:
        run = self.any_run(data, "alive")
        known = self.runs.get(run)
        if known is not None and known.place == "alive" and known.terms.budget is not None and cost >= 1.0:
            self.ask(known, ("over_budget", f"it cost {cost:.4f} USD of a budget of 1.0000"), known.terms.grace)
        self.about(run, Spent(cost))

    @rule(data=st.data(), status=st.sampled_from([None, 0, 1 << 8, 9]))
    def exited(self, data: st.DataObject, status: int | None) -> None:
        run = self.any_run(data, "alive")
        was_alive = run in self.runs and self.runs[run].place == "alive"
        seen = self.about(run, Exited(status))
        assert seen.drained == ([run] if was_alive else [])
        assert not seen.finished

    @rule(data=st.data(), report=REPORTS)
    def drained(self, data: st.DataObject, report: ExitReport | None) -> None:
        run = self.any_run(data, "draining")
        known = self.runs.get(run)
        was_draining = known is not None and known.place == "draining"
        if known is not None and was_draining:
            known.report = report
        seen = self.about(run, Drained(report, Totals()))
        assert list(seen.finished) == ([run] if was_draining else [])
        if known is not None and was_draining and decides(known) is None and known.asked is None:
            status = seen.finished[run].outcome.status
            expected: set[Any]
            if report is None:
                expected = {"lost", "crashed"}
            elif report.interrupted is not None:
                expected = {"interrupted"}
            elif report.rejected is not None:
                expected = {"rejected"}
            else:
                expected = {{None: "lost", 0: "completed", 9: "crashed"}.get(report.wait_status, "failed")}
            assert status in expected

    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        """The usual end: it exits, and is drained."""
        run = self.any_run(data, "alive")
        self.about(run, Exited(0))
        if run in self.runs and self.runs[run].place == "draining":
            self.runs[run].report = ExitReport(wait_status=0, told=True)
        self.about(run, Drained(ExitReport(wait_status=0, told=True), Totals()))

    @rule(data=st.data())
    def told_that_it_is_due(self, data: st.DataObject) -> None:
        """Out of turn: only what is due then may happen."""
        run = self.any_run(data, "alive")
        self.check_due(self.about(run, Due()), [run] if self.is_due(run) else [])

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 7.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.mono += seconds
        due = [run for run in self.runs if self.is_due(run)]
        self.check_due(self.feed(Tick()), due)

    def is_due(self, run: str) -> bool:
        due = self.runs[run].due if run in self.runs else None
        return due is not None and due <= self.mono

    def check_due(self, seen: Seen, due: list[str]) -> None:
        """Who ran out of time is asked to end; who was asked and did not is killed; nobody else hears anything."""
        stopping = [run for run in due if self.runs[run].asked is not None]
        timed_out = [run for run in due if self.runs[run].asked is None]
        assert sorted(seen.killed) == sorted(stopping)
        assert sorted(tell.run for tell in seen.told) == sorted(timed_out)
        for run in stopping:
            self.runs[run].kill_at = self.mono + KILL_MARGIN_S
        for run in timed_out:
            known = self.runs[run]
            self.ask(known, ("timed_out", f"it ran longer than {known.terms.timeout:g} s"), known.terms.grace)

    @rule(max_runs=st.integers(0, 3), max_queue=st.sampled_from([0, 2, 10_000]))
    def room_changes(self, max_runs: int, max_queue: int) -> None:
        self.max_runs, self.max_queue = max_runs, max_queue
        self.feed(RoomChanged(max_runs, max_queue))

    @precondition(lambda self: not self.closing)
    @rule(
        terms=TERMS,
        phase=st.sampled_from(["queued", "starting", "running", "stopping"]),
        since=st.sampled_from([0.0, 5.0]),
        asked=st.sampled_from([None, ("timed_out", "it ran longer than 1 s")]),
    )
    def found(self, terms: Terms, phase: str, since: float, asked: tuple[Status, str] | None) -> None:
        run = f"r{len(self.runs)}"
        known = self.runs[run] = self.comes(terms, queued=phase == "queued")
        asked = asked if phase == "stopping" else None
        if phase != "queued":
            # It is there, whatever the limit is now: that only keeps others from starting.
            known.place, known.began, known.forked = "alive", self.mono - since, phase == "running"
        if phase == "stopping":
            self.ask(known, asked or ("interrupted", ""), terms.grace)
        started = None if phase == "queued" else WALL + self.mono - since
        seen = self.feed(Found(run, terms, phase, started, asked))
        assert [tell.run for tell in seen.told] == ([run] if phase == "stopping" else [])

    @precondition(lambda self: self.arrivals > 3)
    @rule(data=st.data(), at_once=st.booleans(), keep_runs=st.booleans())
    def shut_down(self, data: st.DataObject, at_once: bool, keep_runs: bool) -> None:
        if data.draw(st.integers(0, 2), "now if 0"):
            return
        stopped = self.stops > 0
        waiting = self.waiting
        self.closing = True
        if not stopped and not keep_runs:
            for known in self.runs.values():
                if known.place in ("waiting", "alive"):
                    grace = 0.0 if at_once else known.terms.grace
                    self.ask(known, ("interrupted", "the supervisor is shutting down"), grace)
        seen = self.feed(ShutdownAsked(at_once, keep_runs))
        if stopped:
            assert seen == Seen()
        elif keep_runs:
            assert seen == Seen(stops=[Stop(keep_runs=True)])
        else:
            assert sorted(seen.finished) == sorted(waiting)

    # ── the laws that hold at any time ──

    @invariant()
    def it_knows_exactly_the_runs_that_have_not_ended(self) -> None:
        assert set(self.house.lives) == {run for run, known in self.runs.items() if known.place != "finished"}

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        assert self.closing or not self.waiting or not self.has_room

    @invariant()
    def positions_are_the_order_of_admission(self) -> None:
        for position, run in enumerate(self.waiting, 1):
            assert self.house.position(run) == position
        for run in (*self.at("alive"), *self.at("finished"), "stranger"):
            assert self.house.position(run) is None

    @invariant()
    def it_asks_to_be_woken_for_what_is_due(self) -> None:
        due = [known.due for known in self.runs.values() if known.due is not None]
        assert not due or (self.house.next_due is not None and self.house.next_due <= min(due))

    @invariant()
    def it_stops_when_it_is_closing_and_nothing_is_left(self) -> None:
        assert self.stops <= 1
        if self.closing and not (self.waiting or self.alive):
            assert self.stops == 1

    def teardown(self) -> None:
        """Whatever happened: let everything end, and every accepted run has ended, once."""
        if not self.sound:
            return  # a law is broken already, which is told
        self.room_changes(0, 0)
        for _ in range(2):  # who waited becomes alive in the first turn
            for run in [run for run, known in self.runs.items() if known.place in ("alive", "draining")]:
                self.about(run, Exited(0))
                self.runs[run].report = ExitReport(wait_status=0, told=True)
                self.about(run, Drained(ExitReport(wait_status=0, told=True), Totals()))
        if not self.closing:
            self.closing = True
            self.feed(ShutdownAsked())
        # Who still waits was left to the next supervisor.
        assert {known.place for known in self.runs.values()} <= {"finished", "waiting"}
        assert self.stops == 1
        assert set(self.house.lives) == set(self.waiting)


def run_machine(examples: int, steps: int) -> int:
    """Let Hypothesis try that many orders of that many inputs; how many it has given."""
    taken = 0

    class Counted(HouseMachine):
        @invariant()
        def one_more(self) -> None:
            nonlocal taken
            taken += 1

    run_state_machine_as_test(
        Counted,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            phases=[Phase.generate, Phase.shrink],
        ),
    )
    return taken


def test_the_laws_of_the_house() -> None:
    """For longer: tests/stress/test_house_for_long.py."""
    run_machine(examples=25, steps=50)
