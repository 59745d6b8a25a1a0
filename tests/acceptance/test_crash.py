"""Whoever dies: nothing is lost, nothing is left, and what is told is true."""

from __future__ import annotations

import signal

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

# Children of every kind: a plain one, one in a session of its own, one whose parent has left.
FAMILY = (
    "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo up; read line; echo got $line"
)
COUNTER = "i=0; while [ ! -e gate ]; do i=$((i+1)); echo line $i; sleep 0.002; done; echo last $i"


def family_of(house: House, pid: int, size: int) -> list[int]:
    """Everything that the run has started, once there are so many."""

    def sleepers() -> list[int]:
        return [each for each in house.processes() if each != pid and "sleep 1000" in processes.title(each)]

    eventually(lambda: len(sleepers()) >= size, what="the run's children")
    house.known.update(sleepers())
    return sleepers()


def start_family(house: House) -> tuple[str, int, list[int]]:
    run = house.detach("--", "sh", "-c", FAMILY)
    house.says(run, "up")
    pid = house.pid_of(run)
    return run, pid, family_of(house, pid, 4)


def numbers(house: House, run: str) -> list[int]:
    return [int(line.split()[1]) for line in house.printed(run).splitlines() if line.startswith("line ")]


def assert_counted(house: House, run: str) -> None:
    """Every line that the counter has printed is there, once and in order."""
    counted = numbers(house, run)
    assert counted == list(range(1, len(counted) + 1))
    assert house.printed(run).endswith(f"last {len(counted)}\n")


# ── a run's own processes ──


def test_kill_9_of_a_runs_process_is_a_crash_and_its_children_go(house: House):
    run, pid, children = start_family(house)
    processes.kill(pid)
    outcome = house.outcome(run)
    assert (outcome["status"], outcome["signal"], outcome.get("exit_code")) == ("crashed", 9, None)
    assert not [each for each in children if processes.alive(each)]
    assert house.sparrow("wait", run).code == 137


def test_kill_9_of_a_monitor_is_a_crash_and_the_engine_and_its_children_go(house: House):
    run, pid, children = start_family(house)
    processes.kill(house.monitor_of(run))
    outcome = house.outcome(run)
    assert outcome["status"] == "crashed"
    assert "monitor" in outcome["reason"]
    eventually(lambda: not [each for each in [pid, *children] if processes.alive(each)])
    assert "up" in house.printed(run)


def test_what_a_run_left_behind_is_ended_with_it_and_its_siblings_are_not(house: House):
    bystander = house.detach("--", "sh", "-c", "echo up; read line; echo got $line")
    house.says(bystander, "up")
    run, _, children = start_family(house)
    house.sparrow("inject", run, "bye").ok()
    outcome = house.outcome(run)
    assert outcome["status"] == "completed"
    assert not [each for each in children if processes.alive(each)]
    house.sparrow("inject", bystander, "still here").ok()
    assert house.outcome(bystander)["status"] == "completed"
    assert "got still here" in house.printed(bystander)


# ── the supervisor ──


def test_a_run_goes_on_when_its_supervisor_is_killed_and_the_next_command_starts_another(house: House):
    run = house.detach("--", "sh", "-c", COUNTER)
    house.says(run, "line 20\n")
    pid = house.pid_of(run)
    first = house.kill_supervisor()
    assert processes.alive(pid)
    before = len(house.events(run))
    done = house.sparrow("ps", "--json").ok()
    assert "starting one" in done.err
    assert [(row["run"], row["status"], row["pid"]) for row in done.rows()] == [(run, "running", pid)]
    assert house.status()["pid"] != first
    eventually(lambda: len(house.events(run)) > before + 20, what="new events after the restart")
    (house.work / "gate").touch()
    assert house.outcome(run)["status"] == "completed"
    assert_counted(house, run)
    assert [event["type"] for event in house.events(run)].count("RunStarted") == 1


