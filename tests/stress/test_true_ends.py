"""Promise N4: every accepted run ends once, with its true status, whoever is killed meanwhile."""

from __future__ import annotations

import concurrent.futures
import json
import os
import random
import threading
from typing import Any

import pytest

from tests.support import processes
from tests.support.house import House

pytestmark = pytest.mark.stress

SCALE = int(os.environ.get("SPARROW_STRESS", "1"))
"""Multiplies the numbers: 1 is for every change, 20 for a night."""

COMMAND = "echo ran >> ran-$0; sleep 0.0$2; [ $1 != k ] || kill -9 $$; exit $1"
ENDS: dict[str, tuple[str, int | None, int | None]] = {
    "0": ("completed", 0, None),
    "7": ("failed", 7, None),
    "k": ("crashed", None, 9),
}


@pytest.mark.parametrize("victims", [["pid"], ["pid", "zygote_pid"]], ids=["the supervisor", "the zygote as well"])
def test_n4_every_run_ends_once_and_is_told_truly(house: House, victims: list[str]) -> None:
    chance = random.Random(9)
    count, kills = 80 * SCALE, 10 * SCALE
    expected: dict[str, tuple[str, int | None, int | None]] = {}
    over = threading.Event()
    house.start()

    def submit(number: int) -> None:
        how = chance.choice(["0", "0", "7", "k"])
        argv = ["sh", "-c", COMMAND, f"r{number}", how, str(number % 10)]
        done = house.sparrow("run", "-d", "--name", f"r{number}", "--", *argv)
        if done.code == 0:
            expected[done.out.strip()] = ENDS[how]

    def kill_around() -> int:
        done = 0
        while done < kills and not over.wait(chance.uniform(0, 0.5)):
            try:
                told = json.loads(house.places.address_file.read_bytes())
            except (OSError, ValueError):
                continue
            victim = told[chance.choice(victims)]
            if processes.title(victim).startswith("sparrow: "):
                processes.kill(victim)
                done += 1
        return done

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        killing = pool.submit(kill_around)
        list(pool.map(submit, range(count)))
        over.set()
        killed = killing.result()
    house.start()
    wrong: list[Any] = []
    for run, truth in expected.items():
        outcome = house.outcome(run, timeout=60)
        if (outcome["status"], outcome.get("exit_code"), outcome.get("signal")) != truth:
            wrong.append((run, truth, outcome))
    ran = {path.name: len(path.read_text().splitlines()) for path in house.work.glob("ran-*")}
    twice = [name for name, times in ran.items() if times != 1]
    print(f"N4: {killed} kills, {len(expected)} runs accepted: {len(wrong)} wrong ends, {len(twice)} ran twice")
    assert wrong == []
    assert twice == []
    assert len(expected) > count / 2
