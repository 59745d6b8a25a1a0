"""All runs: who is let in, who waits, what is due, how the house empties."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sparrow_mp.wire import ExitReport
from sparrow_supervisor.core.effects import Accepted, Effect, Finish, KillMonitor, Refused, Spawn, Stop, Tell
from sparrow_supervisor.core.house import House
from sparrow_supervisor.core.inputs import (
    About,
    Drained,
    Due,
    Exited,
    Found,
    InterruptAsked,
    Now,
    Ready,
    RoomChanged,
    RunInput,
    ShutdownAsked,
    Spawned,
    SpawnRefused,
    Submitted,
    Terms,
    Tick,
    Totals,
)
from sparrow_supervisor.core.life import KILL_MARGIN_S

START = Now(1000.0, 1_800_000_000.0)


def at(seconds: float) -> Now:
    return Now(START.mono + seconds, START.wall + seconds)


class Street:
    """A house and a shorter way of telling it things."""

    def __init__(self, max_runs: int = 0, max_queue: int = 10_000) -> None:
        self.house = House(max_runs, max_queue)

    def submit(
        self, run: str, *, seconds: float = 0, priority: int = 0, timeout: float | None = None, client: str = ""
    ) -> list[Effect]:
        terms = Terms(grace=10.0, priority=priority, timeout=timeout, client=client)
        return self.house.handle(Submitted(run, terms), at(seconds))

    def tell(self, run: str, *inputs: RunInput, seconds: float = 0) -> list[Effect]:
        return [effect for what in inputs for effect in self.house.handle(About(run, what), at(seconds))]

    def end(self, run: str, seconds: float = 0) -> list[Effect]:
        return self.tell(run, Exited(0), Drained(ExitReport(wait_status=0, told=True), Totals()), seconds=seconds)

    def tick(self, seconds: float) -> list[Effect]:
        return self.house.handle(Tick(), at(seconds))

    def shut_down(self, seconds: float = 0, *, at_once: bool = False, keep_runs: bool = False) -> list[Effect]:
        return self.house.handle(ShutdownAsked(at_once, keep_runs), at(seconds))


def spawned(effects: Iterable[Effect]) -> list[str]:
    return [effect.run for effect in effects if isinstance(effect, Spawn)]


def finished(effects: Iterable[Effect]) -> list[str]:
    return [effect.run for effect in effects if isinstance(effect, Finish)]


def positions(street: Street, runs: str) -> list[int | None]:
    return [street.house.position(run) for run in runs]


# ── the queue ──


def test_without_a_limit_everything_starts_at_once() -> None:
    street = Street()
    for number in range(100):
        effects = street.submit(f"run {number}")
        assert effects[0] == Accepted(f"run {number}", None)
        assert spawned(effects) == [f"run {number}"]


def test_a_place_that_is_free_goes_to_who_came_first() -> None:
    street = Street(max_runs=2)
    for run in "abcd":
        street.submit(run)
    assert positions(street, "abcd") == [None, None, 1, 2]
    assert street.end("b")[-1:] == [Spawn("c")]
    assert positions(street, "acd") == [None, None, 1]
    assert spawned(street.end("a")) == ["d"]


def test_priority_goes_before_arrival_and_says_its_position() -> None:
    street = Street(max_runs=1)
    street.submit("alive")
    assert street.submit("a") == [Accepted("a", 1)]
    assert street.submit("b") == [Accepted("b", 2)]
    assert street.submit("low", priority=-1) == [Accepted("low", 3)]
    assert street.submit("high", priority=5) == [Accepted("high", 1)]
    assert street.submit("high too", priority=5) == [Accepted("high too", 2)]
    order = []
    last = "alive"
    while street.house.lives:
        (last,) = spawned(street.end(last)) or [""]
        order.append(last)
    assert order == ["high", "high too", "a", "b", "low", ""]


def test_clients_take_turns_within_a_priority() -> None:
    street = Street(max_runs=2)
    for number in range(6):
        street.submit(f"a{number}", client="a")
    assert street.submit("b0", client="b") == [Accepted("b0", 1)]  # it has had nothing yet
    assert street.submit("b1", client="b") == [Accepted("b1", 3)]
    assert street.submit("c0", client="c") == [Accepted("c0", 2)]
    assert street.submit("a first", client="a", priority=1) == [Accepted("a first", 1)]
    assert list(street.house.positions()) == ["a first", "b0", "c0", "a2", "b1", "a3", "a4", "a5"]
    assert spawned(street.end("a0")) == ["a first"]
    assert [spawned(street.end(run)) for run in ("a1", "b0", "c0")] == [["b0"], ["c0"], ["a2"]]
    # Who comes now is not behind turns that are over, and shares the one that is being served.
    assert street.submit("d0", client="d") == [Accepted("d0", 2)]
    assert list(street.house.positions()) == ["b1", "d0", "a3", "a4", "a5"]


def test_two_hundred_of_one_client_keep_their_order() -> None:
    street = Street(max_runs=8)
    runs = [f"r{number}" for number in range(200)]
    started: list[str] = []
    for run in runs:
        started += spawned(street.submit(run, client="a"))
    for run in runs:
        started += spawned(street.end(run))
    assert started == runs


def test_who_leaves_the_queue_lets_the_others_up() -> None:
    street = Street(max_runs=1)
    for run in "abcd":
        street.submit(run)
    effects = street.tell("b", InterruptAsked("never mind"))
    assert finished(effects) == ["b"]
    assert not spawned(effects)
    assert positions(street, "cd") == [1, 2]
    assert spawned(street.end("a")) == ["c"]


def test_a_full_queue_refuses_and_says_so() -> None:
    street = Street(max_runs=1, max_queue=2)
    for run in "abc":
        street.submit(run)
    assert street.submit("d") == [
        Refused("queue_full", "2 runs wait already; try again when some have ended"),
    ]
    assert "d" not in street.house.lives
    street.end("a")
    assert street.submit("d") == [Accepted("d", 2)]


@pytest.mark.parametrize("leaves", ["b", "c"], ids=["first in the queue", "last in the queue"])
def test_who_left_the_queue_no_longer_fills_it(leaves: str) -> None:
    street = Street(max_runs=1, max_queue=2)
    for run in "abc":
        street.submit(run)
    street.tell(leaves, InterruptAsked())
    assert street.submit("d") == [Accepted("d", 2)]
    assert isinstance(street.submit("e")[0], Refused)


def test_no_queue_at_all() -> None:
    street = Street(max_runs=1, max_queue=0)
    assert isinstance(street.submit("a")[0], Accepted)
    assert isinstance(street.submit("b")[0], Refused)


def test_more_room_lets_the_next_ones_in_and_less_sends_nobody_away() -> None:
    street = Street(max_runs=1)
    for run in "abcde":
        street.submit(run)
    assert spawned(street.house.handle(RoomChanged(3, 10), at(1))) == ["b", "c"]
    assert street.house.handle(RoomChanged(1, 10), at(2)) == []
    assert not spawned(street.end("a"))
    assert not spawned(street.end("b"))
    assert spawned(street.end("c")) == ["d"]
    assert spawned(street.house.handle(RoomChanged(0, 10), at(3))) == ["e"]


def test_a_run_that_cannot_be_spawned_gives_its_place_to_the_next() -> None:
    street = Street(max_runs=1)
    street.submit("a")
    street.submit("b")
    effects = street.tell("a", SpawnRefused("no new process can be had"))
    assert finished(effects) == ["a"]
    assert spawned(effects) == ["b"]


def test_a_place_is_free_when_the_run_is_recorded_and_not_before() -> None:
    street = Street(max_runs=1)
    street.submit("a")
    street.submit("b")
    street.tell("a", Spawned(1), Ready(2))
    assert not spawned(street.tell("a", Exited(0)))
    assert spawned(street.tell("a", Drained(None, Totals()))) == ["b"]


@pytest.mark.parametrize(
    "what", [Spawned(1), Ready(1), Exited(0), Drained(None, Totals()), InterruptAsked(), Due()], ids=repr
)
def test_what_comes_for_a_run_that_is_not_here_is_no_fault(what: RunInput) -> None:
    street = Street(max_runs=1)
    street.submit("a")
    street.end("a")
    assert street.tell("a", what) == []
    assert street.tell("never was", what) == []
    assert spawned(street.submit("b")) == ["b"]


# ── what is due ──


def test_it_asks_for_the_next_moment_that_matters() -> None:
    street = Street()
    assert street.house.next_due is None
    street.submit("never")
    assert street.house.next_due is None
    street.submit("late", timeout=100)
    street.submit("soon", timeout=5)
    assert street.house.next_due == START.mono + 5


def test_only_who_is_due_hears_of_it() -> None:
    street = Street()
    street.submit("late", timeout=100)
    street.submit("soon", timeout=5)
    assert street.tick(4.9) == []
    effects = street.tick(5)
    assert [effect.run for effect in effects if isinstance(effect, Tell)] == ["soon"]
    assert street.house.next_due == START.mono + 5 + 10 + KILL_MARGIN_S
    assert street.tick(15 + KILL_MARGIN_S) == [KillMonitor("soon")]
    assert street.tick(18) == []


def test_several_that_are_due_at_once() -> None:
    street = Street()
    for run in "abc":
        street.submit(run, timeout=5)
    assert sorted(effect.run for effect in street.tick(60) if isinstance(effect, Tell)) == ["a", "b", "c"]


def test_a_moment_that_is_brought_forward_is_asked_for() -> None:
    street = Street()
    street.submit("a")
    street.tell("a", InterruptAsked(grace=100.0))
    assert street.house.next_due == START.mono + 100 + KILL_MARGIN_S
    street.tell("a", InterruptAsked(grace=0.0), seconds=1)
    assert street.house.next_due == START.mono + 1 + KILL_MARGIN_S
    assert street.tick(1 + KILL_MARGIN_S) == [KillMonitor("a")]


def test_a_run_that_waits_does_not_time_out() -> None:
    street = Street(max_runs=1)
    street.submit("a")
    street.submit("b", timeout=5)
    assert street.house.next_due is None
    assert street.tick(60) == []
    street.end("a", seconds=60)
    assert street.house.next_due == START.mono + 65


# ── the end of the house ──


def test_an_empty_house_closes_at_once() -> None:
    street = Street()
    assert street.shut_down() == [Stop(keep_runs=False)]
    assert street.shut_down() == []
    assert street.submit("a") == [
        Refused("shutting_down", "the supervisor is shutting down and takes no new runs"),
    ]


def test_closing_interrupts_every_run_and_waits_for_the_last() -> None:
    street = Street(max_runs=2)
    for run in "abc":
        street.submit(run)
    effects = street.shut_down(1)
    assert [(effect.run, effect.grace) for effect in effects if isinstance(effect, Tell)] == [("a", 10.0), ("b", 10.0)]
    assert finished(effects) == ["c"]
    assert not spawned(effects)
    assert isinstance(street.submit("d")[0], Refused)
    assert finished(street.end("a", 2)) == ["a"]
    last = street.end("b", 3)
    assert last[-1] == Stop(keep_runs=False)
    (finish,) = (effect for effect in last if isinstance(effect, Finish))
    assert (finish.outcome.status, finish.error) == ("interrupted", "interrupted: the supervisor is shutting down")
    assert street.end("b", 4) == []


def test_a_second_shutdown_can_be_more_urgent() -> None:
    street = Street()
    street.submit("a")
    street.shut_down(1)
    assert street.shut_down(2) == []
    assert [effect for effect in street.shut_down(2, at_once=True) if isinstance(effect, Tell)] == [
        Tell("a", "the supervisor is shutting down", 0.0)
    ]


def test_runs_can_be_left_alone() -> None:
    street = Street(max_runs=1)
    street.submit("a")
    street.submit("b")
    assert street.shut_down(keep_runs=True) == [Stop(keep_runs=True)]
    assert isinstance(street.submit("c")[0], Refused)
    # What still happens is no reason to stop again, or to start what waits: the next supervisor will.
    effects = street.end("a")
    assert finished(effects) == ["a"]
    assert not spawned(effects)
    assert Stop(keep_runs=False) not in effects


def test_one_who_is_closing_may_still_leave_the_runs_alone() -> None:
    street = Street()
    street.submit("a")
    street.shut_down()
    assert street.shut_down(keep_runs=True) == [Stop(keep_runs=True)]
    assert street.shut_down() == []


# ── what an earlier supervisor left ──


def test_found_runs_take_their_places_and_the_queue_goes_on() -> None:
    street = Street(max_runs=2)
    assert street.house.handle(Found("a", Terms(), "running", START.wall - 5), at(0)) == []
    assert spawned(street.house.handle(Found("b", Terms(), "queued"), at(0))) == ["b"]
    assert street.house.handle(Found("c", Terms(), "queued"), at(0)) == []
    assert street.house.handle(Found("d", Terms(priority=1), "queued"), at(0)) == []
    assert positions(street, "cd") == [2, 1]
    assert spawned(street.end("a")) == ["d"]


def test_a_found_run_keeps_its_timeout() -> None:
    street = Street()
    street.house.handle(Found("a", Terms(timeout=60), "running", START.wall - 50), at(0))
    assert street.house.next_due == START.mono + 10
    street.house.handle(Found("b", Terms(timeout=60), "starting", START.wall - 500), at(0))
    assert [effect.run for effect in street.tick(0) if isinstance(effect, Tell)] == ["b"]


def test_a_run_that_was_found_says_how_long_it_took_altogether() -> None:
    street = Street()
    street.house.handle(Found("a", Terms(), "running", START.wall - 50), at(0))
    (finish,) = (effect for effect in street.end("a", 10) if isinstance(effect, Finish))
    assert finish.outcome.duration_ms == 60_000


def test_a_run_that_was_being_ended_has_its_grace_again_and_its_first_reason() -> None:
    street = Street()
    effects = street.house.handle(
        Found("a", Terms(grace=7), "stopping", START.wall - 5, ("timed_out", "it ran longer than 5 s")), at(0)
    )
    assert Tell("a", "it ran longer than 5 s", 7) in effects
    assert street.house.next_due == START.mono + 7 + KILL_MARGIN_S
    street.tell("a", InterruptAsked("me too"))
    (finish,) = (effect for effect in street.end("a", 1) if isinstance(effect, Finish))
    assert (finish.outcome.status, finish.outcome.reason) == ("timed_out", "it ran longer than 5 s")
