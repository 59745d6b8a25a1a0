"""One run's life: what each input does in each phase, and what each end is called."""

from __future__ import annotations

import itertools
import typing
from dataclasses import dataclass

import pytest

from sparrow_mp.events import DiffStat, Outcome, Status, Tokens
from sparrow_mp.wire import ExitReport
from sparrow_supervisor.core.effects import Drain, Finish, KillMonitor, Save, Spawn, Tell
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
from sparrow_supervisor.core.life import KILL_MARGIN_S, PHASES, TABLE, Life, Phase, ended_by, exit_code

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"
START = Now(1000.0, 1_800_000_000.0)
EXITED_0, EXITED_7, KILLED_9, KILLED_15_CORE = 0, 7 << 8, 9, 15 | 0x80

INPUTS: dict[type, RunInput] = {
    Admitted: Admitted(),
    Spawned: Spawned(4242),
    SpawnRefused: SpawnRefused("no new process can be had"),
    Ready: Ready(4243),
    InterruptAsked: InterruptAsked("enough"),
    LimitReached: LimitReached("over_limit", "too many files"),
    Spent: Spent(2.0),
    Exited: Exited(EXITED_0),
    Drained: Drained(ExitReport(wait_status=EXITED_0), Totals()),
    Due: Due(),
}


def later(seconds: float) -> Now:
    return Now(START.mono + seconds, START.wall + seconds)


def living(phase: Phase, terms: Terms | None = None) -> Life:
    """A run that has come to the phase by the usual way, within the first second."""
    life = Life(RUN, terms or Terms(budget=1.0, timeout=60.0))
    usual: dict[Phase, list[RunInput]] = {
        "queued": [],
        "starting": [Admitted()],
        "running": [Admitted(), Spawned(4242), Ready(4243)],
        "stopping": [Admitted(), Spawned(4242), Ready(4243), InterruptAsked("first")],
        "draining": [Admitted(), Spawned(4242), Ready(4243), Exited(EXITED_0)],
        "ended": [InterruptAsked("first")],
    }
    for what in usual[phase]:
        life.handle(what, START)
    assert life.phase == phase
    return life


NOTHING: tuple[type, ...] = ()
WHAT_HAPPENS: dict[tuple[Phase, type], tuple[Phase, tuple[type, ...]]] = {
    ("queued", Admitted): ("starting", (Save, Spawn)),
    ("queued", InterruptAsked): ("ended", (Finish,)),
    ("starting", Spawned): ("starting", (Save,)),
    ("starting", SpawnRefused): ("ended", (Finish,)),
    ("starting", Ready): ("running", (Save,)),
    ("starting", InterruptAsked): ("stopping", (Save, Tell)),
    ("starting", LimitReached): ("stopping", (Save, Tell)),
    ("starting", Spent): ("stopping", (Save, Tell)),
    ("starting", Exited): ("draining", (Drain,)),
    ("running", Spawned): ("running", (Save,)),
    ("running", Ready): ("running", (Save,)),
    ("running", InterruptAsked): ("stopping", (Save, Tell)),
    ("running", LimitReached): ("stopping", (Save, Tell)),
    ("running", Spent): ("stopping", (Save, Tell)),
    ("running", Exited): ("draining", (Drain,)),
    ("stopping", Spawned): ("stopping", (Save,)),
    ("stopping", Ready): ("stopping", (Save,)),
    ("stopping", Exited): ("draining", (Drain,)),
    ("draining", Drained): ("ended", (Finish,)),
}
"""All that happens; every pair that is not here changes nothing and has no effect."""


def test_the_table_is_total() -> None:
    assert set(TABLE) == set(itertools.product(PHASES, typing.get_args(RunInput)))
    assert set(INPUTS) == set(typing.get_args(RunInput))


