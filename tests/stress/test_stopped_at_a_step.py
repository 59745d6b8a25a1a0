"""One process is stopped at a step, another is killed meanwhile, and the first goes on or dies too: the laws hold."""

from __future__ import annotations

import itertools
import random
import signal

import pytest

from tests.support import processes
from tests.support.failpoints import ENGINE, Failpoints, check_run, inject, points
from tests.support.house import House
from tests.support.stress import Figure, scaled
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress

STEPS = [point for point in points() if point.split(".")[0] not in ("submit", "adoption", "recorder")]


def _pids(house: House, run: str) -> dict[str, int]:
    """Who is there now, as far as they can be found without asking a supervisor that may be stopped."""
    found: dict[str, int] = {}
    for pid in house.processes():
        title = processes.title(pid)
        for name in ("supervisor", "zygote", f"monitor of run {run[:8]}", f"run {run[:8]}"):
            if title.startswith(f"sparrow: {name}"):
                found[name.split()[0]] = pid
    return found


@pytest.mark.parametrize("share", [0, 1])
def test_n4_stopped_at_a_step_while_another_dies(house: House, figure: Figure, share: int) -> None:
    chance = random.Random(share)
    struck = Failpoints(house)
    house.env["SPARROW_SUPERVISOR_RESTART"] = "false"
    house.write("engine.py", ENGINE)
    cases = list(itertools.product(STEPS, ["supervisor", "zygote", "monitor", "run"], [signal.SIGCONT, signal.SIGKILL]))
    chance.shuffle(cases)
    done = ends = 0
    for point, victim, then in cases[: scaled(40)]:
        house.start()
        struck.arm(point, "stop")
        with house.begin("run", "-d", "-e", "python", "engine.py:work"):
            eventually(lambda: list(house.places.transcripts.iterdir()), what="the run")
            (run,) = (path.name for path in house.places.transcripts.iterdir())
            with house.begin("inject", run, "word"):
                try:
                    eventually(lambda: struck.struck(point), 2.0)  # noqa: B023  asked in this turn
                except AssertionError:
                    struck.disarm(point)  # this run does not come by there
                stopped = struck.struck(point) or 0
                pids = _pids(house, run)
                if victim in pids:
                    processes.kill(pids[victim])
                    eventually(lambda: processes.state(pids[victim]) in ("", "Z"), what=f"the death of the {victim}")  # noqa: B023
                if stopped:
                    done += 1
                    processes.kill(stopped, then)
                    if then == signal.SIGKILL:
                        eventually(lambda: not processes.alive(stopped), what="the death of who was stopped")  # noqa: B023
        if "supervisor" in pids and not processes.alive(pids["supervisor"]):
            eventually(lambda: not house.supervised, what="the end of its last thread")
        house.start()
        outcome = check_run(house, run, inject(house, run))
        ends += 1
        allowed = {"completed", "crashed"}
        if victim == "zygote" or point.startswith("zygote."):
            allowed.add("lost")
        assert outcome["status"] in allowed, (point, victim, then)
        house.sparrow("rm", run).ok()
    figure(f"N4: {done} processes stopped at a step, each while another was killed: {ends} runs, 0 wrong ends")
