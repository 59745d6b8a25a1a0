"""A zygote that has loaded what an engine imports: runs are forked from it once it is there, and it may die at any time."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.model_server import hangs, model_server, says
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

TASK = """
import os, sys

def main(run):
    print("loaded" if "heavy" in sys.modules else "not loaded", flush=True)
    import heavy
    answer = run.next_message()
    if answer == "die":
        os.kill(os.getpid(), 9)
    sys.exit(int(answer))
"""


@pytest.fixture
def prepared(house: House, site: Path) -> House:
    """Runs of the engine `python` are to find the module `heavy` loaded."""
    house.env["PYTHONPATH"] = str(site)
    (site / "heavy.py").write_text("")
    house.write("task.py", TASK)
    house.configure('[engines.python]\npreload = ["heavy"]\n')
    return house


@pytest.fixture
def site(house: House) -> Path:
    """A folder of modules that every interpreter of the house finds."""
    path = house.top / "site"
    path.mkdir()
    return path


def begin(house: House) -> str:
    return house.detach("--engine", "python", "task.py:main")


def answer(house: House, run: str, words: str = "0") -> dict[str, Any]:
    house.sparrow("inject", run, words).ok()
    return house.outcome(run)


def warm(house: House, but: int = 0) -> int:
    """The pid of the warm zygote, once there is another than ``but``."""
    return eventually(
        lambda: [one["pid"] for one in house.status()["warm_zygotes"] if one["pid"] != but],
        timeout=40.0,
        what="a warm zygote",
    )[0]


def zygote_of(house: House, run: str) -> int:
    return processes.parent(house.monitor_of(run))


def test_the_first_run_has_it_made_and_the_next_is_forked_from_it_with_exact_ends(prepared: House):
    house = prepared
    assert house.start()["warm_zygotes"] == []
    first = begin(house)
    pid = warm(house)
    second, third = begin(house), begin(house)
    assert [zygote_of(house, run) == pid for run in (first, second, third)] == [False, True, True]
    assert [answer(house, run, words)["exit_code"] for run, words in ((first, "3"), (second, "4"))] == [3, 4]
    ended = answer(house, third, "die")
    assert ended["status"] == "crashed"
    assert ended["signal"] == signal.SIGKILL
    assert [house.printed(run) for run in (first, second)] == ["not loaded\n", "loaded\n"]
    shell = house.detach("--", "sleep", "1000")
    assert zygote_of(house, shell) == house.status()["zygote_pid"]
    assert str(pid) in house.sparrow("status").ok().out
    house.sparrow("shutdown", "--now").ok()
    assert not processes.alive(pid)


def test_one_that_is_killed_leaves_its_runs_alone_and_is_replaced(prepared: House):
    house = prepared
    answer(house, begin(house))
    pid = warm(house)
    run = begin(house)
    assert zygote_of(house, run) == pid
    processes.kill(pid)
    eventually(lambda: not house.status()["warm_zygotes"], what="its end to be seen")
    answer(house, begin(house))
    other = warm(house, but=pid)
    last = begin(house)
    assert zygote_of(house, last) == other
    assert [answer(house, one, words)["exit_code"] for one, words in ((run, "5"), (last, "6"))] == [5, 6]


def test_a_new_supervisor_hears_from_it_what_ended_meanwhile(prepared: House):
    house = prepared
    answer(house, begin(house))
    pid = warm(house)
    alive, ended = begin(house), begin(house)
    engine = house.pid_of(ended)
    monitor = house.monitor_of(ended)
    assert zygote_of(house, alive) == zygote_of(house, ended) == pid
    house.kill_supervisor()
    processes.kill(engine, signal.SIGSEGV)
    eventually(lambda: not processes.alive(monitor), what="the run's end")
    house.start()
    assert house.outcome(ended)["signal"] == signal.SIGSEGV
    assert warm(house) == pid
    again = begin(house)
    assert zygote_of(house, again) == pid
    processes.kill(house.monitor_of(again))
    assert house.outcome(again)["status"] == "crashed"
    assert answer(house, alive, "7")["exit_code"] == 7


def test_what_cannot_be_loaded_is_told_and_runs_go_on_without(prepared: House, site: Path):
    house = prepared
    (site / "heavy.py").write_text("raise RuntimeError('not today')")
    house.write("task.py", "def main(run):\n    return 1\n")
    house.start()  # with nothing wrong with it
    assert house.outcome(begin(house))["exit_code"] == 0
    (problem,) = eventually(lambda: house.status()["problems"], what="what is wrong with it")
    assert "heavy" in problem
    assert house.outcome(begin(house))["exit_code"] == 0
    assert house.status()["warm_zygotes"] == []
    assert "not today" in house.places.zygote_log.read_text()


def test_one_that_still_loads_ends_with_the_supervisor(prepared: House, site: Path):
    house = prepared
    (site / "heavy.py").write_text(
        f"import os, time; open({str(site / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(99)"
    )
    house.write("task.py", "def main(run):\n    pass\n")
    begin(house)
    pid = eventually(
        lambda: int((site / "pid").read_text() or 0) if (site / "pid").exists() else 0, what="a zygote that loads"
    )
    house.sparrow("shutdown", "--now").ok()
    assert not processes.alive(pid)
    assert not list(house.runtime.glob("zygote-*"))


def test_an_agent_finds_its_library_loaded(house: House):
    pytest.importorskip("pydantic_ai", reason="needs the extra agent")
    with model_server(says("done"), hangs()) as server:
        house.configure(f'[models]\nchain = ["m"]\n[endpoints.m]\nbase_url = "{server.base_url}"\nmodel = "m"\n')
        house.sparrow("run", "--engine", "agent", "do it").ok()
        pid = warm(house)
        run = house.detach("--engine", "agent", "do it again")
        assert zygote_of(house, run) == pid
        eventually(lambda: len(server.asked) == 2, what="its question to the model")
        house.sparrow("kill", run).ok()
        assert house.outcome(run)["status"] == "interrupted"
    assert house.status()["problems"] == []


def test_without_its_library_an_agent_says_so_as_ever(house: House, site: Path):
    house.env["PYTHONPATH"] = str(site)
    (site / "sitecustomize.py").write_text("import sys; sys.modules['pydantic_ai'] = None\n")
    for _ in range(2):
        house.sparrow("run", "--engine", "agent", "do it").refused(1, "pip install 'sparrow-mp[agent]'")
        eventually(lambda: "cannot be loaded beforehand" in house.places.zygote_log.read_text(), what="a word of it")
    assert house.status()["problems"] == []
    assert house.status()["warm_zygotes"] == []