@pytest.mark.parametrize("kind", INPUTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("phase", PHASES)
def test_each_input_in_each_phase(phase: Phase, kind: type) -> None:
    life = living(phase)
    after, effects = WHAT_HAPPENS.get((phase, kind), (phase, NOTHING))
    done = life.handle(INPUTS[kind], later(1))
    assert (life.phase, tuple(map(type, done))) == (after, effects)
    assert {getattr(effect, "run", None) for effect in done} <= {RUN}


def test_what_is_saved_when() -> None:
    life = Life(RUN, Terms(grace=4.0))
    assert life.handle(Admitted(), START) == [Save(RUN, {"status": "starting", "started": START.wall}), Spawn(RUN)]
    assert life.handle(Spawned(7), START) == [Save(RUN, {"monitor_pid": 7})]
    assert life.handle(Ready(8), START) == [Save(RUN, {"status": "running", "pid": 8})]
    assert life.handle(InterruptAsked("enough"), START) == [
        Save(RUN, {"status": "stopping", "asked": ("interrupted", "enough")}),
        Tell(RUN, "enough", 4.0),
    ]
    # A hello that comes again (a reconnection) does not make it running again.
    assert life.handle(Ready(8), START) == [Save(RUN, {"status": "stopping", "pid": 8})]


@pytest.mark.parametrize("phase", ["starting", "running", "stopping"])
def test_a_refusal_after_the_fork_ends_nothing(phase: Phase) -> None:
    """What has begun ends by Exited and Drained alone, whatever else is said of it."""
    life = Life(RUN, Terms())
    for what in (Admitted(), Spawned(4242)):
        life.handle(what, START)
    if phase == "running":
        life.handle(Ready(4243), START)
    if phase == "stopping":
        life.handle(InterruptAsked(), START)
    assert life.handle(SpawnRefused("too late"), START) == []
    assert life.phase == phase


def test_an_interrupted_run_that_cannot_be_spawned_is_interrupted() -> None:
    life = living("starting")
    life.handle(InterruptAsked("enough"), START)
    assert life.phase == "stopping"
    (finish,) = life.handle(SpawnRefused("no new process can be had"), START)
    assert isinstance(finish, Finish)
    assert (finish.outcome.status, finish.error) == ("interrupted", "interrupted: enough")


# ── who asked first, and who is quicker ──


def test_who_asked_first_decides_and_a_later_one_can_only_hasten() -> None:
    life = living("running", Terms(grace=10.0))
    life.handle(LimitReached("over_limit", "too many files"), START)
    assert life.due == START.mono + 10 + KILL_MARGIN_S
    # Later than what is under way already: nobody is told anything.
    assert life.handle(InterruptAsked("me too", grace=30.0), later(1)) == []
    assert life.due == START.mono + 10 + KILL_MARGIN_S
    # Sooner: the monitor is told.
    assert life.handle(InterruptAsked("now", grace=0.0), later(2)) == [Tell(RUN, "now", 0.0)]
    assert life.due == START.mono + 2 + KILL_MARGIN_S
    life.handle(Exited(KILLED_9), later(3))
    (finish,) = life.handle(Drained(ExitReport(wait_status=KILLED_9, forced=True), Totals()), later(3))
    assert isinstance(finish, Finish)
    outcome = finish.outcome
    assert (outcome.status, outcome.reason, outcome.forced) == ("over_limit", "too many files", True)


def test_a_limit_that_cannot_wait_has_no_grace() -> None:
    life = living("running", Terms(grace=10.0))
    effects = life.handle(LimitReached("failed", "it broke the protocol", at_once=True), START)
    assert effects[-1] == Tell(RUN, "it broke the protocol", 0.0)
    assert life.due == START.mono + KILL_MARGIN_S


@pytest.mark.parametrize(("budget", "cost", "stops"), [(None, 1e9, False), (1.0, 0.99, False), (1.0, 1.0, True)])
def test_a_budget(budget: float | None, cost: float, stops: bool) -> None:
    life = living("running", Terms(budget=budget))
    effects = life.handle(Spent(cost), START)
    assert bool(effects) is stops
    assert life.phase == ("stopping" if stops else "running")
    assert life.asked == (("over_budget", "it cost 1.0000 USD of a budget of 1.0000") if stops else None)


# ── timers ──


@pytest.mark.parametrize("phase", ["starting", "running"])
def test_a_timeout_counts_from_the_start_and_is_exact(phase: Phase) -> None:
    life = living(phase, Terms(timeout=5.0, grace=2.0))
    assert life.due == START.mono + 5
    assert life.handle(Due(), later(4.999)) == []
    assert life.handle(Due(), later(5)) == [
        Save(RUN, {"status": "stopping", "asked": ("timed_out", "it ran longer than 5 s")}),
        Tell(RUN, "it ran longer than 5 s", 2.0),
    ]
    assert life.due == START.mono + 5 + 2 + KILL_MARGIN_S


def test_a_monitor_that_does_not_end_its_run_is_killed_again_and_again() -> None:
    life = living("running", Terms(grace=2.0))
    life.handle(InterruptAsked(), START)
    assert life.handle(Due(), later(2 + KILL_MARGIN_S - 0.001)) == []
    assert life.handle(Due(), later(2 + KILL_MARGIN_S)) == [KillMonitor(RUN)]
    assert life.due == START.mono + 2 + 2 * KILL_MARGIN_S
    assert life.handle(Due(), later(2 + 2 * KILL_MARGIN_S)) == [KillMonitor(RUN)]
    life.handle(Exited(KILLED_9), later(10))
    (finish,) = life.handle(Drained(None, Totals()), later(10))
    assert isinstance(finish, Finish)
    assert (finish.outcome.status, finish.outcome.forced) == ("interrupted", True)


@pytest.mark.parametrize(
    ("zygotes", "reason"),
    [(None, "process 12 could not be ended"), ((), None), ((12, 99), "processes 12, 99 could not be ended")],
)
def test_what_could_not_be_ended_is_told_as_the_zygote_saw_it_last(
    zygotes: tuple[int, ...] | None, reason: str | None
) -> None:
    life = living("running")
    life.handle(Exited(76 << 8, left=zygotes), later(1))
    (finish,) = life.handle(Drained(ExitReport(wait_status=0, left=[12]), Totals()), later(1))
    assert isinstance(finish, Finish)
    assert (finish.outcome.status, finish.outcome.reason) == ("completed", reason)


@pytest.mark.parametrize("phase", ["queued", "draining", "ended"])
def test_time_alone_changes_nothing_before_and_after(phase: Phase) -> None:
    assert living(phase, Terms(timeout=1.0)).due is None


def test_without_a_timeout_a_run_may_go_on_for_ever() -> None:
    life = living("running", Terms())
    assert life.due is None
    assert life.handle(Due(), later(1e9)) == []


# ── how it is called ──


@dataclass(frozen=True)
class End:
    """How a run that had begun ended, and what is to be said of it."""

    name: str
    report: ExitReport | None
    status: Status
    reason: str | None = None
    error: str | None = None
    code: int | None = None
    signal: int | None = None
    asked: RunInput | None = None
    monitor: int | None = EXITED_0
    account: str = ""
    forced: bool = False


ENDS = [
    End("returned", ExitReport(wait_status=EXITED_0), "completed", code=0),
    End("returned, with a word", ExitReport(wait_status=EXITED_0, reason="its result was left out"), "completed",
        "its result was left out", code=0),
    End("exit code", ExitReport(wait_status=EXITED_7), "failed", code=7),
    End("raised", ExitReport(wait_status=1 << 8, reason="ValueError: no"), "failed", "ValueError: no", "ValueError: no",
        code=1),
    End("a signal", ExitReport(wait_status=KILLED_9), "crashed", signal=9),
    End("a signal and a core", ExitReport(wait_status=KILLED_15_CORE), "crashed", signal=15),
    End("leftovers", ExitReport(wait_status=EXITED_0, left=[12, 13]), "completed", "processes 12, 13 could not be ended",
        code=0),
    End("leftovers of a failure", ExitReport(wait_status=EXITED_7, left=[12], reason="it is so"), "failed",
        "it is so; process 12 could not be ended", "it is so; process 12 could not be ended", code=7),
    End("no program", ExitReport(rejected="program not found: nope", rejected_code=127, wait_status=1 << 8), "rejected",
        "program not found: nope", "program not found: nope", code=127),
    End("rejected without a code", ExitReport(rejected="cannot load it", wait_status=1 << 8), "rejected",
        "cannot load it", "cannot load it"),
    End("interrupted by somebody else", ExitReport(wait_status=15, interrupted="by hand"), "interrupted", "by hand",
        "interrupted: by hand", signal=15),
    End("interrupted without words", ExitReport(wait_status=15, interrupted=""), "interrupted", None, "interrupted",
        signal=15),
    End("asked, ended well", ExitReport(wait_status=EXITED_0), "interrupted", None, "interrupted", code=0,
        asked=InterruptAsked()),
    End("asked, with words", ExitReport(wait_status=15), "interrupted", "enough", "interrupted: enough", signal=15,
        asked=InterruptAsked("enough")),
    End("asked, and forced", ExitReport(wait_status=KILLED_9, forced=True), "interrupted", None, "interrupted", signal=9,
        asked=InterruptAsked(), forced=True),
    End("asked, then rejected", ExitReport(rejected="program not found: nope", rejected_code=127), "interrupted", None,
        "interrupted", asked=InterruptAsked()),
    End("over its limit", ExitReport(wait_status=KILLED_9), "over_limit", "too many files", "too many files", signal=9,
        asked=LimitReached("over_limit", "too many files")),
    End("out of memory", ExitReport(wait_status=KILLED_9), "out_of_memory", "2 GiB", "2 GiB", signal=9,
        asked=LimitReached("out_of_memory", "2 GiB")),
    End("over its budget", ExitReport(wait_status=15), "over_budget", "it cost 3.0000 USD of a budget of 1.0000",
        "it cost 3.0000 USD of a budget of 1.0000", signal=15, asked=Spent(3.0)),
    End("broke the protocol", ExitReport(wait_status=EXITED_0), "failed", "a wrong seq", "a wrong seq", code=0,
        asked=LimitReached("failed", "a wrong seq", at_once=True)),
    End("timed out", ExitReport(wait_status=15, told=True), "timed_out", "it ran longer than 60 s", "it ran longer than 60 s",
        signal=15, asked=Due()),
    End("ended in time, while nobody looked", ExitReport(wait_status=EXITED_0), "completed", code=0,
        asked=Due()),
    End("a monitor that could not say", ExitReport(), "lost", "its monitor could not say how it ended",
        "its monitor could not say how it ended"),
    End("a monitor that knew why not", ExitReport(reason="wait4 failed"), "lost", "wait4 failed", "wait4 failed"),
    End("a monitor that was killed", None, "crashed", "its monitor was killed, and what it ran was ended with it",
        "its monitor was killed, and what it ran was ended with it", signal=9, monitor=KILLED_9),
    End("a monitor that failed", None, "crashed", "its monitor failed; the zygote's log says why",
        "its monitor failed; the zygote's log says why", monitor=1 << 8),
    End("nobody left", None, "lost", "it ended while nothing was left to see how",
        "it ended while nothing was left to see how", monitor=None),
    End("nobody left, with an account", None, "lost", "the machine went down", "the machine went down", monitor=None,
        account="the machine went down"),
    End("asked, and nobody left", None, "interrupted", "enough", "interrupted: enough", monitor=None,
        asked=InterruptAsked("enough")),
]  # fmt: skip


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name)
def test_how_an_end_is_called(end: End) -> None:
    life = living("running")
    if end.asked is not None:
        life.handle(end.asked, later(60))
        assert life.phase == "stopping"
    assert life.handle(Exited(end.monitor, end.account), later(61)) == [Drain(RUN)]
    (finish,) = life.handle(Drained(end.report, Totals()), later(61.5))
    assert isinstance(finish, Finish)
    outcome = finish.outcome
    assert (outcome.status, outcome.reason, finish.error) == (end.status, end.reason, end.error)
    assert (outcome.exit_code, outcome.signal, outcome.forced) == (end.code, end.signal, end.forced)
    assert outcome.duration_ms == 61_500
    assert outcome.usage is None, "nobody said what it used"
    assert finish.began is (outcome.status != "rejected")


