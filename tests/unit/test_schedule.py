"""What the core of the schedules decides, with a clock that a test turns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sparrow_mp.cron import Cron
from sparrow_mp.job_memory import Firing, Remembered
from sparrow_supervisor.core.schedule import Fire, Interrupt, Rule, Schedule

pytestmark = pytest.mark.unit

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC).timestamp()
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Sim:
    """A supervisor without anything: a clock, runs, a schedule, and what survives a crash."""

    def __init__(self, *rules: Rule, now: float = NOON + 1) -> None:
        self.now = now
        self.rules = list(rules)
        self.runs: dict[str, tuple[float, str]] = {}
        self.live: dict[str, str] = {}
        self.interrupted: list[str] = []
        self.refusing = ""
        self.saved = msgspec.json.encode(Remembered(seed="seed"))
        self.restart()

    def restart(self) -> None:
        self.core = Schedule(msgspec.json.decode(self.saved, type=Remembered))
        self.core.change(self.rules, self.now)
        for run, job in self.live.items():
            self.core.found(job, run)
        self.save()

    def save(self) -> None:
        self.saved = msgspec.json.encode(self.core.remembered)

    def change(self, *rules: Rule) -> None:
        self.rules = list(rules)
        self.core.change(self.rules, self.now)
        self.save()

    def do(self, effects: list[Any] | str, crash: str = "") -> None:
        assert not isinstance(effects, str), effects
        if crash == "decided":
            return
        self.save()
        for effect in effects:
            if isinstance(effect, Interrupt):
                self.interrupted.append(effect.run)
                continue
            assert isinstance(effect, Fire)
            if self.refusing:
                passes = self.refusing == "passes"
                self.core.failed(effect.job, effect.firing, "it was refused", self.now, passes=passes)
                continue
            assert effect.firing.run not in self.runs, "a second run of one firing"
            self.runs[effect.firing.run] = (self.now, effect.firing.why)
            self.live[effect.firing.run] = effect.job
            if crash == "submitted":
                return
            self.core.fired(effect.job, effect.firing, self.now)
        self.save()

    def tick(self, crash: str = "") -> None:
        self.do(self.core.tick(self.now, self.runs.__contains__), crash)

    def go(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass, with a look at every moment that matters."""
        until = self.now + seconds
        while self.now < until:
            due = self.core.next_due
            self.now = min(until, max(self.now + 0.001, min(due if due is not None else until, self.now + step * 1000)))
            self.tick()

    def end(self, run: str | None = None) -> None:
        for each in [run] if run else list(self.live):
            job = self.live.pop(each)
            self.core.ended(job, each, self.now)
        self.tick()

    @property
    def whys(self) -> list[str]:
        return [why for _, why in self.runs.values()]

    @property
    def reason(self) -> str:
        found = self.core.memory("j").not_fired
        return found.reason if found is not None else ""


def every(line: str = "* * * * *", **more: Any) -> Rule:
    return Rule("j", Cron(line, UTC), fingerprint=line, **{"overlap": "allow", **more})


def test_it_fires_at_each_of_its_moments() -> None:
    sim = Sim(every())
    sim.go(10 * MINUTE)
    assert [at for at, _ in sim.runs.values()] == [NOON + n * MINUTE for n in range(1, 11)]


def test_nothing_is_missed_by_a_restart_and_nothing_fires_twice() -> None:
    sim = Sim(every())
    sim.go(MINUTE)
    sim.now += 45
    sim.restart()
    sim.tick()
    sim.tick()
    assert len(sim.runs) == 1
    sim.now += 20
    sim.restart()
    sim.tick()
    assert sim.whys == ["cron", "cron"]
    assert sim.reason == ""


@pytest.mark.parametrize("crash", ["decided", "submitted"])
@pytest.mark.parametrize("away", [0.5, DAY])
@pytest.mark.parametrize("missed", ["skip", "once"])
def test_a_crash_while_firing(crash: str, away: float, missed: str) -> None:
    sim = Sim(every("@daily", missed=missed), now=NOON)
    sim.now += 12 * HOUR
    sim.tick(crash)
    sim.now += away - (10 if away == DAY else 0)
    sim.restart()
    sim.tick()
    sim.tick()
    lost = crash == "decided" and away == DAY and missed == "skip"
    assert len(sim.runs) == (0 if lost else 1)
    assert ("missed" in sim.reason) is lost


@pytest.mark.parametrize(("missed", "runs"), [("skip", []), ("once", ["missed"])])
@pytest.mark.parametrize("line", ["0 3 * * *", "0 * * * *", "*/7 * * * *", "0 0 1 1 *"])
def test_a_year_without_a_supervisor(missed: str, runs: list[str], line: str) -> None:
    sim = Sim(every(line, missed=missed))
    sim.now += 365.25 * DAY + 150
    sim.restart()
    sim.tick()
    sim.tick()
    assert sim.whys == runs
    assert ("missed" in sim.reason) is (missed == "skip")
    sim.runs.clear()
    sim.go(366 * DAY if line.endswith("1 1 *") else DAY)
    assert set(sim.whys) == {"cron"}


