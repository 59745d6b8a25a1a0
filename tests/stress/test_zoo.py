"""L1 and L2: whatever a run starts and however it ends, nothing of it is left; and nobody else is touched."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.control import ask
from tests.support.house import House
from tests.support.stress import scaled
from tests.support.waiting import eventually
from tests.support.zoo import ADVERSARIES, CAN_BUILD, PATIENT, Trial, begin, build, bystanders, up

pytestmark = [pytest.mark.stress, pytest.mark.skipif(not CAN_BUILD, reason="needs a C compiler (gcc, libc6-dev)")]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("zoo"))


def killed(trial: Trial, now: bool) -> None:
    how = {"now": True} if now else {"grace": 0.1}
    assert ask(trial.house, {"op": "interrupt", "run": trial.run, **how})["ok"]


@pytest.mark.parametrize("adversary", PATIENT)
def test_nothing_is_left_after_a_kill(house: House, zoo: Path, adversary: str, figure) -> None:
    trials = scaled(10)
    with bystanders(house):
        for number in range(trials):
            trial = up(begin(house, zoo, adversary))
            assert trial.left(), "nobody was there"
            if number == 0:
                house.sparrow("kill", "--now", trial.run).ok()
            else:
                killed(trial, now=bool(number % 2))
            outcome = house.outcome(trial.run)
            assert trial.left() == []
            assert outcome["status"] == "interrupted"
            assert outcome["forced"]
            trial.away()
    figure(f"L1: {adversary}: killed {trials} times: 0 processes left, 0 bystanders harmed")


def exits(trial: Trial) -> str:
    trial.give_cue("exit")
    return "completed"


def crashes(trial: Trial) -> str:
    trial.give_cue("abort")
    return "crashed"


def loses_its_monitor(trial: Trial) -> str:
    processes.kill(trial.house.monitor_of(trial.run), signal.SIGKILL)
    return "crashed"


ENDINGS: dict[str, Callable[[Trial], str]] = {
    "its main process exits": exits,
    "its main process crashes": crashes,
    "its monitor is killed": loses_its_monitor,
}


@pytest.mark.parametrize("adversary", PATIENT)
def test_nothing_is_left_when_a_run_ends_otherwise(house: House, zoo: Path, adversary: str, figure) -> None:
    trials = scaled(10)
    with bystanders(house):
        for number in range(trials):
            ending = list(ENDINGS.values())[number % len(ENDINGS)]
            trial = up(begin(house, zoo, adversary))
            status = ending(trial)
            outcome = house.outcome(trial.run)
            assert trial.left() == [], ending
            assert outcome["status"] == status, (ending, outcome)
            trial.away()
    figure(f"L2: {adversary}: ended otherwise {trials} times: 0 processes left, 0 bystanders harmed")


def test_nothing_is_left_of_what_kills_its_monitor(house: House, zoo: Path, figure) -> None:
    trials = scaled(10)
    with bystanders(house):
        for _ in range(trials):
            trial = up(begin(house, zoo, "killer"))
            assert house.outcome(trial.run)["status"] == "crashed"
            assert trial.left() == []
            trial.away()
    figure(f"L2: killer: killed its monitor {trials} times: 0 processes left, 0 bystanders harmed")


def test_nothing_is_left_of_what_stops_its_monitor(house: House, zoo: Path, figure) -> None:
    """It takes as long as a monitor is given, and so is not done as often."""
    trials = scaled(2)
    with bystanders(house):
        for _ in range(trials):
            trial = up(begin(house, zoo, "stopper"))
            monitor = house.monitor_of(trial.run)
            eventually(lambda: processes.state(monitor) == "T", what="its monitor's stop")  # noqa: B023  called here only
            killed(trial, now=True)
            assert house.outcome(trial.run)["status"] == "interrupted"
            assert trial.left() == []
            trial.away()
    figure(f"L1: stopper: stopped its monitor and was killed {trials} times: 0 processes left, 0 bystanders harmed")


@pytest.mark.parametrize("word", ["exit", "abort"])
def test_nothing_is_left_where_the_supervisor_is_gone(house: House, zoo: Path, word: str, figure) -> None:
    trials = scaled(3)
    for _ in range(trials):
        with bystanders(house):
            loose = [up(begin(house, zoo, adversary)) for adversary in PATIENT]
            house.kill_supervisor()
            for trial in loose:
                trial.give_cue(word)
            eventually(lambda: all(not trial.left() for trial in loose), 30, "their end")  # noqa: B023  called here only
            house.start()
            for trial in loose:
                assert house.outcome(trial.run)["status"] == {"exit": "completed", "abort": "crashed"}[word]
                trial.away()
    figure(f"L2: {len(PATIENT)} adversaries, no supervisor, {word}: {trials} times: 0 processes left")


def replace_zygote(house: House) -> None:
    zygote = house.status()["zygote_pid"]
    processes.kill(zygote)
    eventually(lambda: house.status()["zygote_pid"] not in (zygote, None), what="another zygote")


def test_nothing_is_left_where_the_zygote_is_gone(house: House, zoo: Path, figure) -> None:
    trials = scaled(3)
    for _ in range(trials):
        with bystanders(house):
            loose = [up(begin(house, zoo, adversary)) for adversary in PATIENT]
            replace_zygote(house)
            for trial in loose:
                killed(trial, now=False)
            for trial in loose:
                assert house.outcome(trial.run)["status"] == "interrupted"
                assert trial.left() == []
                trial.away()
    figure(f"L2: {len(PATIENT)} adversaries, no zygote, killed: {trials} times: 0 processes left")


def test_the_zoo_is_complete(zoo: Path) -> None:
    """What the program knows and what is tested are the same."""
    said = subprocess.run([str(zoo)], capture_output=True, text=True, timeout=10)
    assert tuple(said.stdout.split()) == ADVERSARIES