def test_every_status_is_among_the_ends() -> None:
    assert {end.status for end in ENDS} == set(typing.get_args(Status))


def test_an_outcome_holds_what_the_run_added_up_to() -> None:
    totals = Totals(cost_usd=0.25, tokens=Tokens(input=10, output=3), diffs={"a": DiffStat(file="a", plus=1, minus=2)})
    report = ExitReport(
        wait_status=0, result={"ok": [1]}, cpu_user_s=1.5, cpu_system_s=0.5, max_rss_bytes=4096, forced=True
    )
    life = living("draining")
    (finish,) = life.handle(Drained(report, totals), later(2))
    assert isinstance(finish, Finish)
    outcome = finish.outcome
    assert isinstance(outcome, Outcome)
    assert (outcome.cost_usd, outcome.tokens) == (0.25, Tokens(input=10, output=3))
    assert outcome.diffs == [DiffStat(file="a", plus=1, minus=2)]
    assert outcome.result == {"ok": [1]}
    assert outcome.forced
    assert outcome.usage is not None
    assert (outcome.usage.cpu_user_s, outcome.usage.cpu_system_s, outcome.usage.max_rss_bytes) == (1.5, 0.5, 4096)


def test_what_never_began_took_no_time_and_used_nothing() -> None:
    (finish,) = living("queued").handle(InterruptAsked(), later(100))
    assert isinstance(finish, Finish)
    assert (finish.outcome.status, finish.outcome.duration_ms, finish.outcome.usage) == ("interrupted", 0, None)
    assert not finish.began