@pytest.mark.parametrize(("missed", "runs"), [("skip", []), ("once", ["missed"])])
def test_the_clock_jumps_forward_or_the_machine_sleeps(missed: str, runs: list[str]) -> None:
    sim = Sim(every("0 * * * *", missed=missed))
    sim.now += 5 * HOUR + 10 * MINUTE
    sim.tick()
    assert sim.whys == runs
    sim.go(HOUR)
    assert sim.whys == [*runs, "cron"]


@pytest.mark.parametrize("back", [30.0, 90.0, 2 * HOUR, 400 * DAY])
def test_the_clock_is_set_back(back: float) -> None:
    """What has had its run has it; what comes again and had none fires."""
    sim = Sim(every("*/10 * * * *"))
    sim.go(3 * HOUR)
    assert len(sim.runs) == 18
    sim.now -= back
    before = sim.now
    sim.go(min(back, DAY / 2) + 10 * MINUTE)
    new = [at for at, _ in sim.runs.values()][18:]
    assert all(at % 600 == 0 for at in new)
    assert len(new) == (1 if back < DAY else 73)
    assert back < DAY or new[0] <= before + 10 * MINUTE


def test_a_clock_that_was_years_ahead() -> None:
    sim = Sim(every(), now=NOON + 20 * 365 * DAY)
    sim.go(5 * MINUTE)
    sim.runs.clear()
    sim.now = NOON
    sim.tick()
    sim.go(3 * MINUTE)
    assert len(sim.runs) == 3


def test_a_new_cron_line_begins_now() -> None:
    sim = Sim(every("0 * * * *", missed="once"))
    sim.change(every("30 11 * * *", missed="once"))
    sim.tick()
    assert not sim.runs
    sim.change(Rule("other", Cron("* * * * *", UTC), fingerprint="x"))
    sim.now += HOUR
    sim.change(every("30 11 * * *", missed="once"))
    sim.tick()
    assert not sim.runs


def test_a_pause_forgets_what_passes_meanwhile() -> None:
    sim = Sim(every(missed="once", paused=True))
    sim.go(HOUR)
    assert sim.core.next_of("j") is None
    sim.change(every(missed="once"))
    sim.tick()
    assert not sim.runs
    sim.go(MINUTE)
    assert sim.whys == ["cron"]


# ── overlap ──


def test_overlap_skip_says_which_run_went_on() -> None:
    sim = Sim(every(overlap="skip"))
    sim.go(3 * MINUTE)
    (run,) = sim.runs
    assert run[:8] in sim.reason
    sim.end()
    sim.go(MINUTE)
    assert len(sim.runs) == 2


def test_overlap_queue_lets_one_wait_over_a_crash() -> None:
    sim = Sim(every(overlap="queue"))
    sim.go(4 * MINUTE)
    assert len(sim.runs) == 1
    assert "still went on" in sim.reason
    sim.restart()
    sim.end()
    assert len(sim.runs) == 2
    assert sim.core.memory("j").waiting is None
    sim.end()
    assert len(sim.runs) == 2


def test_overlap_replace_ends_the_last_one_first() -> None:
    sim = Sim(every(overlap="replace"))
    sim.go(2 * MINUTE)
    assert len(sim.runs) == 1
    assert sim.interrupted == list(sim.runs)
    sim.end()
    assert len(sim.runs) == 2


def test_a_crash_between_the_word_and_the_deed_replaces_all_the_same() -> None:
    sim = Sim(every("@yearly", overlap="replace"))
    sim.do(sim.core.asked("j", "a", sim.now))
    sim.core.asked("j", "b", sim.now)
    sim.save()  # that it waits is written down, and nobody has been asked to end
    sim.restart()
    sim.tick()
    assert sim.interrupted == ["a"]
    sim.tick()
    assert sim.interrupted == ["a"], "once"
    sim.end()
    assert list(sim.runs) == ["a", "b"]


def test_a_rule_that_becomes_replace_ends_what_a_firing_waits_for() -> None:
    sim = Sim(every("@yearly", overlap="queue"))
    sim.do(sim.core.asked("j", "a", sim.now))
    sim.do(sim.core.asked("j", "b", sim.now))
    sim.change(every("@yearly", overlap="replace"))
    sim.tick()
    assert sim.interrupted == ["a"]


def test_overlap_allow_runs_them_all() -> None:
    sim = Sim(every())
    sim.go(3 * MINUTE)
    assert len(sim.live) == 3


# ── somebody says so ──


def test_fire_now() -> None:
    sim = Sim(every("@yearly", overlap="skip", paused=True))
    sim.do(sim.core.asked("j", "a", sim.now))
    assert list(sim.runs) == ["a"]
    refused = sim.core.asked("j", "b", sim.now)
    assert isinstance(refused, str)
    assert "goes on" in refused


