"""Any run can be told something and asked to end; what does not end is ended, with all that it started."""

from __future__ import annotations

import time

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

POLITE = "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.02; done"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.02; done"

# Each ignores SIGTERM and does what it can not to be found. They mark themselves by what they have as $0.
ADVERSARIES = {
    "a child that ignores SIGTERM": "(trap '' TERM; exec -a MARK sleep 1000) &",
    "double fork and setsid": "(setsid bash -c \"trap '' TERM; (exec -a MARK sleep 1000) & exec -a MARK sleep 1000\" &) ; ",
    "a wiped environment": "env -i setsid /bin/bash -c 'cd /; (exec -a MARK sleep 1000 </dev/null >/dev/null 2>&1) &' &",
    "a chain of sessions": 'setsid bash -c \'setsid bash -c "setsid bash -c \\"exec -a MARK sleep 1000\\" &" &\' &',
    "stopped": "(exec -a MARK sleep 1000) & until grep -q ^MARK /proc/$!/cmdline; do sleep 0.01; done; kill -STOP $!;",
    "a guard that starts it again": "(trap '' TERM; while :; do (exec -a MARK sleep 1000); done) &",
    "a closed output": "(exec >&- 2>&- <&-; trap '' TERM; exec -a MARK sleep 1000) &",
    "many": 'for i in 1 2 3 4 5 6 7 8 9 10; do (setsid bash -c "exec -a MARK sleep 1000" &) ; done;',
}


def adversaries(mark: str) -> list[int]:
    return [pid for pid in processes.pids() if mark in processes.title(pid) and "bash" not in processes.title(pid)]


def meet(house: House, mark: str, kind: str) -> list[int]:
    """The adversaries, once they are there; they must be gone at the end."""
    expected = 10 if kind == "many" else 1
    eventually(lambda: len(adversaries(mark)) >= expected, what=kind)
    found = adversaries(mark)
    house.known.update(found)
    return found


def start(house: House, script: str, *options: str) -> str:
    run = house.detach(*options, "--", "bash", "-c", script)
    house.says(run, "up")
    return run


# ── asking ──


def test_kill_asks_and_returns_when_the_run_has_ended(shared: House):
    run = start(shared, POLITE)
    pid = shared.pid_of(run)
    shared.sparrow("kill", run).ok()
    assert not processes.alive(pid)
    outcome = shared.outcome(run)
    assert (outcome["status"], outcome["exit_code"], outcome["forced"]) == ("interrupted", 3, False)
    assert "asked" in shared.printed(run)
    assert shared.sparrow("wait", run).code == 130


def test_the_interrupters_words_are_recorded_right_before_the_end(shared: House):
    run = start(shared, POLITE)
    shared.sparrow("kill", run, "-m", "wrong branch é").ok()
    events = shared.events(run)
    assert [event["type"] for event in events[-3:]] == ["Output", "Error", "RunFinished"]
    assert events[-2]["message"] == "interrupted: wrong branch é"
    assert events[-1]["outcome"]["reason"] == "wrong branch é"
    assert "wrong branch é" in shared.sparrow("logs", run).ok().out


def test_without_words_it_is_only_interrupted(shared: House):
    run = start(shared, POLITE)
    shared.sparrow("kill", run).ok()
    assert shared.events(run)[-2]["message"] == "interrupted"


def test_what_a_run_says_while_it_ends_comes_before_its_end(shared: House):
    run = start(shared, "trap 'for i in 1 2 3 4 5; do sleep 0.05; echo tidying $i; done; exit 0' TERM; echo up;"
                        " while :; do sleep 0.02; done")  # fmt: skip
    shared.sparrow("kill", run).ok()
    assert shared.printed(run).endswith("".join(f"tidying {n}\n" for n in range(1, 6)))
    assert [event["type"] for event in shared.events(run)[-2:]] == ["Error", "RunFinished"]


def test_the_status_is_stopping_meanwhile_and_a_second_kill_does_no_harm(shared: House):
    run = start(shared, "trap '' TERM; echo up; read line; exit 0")
    with shared.begin("kill", "--grace", "60", run, "-m", "first") as going:
        eventually(lambda: shared.record(run)["status"] == "stopping")
        with shared.begin("kill", "--grace", "60", run, "-m", "second") as other:
            shared.sparrow("inject", run, "end").ok()
            assert going.wait().code == 0
            assert other.wait().code in (0, 1)
    assert shared.outcome(run)["reason"] == "first"


# ── the grace period ──


def test_what_ignores_sigterm_is_killed_after_the_grace_period(shared: House):
    run = start(shared, STUBBORN)
    began = time.monotonic()
    shared.sparrow("kill", "--grace", "0.7", run).ok()
    took = time.monotonic() - began
    assert took >= 0.7
    outcome = shared.outcome(run)
    assert (outcome["status"], outcome["forced"], outcome["signal"]) == ("interrupted", True, 9)