def test_what_a_run_said_while_there_was_no_supervisor_is_recorded_by_the_next(house: House):
    script = "echo up; until [ -e gate ]; do sleep 0.01; done; seq -f 'line %.0f' 5000; touch done; read line; exit 3"
    run = house.detach("--", "sh", "-c", script)
    house.says(run, "up")
    house.kill_supervisor()
    (house.work / "gate").touch()
    eventually((house.work / "done").exists, what="5,000 lines without a supervisor")
    house.start()
    eventually(lambda: len(numbers(house, run)) == 5000, what="the lines")
    house.sparrow("inject", run, "end").ok()
    assert house.outcome(run)["exit_code"] == 3
    assert numbers(house, run) == list(range(1, 5001))


def test_runs_that_end_while_there_is_no_supervisor_keep_their_true_ends(house: House):
    script = "echo up; until [ -e gate ]; do sleep 0.01; done; echo last words; "
    ends = {"exit 0": ("completed", 0, None), "exit 7": ("failed", 7, None), "kill -11 $$": ("crashed", None, 11)}
    runs = {last: house.detach("--", "sh", "-c", script + last) for last in ends}
    for run in runs.values():
        house.says(run, "up")
    pids = [house.pid_of(run) for run in runs.values()]
    house.kill_supervisor()
    (house.work / "gate").touch()
    eventually(lambda: not any(processes.alive(pid) for pid in pids), what="the runs' ends")
    house.start()
    for last, run in runs.items():
        outcome = house.outcome(run)
        assert (outcome["status"], outcome.get("exit_code"), outcome.get("signal")) == ends[last]
        assert "last words" in house.printed(run)
        assert house.record(run)["status"] == outcome["status"]


def test_a_run_that_is_killed_while_there_is_no_supervisor_is_a_crash(house: House):
    run, pid, children = start_family(house)
    house.kill_supervisor()
    processes.kill(pid)
    eventually(lambda: not [each for each in children if processes.alive(each)], what="the children's end")
    house.start()
    outcome = house.outcome(run)
    assert (outcome["status"], outcome["signal"]) == ("crashed", 9)


def test_a_monitor_that_is_killed_while_there_is_no_supervisor_is_a_crash(house: House):
    run, pid, children = start_family(house)
    monitor = house.monitor_of(run)
    house.kill_supervisor()
    processes.kill(monitor)
    eventually(lambda: not [each for each in [pid, *children] if processes.alive(each)], what="the tree's end")
    house.start()
    assert house.outcome(run)["status"] == "crashed"


def test_who_follows_a_run_gets_all_of_it_whatever_becomes_of_the_supervisor(house: House):
    with house.begin("run", "--", "sh", "-c", COUNTER + "; exit 6") as going:
        eventually(lambda: "line 20\n" in going.out, what="output")
        house.kill_supervisor()
        house.start()
        seen = going.out.count("\n")
        eventually(lambda: going.out.count("\n") > seen + 20, what="output after the restart")
        (house.work / "gate").touch()
        done = going.wait()
    assert done.code == 6
    lines = done.out.splitlines()
    assert lines == [*(f"line {n}" for n in range(1, len(lines))), f"last {len(lines) - 1}"]


def test_an_interruption_survives_the_supervisor(house: House):
    script = "trap 'until [ -e gate ]; do sleep 0.01; done; echo tidied up; exit 0' TERM; echo up; while :; do sleep 0.02; done"
    run = house.detach("--", "sh", "-c", script)
    house.says(run, "up")
    with house.begin("kill", "--grace", "60", run, "-m", "enough of this"):
        eventually(lambda: house.record(run)["status"] == "stopping")
        house.kill_supervisor()
    house.start()
    assert house.record(run)["status"] == "stopping"
    (house.work / "gate").touch()
    outcome = house.outcome(run)
    assert (outcome["status"], outcome["reason"]) == ("interrupted", "enough of this")
    assert "tidied up" in house.printed(run)
    assert house.events(run)[-2]["message"] == "interrupted: enough of this"


