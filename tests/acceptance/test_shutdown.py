"""A clean end: everything is gone when it is told, and with --keep-runs the next supervisor takes over."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support import processes
from tests.support.control import ask
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

POLITE = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.02; done"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.02; done"
PATIENT = "[run]\ngrace = 60\n"
"""However slow the machine is, what ends before that was not waited for."""


def start(house: House, script: str) -> str:
    run = house.detach("--", "sh", "-c", script)
    house.says(run, "up")
    return run


def test_shutdown_interrupts_every_run_and_returns_when_all_is_gone(house: House):
    runs = [start(house, POLITE) for _ in range(3)]
    house.sparrow("shutdown").ok()
    assert house.processes() == []
    for run in runs:
        outcome = house.outcome(run)
        assert outcome["status"] == "interrupted"
        assert "shutting down" in outcome["reason"]
        assert "asked" in house.printed(run)
    assert list(house.runtime.rglob("*.sock")) == []
    assert not house.places.unix_socket.exists()
    assert not house.places.address_file.exists()


def test_shutdown_now_does_not_ask(house: House):
    house.configure(PATIENT)
    run = start(house, STUBBORN)
    began = time.monotonic()
    house.sparrow("shutdown", "--now").ok()
    assert time.monotonic() - began < 30
    assert house.processes() == []
    assert house.outcome(run)["forced"] is True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_clean_end(house: House, number: int):
    with house.supervisor() as going:
        run = start(house, POLITE)
        going.signal(number)
        done = going.wait()
    assert done.code == 0
    assert "Traceback" not in done.err
    assert house.outcome(run)["status"] == "interrupted"
    assert house.processes() == []
    assert not house.places.address_file.exists()


def test_a_second_signal_kills(house: House):
    house.configure(PATIENT)
    with house.supervisor() as going:
        run = start(house, STUBBORN)
        going.signal(signal.SIGINT)
        eventually(lambda: house.record(run)["status"] == "stopping")
        began = time.monotonic()
        going.signal(signal.SIGINT)
        assert going.wait().code == 0
        assert time.monotonic() - began < 30
    assert house.outcome(run)["forced"] is True


def test_the_log_tells_the_story(house: House):
    with house.supervisor() as going:
        run = house.detach("--name", "hero", "--", "sh", "-c", "exit 7")
        house.outcome(run)
        going.signal(signal.SIGTERM)
        log = going.wait().err
    assert run in log
    for words in ("ready", "accepted", "starting", "failed with exit code 7", "SIGTERM", "ended"):
        assert words in log, words


def test_with_keep_runs_the_next_supervisor_adopts_them(house: House):
    run = start(house, "echo up; i=0; while [ ! -e gate ]; do i=$((i+1)); echo line $i; sleep 0.005; done; exit 5")
    pid = house.pid_of(run)
    zygote = house.status()["zygote_pid"]
    house.sparrow("shutdown", "--keep-runs").ok()
    assert not house.supervised
    assert processes.alive(pid)
    assert not house.places.address_file.exists()
    before = len(house.events(run))
    assert house.start()["zygote_pid"] == zygote
    assert house.record(run)["pid"] == pid
    eventually(lambda: len(house.events(run)) > before + 5)
    (house.work / "gate").touch()
    assert house.outcome(run)["exit_code"] == 5
    lines = house.printed(run).splitlines()
    assert lines == ["up", *(f"line {n}" for n in range(1, len(lines)))]


def test_what_ends_between_two_supervisors_keeps_its_end(house: House):
    run = start(house, "echo up; until [ -e gate ]; do sleep 0.01; done; exit 5")
    pid = house.pid_of(run)
    house.sparrow("shutdown", "--keep-runs").ok()
    (house.work / "gate").touch()
    eventually(lambda: not processes.alive(pid))
    house.start()
    assert house.outcome(run)["exit_code"] == 5


def test_while_it_shuts_down_it_takes_no_runs(house: House):
    house.configure(PATIENT)
    run = start(house, "trap '' TERM; echo up; until [ -e gate ]; do sleep 0.02; done")
    with house.begin("shutdown") as going:
        eventually(lambda: house.record(run)["status"] == "stopping")
        reply = ask(house, {"op": "submit", "task": "true"})
        assert reply["error"]["code"] == "shutting_down"
        house.sparrow("run", "true").refused(1, "shutting down")
        (house.work / "gate").touch()
        assert going.wait().code == 0
    assert house.processes() == []


def test_shutdown_says_nothing_to_do_where_nothing_runs(house: House):
    done = house.sparrow("shutdown")
    assert done.code == 0
    assert "nothing" in done.err
    house.sparrow("shutdown", "--now", "--keep-runs").refused(2)


def test_a_supervisor_holds_nothing_of_runs_that_have_ended(house: House):
    told = house.start()
    house.sparrow("run", "true").ok()
    # It was the spare monitor's, of which the zygote has descriptors as well. The next one is made a moment later.
    eventually(lambda: "sparrow: spare" in map(processes.title, house.processes()), what="a spare monitor")

    def held() -> list[int]:
        return [len(processes.descriptors(told[name])) for name in ("pid", "zygote_pid")]

    before = held()
    runs = [house.detach("--", "true") for _ in range(20)]
    for run in runs:
        house.outcome(run)
    eventually(
        lambda: all(now <= then for now, then in zip(held(), before, strict=True)), what="the descriptors' return"
    )