def test_fire_now_waits_where_the_job_queues_though_it_is_paused() -> None:
    sim = Sim(every("@yearly", overlap="queue", paused=True))
    sim.do(sim.core.asked("j", "a", sim.now))
    sim.do(sim.core.asked("j", "b", sim.now))
    assert list(sim.runs) == ["a"]
    assert isinstance(sim.core.asked("j", "c", sim.now), str)
    sim.end()
    assert list(sim.runs) == ["a", "b"]


def test_a_crash_between_saying_so_and_the_run() -> None:
    sim = Sim(every("@yearly"))
    effects = sim.core.asked("j", "a", sim.now)
    sim.save()
    assert effects
    sim.restart()
    sim.tick()
    assert list(sim.runs) == ["a"]


# ── what cannot become a run ──


def test_a_reason_that_passes_is_waited_for() -> None:
    sim = Sim(every("@daily"))
    sim.refusing = "passes"
    sim.go(12 * HOUR + MINUTE)
    assert "tried again" in sim.reason
    sim.restart()
    sim.refusing = ""
    sim.go(MINUTE)
    assert sim.whys == ["cron"]


def test_a_reason_that_stays_is_told() -> None:
    sim = Sim(every("@daily"))
    sim.refusing = "stays"
    sim.go(13 * HOUR)
    assert sim.reason == "it was refused"
    sim.refusing = ""
    sim.go(HOUR)
    assert not sim.runs


# ── files ──


def watcher(**more: Any) -> Rule:
    return Rule("j", None, **more)


def changed(sim: Sim, run: str, at: float | None = None) -> None:
    sim.do(sim.core.changed("j", run, sim.now if at is None else at, sim.now))


def test_files_that_change_fire_it() -> None:
    sim = Sim(watcher())
    changed(sim, "a")
    sim.end()
    sim.now += 1
    changed(sim, "b")
    assert list(sim.runs) == ["a", "b"]


def test_what_changed_before_the_run_began_is_no_news() -> None:
    sim = Sim(watcher(overlap="queue"))
    changed(sim, "a")
    sim.now += 1
    changed(sim, "b", at=sim.now - 2)
    assert sim.core.memory("j").waiting is None


@pytest.mark.parametrize(("overlap", "runs"), [("skip", 1), ("queue", 2), ("replace", 2), ("allow", 2)])
@pytest.mark.parametrize("late", [False, True])
def test_a_run_that_writes_into_what_it_watches_does_not_go_on_for_ever(overlap: str, runs: int, late: bool) -> None:
    sim = Sim(watcher(overlap=overlap))
    changed(sim, "0")
    for n in range(1, 10):
        if not sim.live:
            break
        sim.now += 1
        written = sim.now
        if late:
            sim.now += 1
            sim.end()
            sim.now += 0.3
        changed(sim, f"{n}", at=written)
        if not late:
            sim.now += 1
            sim.end(next(iter(sim.live)))
    assert len(sim.runs) == runs
    assert ("for ever" in sim.reason) or ("its own run" in sim.reason)
    sim.now += 5
    changed(sim, "someone")
    assert "someone" in sim.runs


def test_a_paused_job_does_not_look() -> None:
    sim = Sim(watcher(paused=True))
    changed(sim, "a")
    assert not sim.runs


def test_a_crash_between_a_change_and_its_run() -> None:
    sim = Sim(watcher())
    assert sim.core.changed("j", "a", sim.now, sim.now)
    sim.save()
    sim.restart()
    sim.tick()
    assert list(sim.runs) == ["a"]


# ── all of it, in any order ──


class Anything(RuleBasedStateMachine):
    """Whatever happens in whatever order: no moment has two runs, and one that comes while somebody is there has one."""

    def __init__(self) -> None:
        super().__init__()
        self.sim = Sim(every("*/5 * * * *", missed="once", overlap="allow"))

    @rule(seconds=st.floats(0.01, 700.0))
    def pass_time(self, seconds: float) -> None:
        self.sim.go(seconds)

    @rule(seconds=st.floats(-20000.0, 90000.0))
    def jump(self, seconds: float) -> None:
        self.sim.now += seconds

    @rule(crash=st.sampled_from(["", "decided", "submitted"]))
    def crash(self, crash: str) -> None:
        self.sim.tick(crash)
        self.sim.restart()

    @rule(overlap=st.sampled_from(["skip", "queue", "replace", "allow"]), missed=st.sampled_from(["skip", "once"]))
    def edit(self, overlap: str, missed: str) -> None:
        self.sim.change(every("*/5 * * * *", missed=missed, overlap=overlap))

    @precondition(lambda self: self.sim.live)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.sim.end(data.draw(st.sampled_from(sorted(self.sim.live))))

    @invariant()
    def the_next_moment_is_kept(self) -> None:
        due = self.sim.core.next_due
        assert due is not None


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_the_same_moment_has_the_same_run() -> None:
    one, two = Sim(every()), Sim(every())
    one.go(MINUTE)
    two.go(MINUTE)
    assert list(one.runs) == list(two.runs)
    assert Firing(run="x", why="cron", due=1.0) == Firing(run="x", why="cron", due=1.0)