def test_injections_that_were_answered_ok_are_delivered_once_whatever_becomes_of_the_supervisor(house: House):
    run = house.detach("--", "sh", "-c", "echo up; while read line; do echo got $line; done; echo end")
    house.says(run, "up")
    answered = []
    for number in range(6):
        if number % 3 == 2:
            with house.begin("inject", run, f"word-{number}") as going:
                house.kill_supervisor()
                if going.wait().code == 0:
                    answered.append(f"word-{number}")
        else:
            house.sparrow("inject", run, f"word-{number}").ok()
            answered.append(f"word-{number}")
    house.sparrow("inject", run, "--eof").ok()
    house.outcome(run)
    got = [line.removeprefix("got ") for line in house.printed(run).splitlines() if line.startswith("got ")]
    assert len(got) == len(set(got)), "something came twice"
    assert [word for word in answered if word not in got] == []
    told = [event["text"] for event in house.events(run) if event["type"] == "Message"]
    assert told == got


# ── the others ──


def test_a_zygote_that_is_killed_is_replaced_and_its_runs_are_told_truly(house: House):
    run = house.detach("--", "sh", "-c", "echo up; read line; echo got $line; exit 5")
    house.says(run, "up")
    zygote = house.status()["zygote_pid"]
    processes.kill(zygote)
    eventually(lambda: house.status()["zygote_pid"] not in (None, zygote), what="a new zygote")
    house.sparrow("run", "--", "true").ok()
    if house.record(run)["status"] == "running":
        house.sparrow("inject", run, "it").ok()
    outcome = house.outcome(run)
    assert (outcome["status"], outcome.get("exit_code")) == ("failed", 5)
    assert "got it" in house.printed(run)


def test_zygote_and_supervisor_killed_together(house: House):
    run, pid, children = start_family(house)
    zygote = house.status()["zygote_pid"]
    house.kill_supervisor()
    processes.kill(zygote)
    eventually(lambda: not processes.alive(zygote))
    assert processes.alive(pid)
    house.start()
    house.sparrow("run", "--", "true").ok()
    house.sparrow("inject", run, "it").ok()
    outcome = house.outcome(run)
    assert (outcome["status"], outcome.get("exit_code")) == ("completed", 0)
    assert "got it" in house.printed(run)
    eventually(lambda: not [each for each in children if processes.alive(each)])


def test_a_run_that_ends_with_neither_zygote_nor_supervisor_keeps_its_true_end(house: House):
    run = house.detach("--", "sh", "-c", "echo up; until [ -e gate ]; do sleep 0.01; done; exit 9")
    house.says(run, "up")
    pid, zygote = house.pid_of(run), house.status()["zygote_pid"]
    house.kill_supervisor()
    processes.kill(zygote)
    (house.work / "gate").touch()
    eventually(lambda: not processes.alive(pid))
    house.start()
    outcome = house.outcome(run)
    assert (outcome["status"], outcome.get("exit_code")) == ("failed", 9)


def test_everything_of_a_run_killed_with_nobody_to_see_it_is_lost_and_says_so(house: House):
    run = house.detach("--", "sh", "-c", "echo up; read line")
    house.says(run, "up")
    pid, monitor, zygote = house.pid_of(run), house.monitor_of(run), house.status()["zygote_pid"]
    house.kill_supervisor()
    processes.kill(zygote)
    eventually(lambda: not processes.alive(zygote))
    processes.kill(monitor)
    processes.kill(pid)
    eventually(lambda: not processes.alive(pid) and not processes.alive(monitor))
    house.start()
    outcome = house.outcome(run)
    assert outcome["status"] in ("lost", "crashed")
    assert outcome["reason"]


def test_adapters_that_are_killed_are_started_again(house: House):
    told = house.start()
    processes.kill(told["adapters_pid"])
    eventually(lambda: house.status()["adapters_pid"] != told["adapters_pid"], what="new adapters")
    eventually(lambda: house.status()["tcp"] is not None)
    house.sparrow("run", "--", "true").ok()


def test_a_stopped_engine_is_killed_all_the_same(house: House):
    run, pid, children = start_family(house)
    for each in [pid, *children]:
        processes.kill(each, signal.SIGSTOP)
    house.sparrow("kill", "--grace", "0.2", run).ok()
    assert house.outcome(run)["status"] == "interrupted"
    assert not [each for each in [pid, *children] if processes.alive(each)]