def test_a_clock_that_was_set_back_gives_no_negative_duration() -> None:
    life = living("draining")
    (finish,) = life.handle(Drained(None, Totals()), Now(START.mono + 5, START.wall - 3600))
    assert isinstance(finish, Finish)
    assert finish.outcome.duration_ms == 0


@pytest.mark.parametrize(
    ("wait_status", "code", "number"),
    [(0, 0, None), (7 << 8, 7, None), (255 << 8, 255, None), (9, None, 9), (11 | 0x80, None, 11), (0x137F, None, None)],
    ids=["exited 0", "exited 7", "exited 255", "killed", "killed with a core", "stopped, which is no end"],
)
def test_wait_statuses_are_read_as_the_kernel_writes_them(
    wait_status: int, code: int | None, number: int | None
) -> None:
    assert (exit_code(wait_status), ended_by(wait_status)) == (code, number)


# ── what the monitor has said ──


def test_a_monitor_that_ends_a_run_itself_is_told_nothing() -> None:
    life = living("running")
    asked: tuple[Status, str] = ("out_of_memory", "it used too much")
    assert life.handle(LimitReached(*asked, told=True), START) == [Save(RUN, {"status": "stopping", "asked": asked})]
    assert life.due == START.mono + 10 + KILL_MARGIN_S
    assert life.handle(InterruptAsked("now", grace=0.0), later(1)) == [Tell(RUN, "now", 0.0)]


@pytest.mark.parametrize("asked", [None, InterruptAsked("enough"), LimitReached("over_budget", "too dear")])
def test_the_limit_in_a_report_was_reached_before_anybody_asked(asked: RunInput | None) -> None:
    life = living("running")
    if asked is not None:
        life.handle(asked, START)
    life.handle(Exited(KILLED_9), START)
    report = ExitReport(wait_status=KILLED_9, forced=True, told=True, limit=("out_of_memory", "it used too much"))
    (finish,) = life.handle(Drained(report, Totals()), START)
    assert isinstance(finish, Finish)
    assert (finish.outcome.status, finish.outcome.reason) == ("out_of_memory", "it used too much")
    assert (finish.error, finish.outcome.signal) == ("it used too much", 9)
