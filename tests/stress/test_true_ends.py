"""Promise N4: every accepted run ends once, with its true status, whoever is killed meanwhile."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import driver, processes
from tests.support.failpoints import ENGINE, check_run, inject
from tests.support.house import House
from tests.support.stress import Figure, scaled
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress

ENDS: dict[str, set[tuple[str, int | None, int | None]]] = {
    "0": {("completed", 0, None)},
    "7": {("failed", 7, None)},
    "k": {("crashed", None, 9)},
    "m": {("crashed", None, 9)},
}
BLIND = {("lost", None, None)}
"""A monitor that is killed while neither a zygote nor a supervisor is there to see it."""


@contextmanager
def submitting(house: House, count: int, seed: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(driver.__file__)), str(count), str(seed)]
    process = subprocess.Popen(
        command, env=house.env, cwd=house.work, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.kill()
        process.wait()


def told(house: House) -> dict[str, Any]:
    try:
        return json.loads(house.places.address_file.read_bytes())
    except (OSError, ValueError):
        return {}


def strike(house: House, name: str) -> bool:
    """SIGKILL one of the house's own processes, where it is there; whether it was."""
    victim = told(house).get(name)
    if victim and processes.title(victim).startswith("sparrow"):
        processes.kill(victim)
        return True
    return False


@pytest.mark.parametrize("others", [[], ["zygote_pid", "adapters_pid"]], ids=["the supervisor", "all of them"])
def test_n4_every_run_ends_once_and_is_told_truly(house: House, figure: Figure, others: list[str]) -> None:
    chance = random.Random(9)
    count, kills = scaled(1000), scaled(150)
    house.start()
    expected: dict[str, str] = {}
    killed = dict.fromkeys(["pid", *others], 0)
    with submitting(house, count, 1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        output = process.stdout

        def read() -> None:
            for line in output:
                run, how = json.loads(line)
                expected[run] = how

        reading = threading.Thread(target=read)
        reading.start()
        share = -(-count // kills)
        while killed["pid"] < kills:
            process.stdin.write(f"{share}\n")
            process.stdin.flush()
            before = len(expected)
            eventually(lambda: len(expected) > before or len(expected) >= count, 40, "a run that is accepted")  # noqa: B023  asked in this turn
            if not house.supervised:
                house.sparrow("ps").ok()
            for name in [*others, "pid"]:
                if name == "pid" or chance.random() < 0.3:
                    killed[name] += strike(house, name)
        process.stdin.write(f"{count}\n")
        process.stdin.close()
        reading.join(120)
        assert process.wait(60) == 0
    house.start()
    wrong: list[Any] = []
    blind = 0
    for run, how in expected.items():
        outcome = house.outcome(run, timeout=60)
        truth = (outcome["status"], outcome.get("exit_code"), outcome.get("signal"))
        if how == "m" and others and truth in BLIND:
            blind += 1
        elif truth not in ENDS[how]:
            wrong.append((run, how, outcome))
    ran = {path.name: len(path.read_text().splitlines()) for path in house.work.glob("ran-*")}
    twice = [name for name, times in ran.items() if times != 1]
    accepted = {row["run"] for row in house.ps()}
    who = ", ".join(f"{number} of the {name.removesuffix('_pid')}" for name, number in killed.items()).replace(
        "the pid", "the supervisor"
    )
    unseen = f", {blind} lost because nobody was left to see" if blind else ""
    figure(f"N4: {len(expected)} runs, kills: {who}: {len(wrong)} wrong ends, {len(twice)} ran twice{unseen}")
    assert wrong == []
    assert twice == []
    assert len(ran) == len(expected) == len(accepted) == count


WHO = ["supervisor", "zygote", "adapters", "monitor", "engine"]


def test_n4_killed_in_every_order(house: House, figure: Figure) -> None:
    """All five, in each of the 120 orders: the run is told to have crashed, or lost where none was left who could know."""
    chance = random.Random(5)
    house.write("engine.py", ENGINE)
    orders = list(itertools.permutations(WHO))
    chance.shuffle(orders)
    orders = orders[: scaled(len(orders))]
    lost = 0
    for order in orders:
        house.start()
        status = house.status()
        run = house.detach("-e", "python", "engine.py:work")
        engine = house.pid_of(run)
        pids = {
            "supervisor": status["pid"],
            "zygote": status["zygote_pid"],
            "adapters": status["adapters_pid"],
            "monitor": house.monitor_of(run),
            "engine": engine,
        }
        known = False
        for number, who in enumerate(order):
            if not {"supervisor", "zygote"} <= set(order[:number]):
                known = (house.places.run_folder(run) / "reaped").exists()
            processes.kill(pids[who])
            if chance.random() < 0.5:
                eventually(lambda: not processes.alive(pids[who]), what=f"the death of the {who}")  # noqa: B023  asked in this turn
        eventually(lambda: not any(map(processes.alive, pids.values())), what="the death of all")  # noqa: B023  asked in this turn
        house.sparrow("ps").ok()
        outcome = check_run(house, run, [])
        lost += outcome["status"] == "lost"
        if outcome["status"] != "lost":
            assert (outcome["status"], outcome["signal"]) == ("crashed", 9), order
        else:
            assert not known, order
    run = house.detach("-e", "python", "engine.py:work")
    assert check_run(house, run, inject(house, run))["status"] == "completed"
    figure(f"N4: {len(orders)} orders of killing {', '.join(WHO)}: 0 wrong ends, {lost} lost because nobody was left")