def test_the_grace_period_is_a_setting(house: House):
    house.configure("[run]\ngrace = 0.4\n")
    run = start(house, STUBBORN)
    began = time.monotonic()
    house.sparrow("kill", run).ok()
    assert 0.4 <= time.monotonic() - began < 10  # the default
    assert house.outcome(run)["forced"] is True


def test_kill_now_does_not_ask(shared: House):
    run = start(shared, POLITE)
    began = time.monotonic()
    shared.sparrow("kill", "--now", run).ok()
    assert time.monotonic() - began < 10  # the grace period that it does not wait for
    outcome = shared.outcome(run)
    assert (outcome["status"], outcome["forced"]) == ("interrupted", True)
    assert "asked" not in shared.printed(run)


def test_a_second_kill_can_hasten_the_first(shared: House):
    run = start(shared, STUBBORN)
    with shared.begin("kill", "--grace", "60", run) as going:
        eventually(lambda: shared.record(run)["status"] == "stopping")
        shared.sparrow("kill", "--now", run).ok()
        assert going.wait().code == 0  # long before the minute that it would wait
    assert shared.outcome(run)["forced"] is True


def test_a_run_that_is_asked_before_it_has_begun(shared: House):
    for _ in range(5):
        run = shared.detach("--", "bash", "-c", STUBBORN)
        shared.sparrow("kill", "--grace", "0.3", run).ok()
        outcome = shared.outcome(run)
        assert outcome["status"] == "interrupted"


# ── the tree ──


@pytest.mark.parametrize("kind", ADVERSARIES)
@pytest.mark.parametrize("how", ["--now", "--grace=0.2"])
def test_not_one_process_of_the_tree_is_left(shared: House, kind: str, how: str):
    mark = f"adversary-{shared.id[:8]}-{abs(hash((kind, how))):x}"
    bystander = start(shared, "echo up; read line; exit 6")
    run = start(
        shared, f"trap '' TERM; {ADVERSARIES[kind].replace('MARK', mark)} echo up; while :; do sleep 0.02; done"
    )
    found = meet(shared, mark, kind)
    shared.sparrow("kill", how, run).ok()
    assert adversaries(mark) == []
    assert not [pid for pid in found if processes.alive(pid)]
    assert shared.outcome(run)["status"] == "interrupted"
    shared.sparrow("inject", bystander, "x").ok()
    assert shared.outcome(bystander)["exit_code"] == 6


@pytest.mark.parametrize("kind", ADVERSARIES)
def test_not_one_process_is_left_by_a_run_that_ends_by_itself(shared: House, kind: str):
    mark = f"leftover-{shared.id[:8]}-{abs(hash(kind)):x}"
    run = start(shared, f"{ADVERSARIES[kind].replace('MARK', mark)} echo up; read line; exit 0")
    meet(shared, mark, kind)
    shared.sparrow("inject", run, "end").ok()
    assert shared.outcome(run)["status"] == "completed"
    assert adversaries(mark) == []


# ── runs that cannot be asked any more ──


def test_a_run_that_had_ended_is_told_and_exits_1(shared: House):
    run = shared.detach("--", "true")
    shared.outcome(run)
    shared.sparrow("kill", run).refused(1, "already ended", "completed")
    shared.sparrow("inject", run, "x").refused(1, "ended")


def test_several_at_once_of_which_one_had_ended(shared: House):
    ended = shared.detach("--", "true")
    shared.outcome(ended)
    live = [start(shared, POLITE), start(shared, POLITE)]
    shared.sparrow("kill", live[0], ended, live[1]).refused(1, ended[:8])
    assert [shared.outcome(run)["status"] for run in live] == ["interrupted", "interrupted"]


def test_one_of_several_that_does_not_exist_stops_none(shared: House):
    run = start(shared, POLITE)
    shared.sparrow("kill", run, "ffffffff-no-such").refused(3)
    assert shared.record(run)["status"] == "running"
    shared.sparrow("kill", run).ok()


def test_a_hundred_short_runs_injected_into_and_killed_at_once_all_end(shared: House):
    # The seed's races: a run that ends before it is registered, a stop that stops nothing.
    code = (
        "from sparrow_mp import Client, NotRunning\n"
        "with Client() as sparrow:\n"
        "    runs = []\n"
        "    for n in range(100):\n"
        "        run = sparrow.submit(argv=['true'] if n % 2 else ['cat'], env={})\n"
        "        runs.append(run)\n"
        "        for act in (lambda: run.inject('x'), lambda: run.interrupt('enough')):\n"
        "            try:\n"
        "                act()\n"
        "            except NotRunning:\n"
        "                pass\n"
        "    for run in runs:\n"
        "        print(run.id, run.wait(timeout=30).status)\n"
    )
    done = shared.python(code, env={"PATH": "/usr/bin:/bin"}).ok()
    lines = dict(line.split() for line in done.out.splitlines())
    assert len(lines) == 100
    assert set(lines.values()) <= {"completed", "interrupted"}
    for run in lines:
        shared.outcome(run)
