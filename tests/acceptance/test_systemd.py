"""A real `systemd --user` keeps the supervisor: it starts, restarts, watches and ends it, and the runs with it or without."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import sparrow_mp
from tests.support.house import Done
from tests.support.seat import Seat, needs_systemd
from tests.support.waiting import eventually

pytestmark = needs_systemd

QUICK = "[Service]\nWatchdogSec=4\nRestartSec=100ms\n"


@pytest.fixture(scope="module")
def booted() -> Iterator[Seat]:
    seat = Seat()
    try:
        seat.sparrow("service", "install").ok()
        seat.drop_in(QUICK)
        yield seat
    finally:
        seat.close()


@pytest.fixture
def seat(booted: Seat) -> Iterator[Seat]:
    """Nothing runs when a test begins, and nothing is left when it has ended."""
    yield booted
    booted.systemctl("stop", "sparrow", "sparrow-runs").ok()
    eventually(booted.is_still, what="the end of both units")


def begin(seat: Seat, name: str, last: str = "exit 5") -> str:
    script = f"n=0; while [ $n -lt 2000 ]; do echo $n; n=$((n+1)); done; echo up; read line; echo got $line; {last}"
    run = seat.detach("--name", name, "--", "sh", "-c", script)
    seat.says(run, "up")
    return run


def main_pid(seat: Seat) -> int:
    return int(seat.shown("MainPID"))


def is_back(seat: Seat, former: int) -> bool:
    return seat.shown("ActiveState") == "active" and main_pid(seat) not in (0, former)


def finish(seat: Seat, run: str) -> None:
    """The run has lived on: it takes a message, and not one of its lines is missing."""
    seat.sparrow("inject", run, "it").ok()
    outcome = seat.outcome(run)
    assert (outcome["status"], outcome["exit_code"]) == ("failed", 5)
    assert seat.printed(run) == "".join(f"{n}\n" for n in range(2000)) + "up\ngot it\n"


def test_a_command_starts_it_through_systemd_and_stop_interrupts_the_runs(seat: Seat):
    done = seat.sparrow("run", "-d", "--name", "sleepy", "--", "sh", "-c", "sleep 1000 & echo up; wait")
    assert "through systemd" in done.ok().err
    run = done.out.strip()
    seat.says(run, "up")
    eventually(lambda: "1 running (sleepy)" in seat.systemctl("status", "sparrow").out, what="the status line")
    assert main_pid(seat) == seat.status()["pid"]
    seat.systemctl("stop", "sparrow").ok()
    assert seat.outcome(run)["status"] == "interrupted"
    eventually(seat.is_still, what="the end of the zygote's unit")
    assert seat.shown("Result") == "success"
    assert seat.shown("Result", "sparrow-runs") == "success"
    entries = seat.journal(f"SPARROW_RUN={run}")
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"sparrow"}
    assert "6" in {entry["PRIORITY"] for entry in entries}


def test_runs_live_on_over_a_restart_a_crash_and_a_hang(seat: Seat):
    run = begin(seat, "lasting")
    for how in (("restart", "sparrow"), ("kill", "-s", "KILL", "--kill-who=main", "sparrow")):
        former = main_pid(seat)
        seat.systemctl(*how).ok()
        eventually(partial(is_back, seat, former), what=f"it after {how}")
        assert seat.record(run)["status"] == "running"
    former = main_pid(seat)
    seat.systemctl("kill", "-s", "STOP", "--kill-who=main", "sparrow").ok()
    eventually(lambda: is_back(seat, former), what="a new one in place of the one that hangs")
    finish(seat, run)


def test_it_ends_without_the_runs(seat: Seat):
    run = begin(seat, "kept")
    seat.sparrow("shutdown", "--keep-runs").ok()
    eventually(lambda: seat.shown("ActiveState") == "inactive", what="its end")
    assert seat.shown("ActiveState", "sparrow-runs") == "active"
    seat.systemctl("start", "sparrow").ok()
    finish(seat, run)
    assert seat.shown("ActiveState", "sparrow-keep.target") == "inactive"
    seat.sparrow("shutdown").ok()
    eventually(seat.is_still, what="the end of both units")


def test_one_in_the_background_is_told_of_and_its_runs_are_taken_over(seat: Seat):
    """It may be there from before the units were installed."""
    seat.inside("sh", "-c", "setsid sparrow supervisor >/dev/null 2>&1 &").ok()
    eventually(lambda: seat.sparrow("status").code == 0, what="the one in the background")
    run = begin(seat, "earlier")
    assert seat.shown("ActiveState") == "inactive"
    assert "runs in the background already" in seat.sparrow("service", "install").ok().err
    seat.sparrow("service", "install", "--now").refused(1, "sparrow shutdown --keep-runs")
    seat.sparrow("shutdown", "--keep-runs").ok()
    assert "started" in seat.sparrow("service", "install", "--now").ok().out
    finish(seat, run)


def test_one_that_cannot_start_says_why_and_ends_no_run(seat: Seat):
    run = begin(seat, "patient")
    good = (seat.home / ".config/sparrow/config.toml").read_text()
    seat.configure(good + "[supervisor]\nmax_rums = 3\n")
    assert seat.systemctl("restart", "sparrow").code != 0
    eventually(lambda: "max_rums" in seat.systemctl("status", "sparrow").out, what="the reason")
    eventually(lambda: "max_rums" in seat.sparrow("service", "status").out, what="the reason")
    seat.configure(good)
    eventually(lambda: seat.shown("ActiveState") == "active", what="it with the right settings")
    finish(seat, run)


def test_a_reload_takes_up_the_settings(seat: Seat):
    seat.systemctl("start", "sparrow").ok()
    former = main_pid(seat)
    path = seat.home / ".config/sparrow/config.toml"
    good = path.read_text()
    seat.configure(good + "[supervisor]\nmax_runs = 'many'\n")
    seat.systemctl("reload", "sparrow").ok()
    eventually(lambda: "max_runs" in "\n".join(seat.status()["problems"]), what="the problem")
    seat.configure(good)
    seat.systemctl("reload", "sparrow").ok()
    eventually(lambda: not seat.status()["problems"], what="its end")
    assert any("SIGHUP" in str(entry["MESSAGE"]) for entry in seat.journal(f"_PID={former}") or [])
    assert main_pid(seat) == former


def test_the_unit_of_the_runs_leaves_nothing(seat: Seat):
    run = seat.detach("--", "sh", "-c", "setsid sleep 1000 & trap '' TERM; echo up; while :; do sleep 0.1; done")
    seat.says(run, "up")
    seat.sparrow("kill", "--grace", "0.2", run).ok()
    other = begin(seat, "other")
    seat.systemctl("stop", "sparrow-runs").ok()
    assert seat.outcome(other)["status"] == "interrupted"
    eventually(lambda: seat.shown("ActiveState") == "inactive", what="its end")
    eventually(seat.is_still, what="the end of both units")


def test_a_zygote_that_dies_is_replaced_and_its_runs_are_told(seat: Seat):
    run = begin(seat, "unlucky")
    seat.systemctl("kill", "-s", "KILL", "--kill-who=main", "sparrow-runs").ok()
    assert seat.outcome(run)["status"] in ("interrupted", "crashed", "lost", "failed")
    eventually(lambda: seat.shown("ActiveState", "sparrow-runs") == "active", what="a new zygote")
    eventually(lambda: seat.shown("ActiveState") == "active", what="its supervisor")
    finish(seat, begin(seat, "lucky"))


def test_the_runs_have_cgroups_of_their_own(seat: Seat):
    run = begin(seat, "apart")
    top = seat.cgroup / seat.shown("ControlGroup", "sparrow-runs").lstrip("/")
    assert (top / f"sparrow-{run}" / "cgroup.procs").read_text()
    assert (top / "cgroup.procs").read_text() == ""
    for controller in set((top / "cgroup.controllers").read_text().split()) & {"memory", "pids"}:
        assert controller in (top / f"sparrow-{run}" / "cgroup.controllers").read_text().split()
    finish(seat, run)
    eventually(lambda: not (top / f"sparrow-{run}").exists(), what="the end of its cgroup")


class Release:
    """Another version of sparrow, in a virtual environment of its own."""

    def __init__(self, seat: Seat, version: str) -> None:
        self._seat = seat
        folder = seat.top / f"v{version}"
        sources = Path(__file__).parents[2]
        for package in ("sparrow_mp", "supervisor/sparrow_supervisor", "systemd"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(sources / package, folder / "lib" / Path(package).name, ignore=ignored)
        file = folder / "lib" / "sparrow_mp" / "_version.py"
        file.write_text(file.read_text().replace(sparrow_mp.__version__, version))
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=60)
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        others = Path(sys.prefix, "lib", site.parent.name, "site-packages")
        (site / "sparrow.pth").write_text(f"{folder / 'lib'}\n{others}\n")
        self._python = str(folder / "venv" / "bin" / "python")

    def sparrow(self, *args: str) -> Done:
        return self._seat.inside(self._python, "-P", "-m", "sparrow_mp.cli", *args)


def test_an_upgrade_keeps_the_runs_and_starts_new_ones_with_the_new_version(seat: Seat):
    run, former = begin(seat, "elder"), seat.status()
    release = Release(seat, "99.0.0")
    release.sparrow("service", "install").ok()
    seat.systemctl("restart", "sparrow").ok()
    now = seat.status()
    assert (now["version"], former["version"]) == ("99.0.0", sparrow_mp.__version__)
    younger = begin(seat, "younger")
    assert now["zygote_pid"] != former["zygote_pid"]
    finish(seat, run)
    eventually(lambda: int(seat.shown("MainPID", "sparrow-runs")) == now["zygote_pid"], what="the heir")
    seat.systemctl("restart", "sparrow").ok()
    finish(seat, younger)
    seat.sparrow("service", "install").ok()
    last = begin(seat, "back")
    seat.systemctl("restart", "sparrow").ok()
    assert seat.status()["version"] == sparrow_mp.__version__
    finish(seat, last)
