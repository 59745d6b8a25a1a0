"""Another version of sparrow takes over under running runs: two real installations, one state folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sparrow_mp
from tests.support import processes
from tests.support.house import Done, House
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress

SOURCES = Path(__file__).parents[2]


class Release:
    """A copy of sparrow with a version of its own, used as its user would after an upgrade."""

    def __init__(self, house: House, version: str, **replaced: str) -> None:
        self._house = house
        self.version = version
        self._folder = house.top / f"v{version}"
        for package in ("sparrow_mp", "supervisor/sparrow_supervisor"):
            shutil.copytree(
                SOURCES / package, self._folder / Path(package).name, ignore=shutil.ignore_patterns("__pycache__")
            )
        version_file = self._folder / "sparrow_mp" / "_version.py"
        version_file.write_text(version_file.read_text().replace(sparrow_mp.__version__, version))
        for old, new in replaced.items():
            wire = self._folder / "sparrow_mp" / "wire.py"
            text = wire.read_text()
            assert old in text
            wire.write_text(text.replace(old, new))

    def sparrow(self, *args: str) -> Done:
        code = "import sys; from sparrow_mp.cli import main; sys.argv[0] = 'sparrow'; sys.exit(main())"
        return self._house.python(code, *args, env={"PYTHONPATH": str(self._folder)})

    def status(self) -> dict:
        return self.sparrow("status", "--json").ok().rows()[0]

    def begin(self, last: str) -> str:
        script = f"echo up; read line; echo got $line; {last}"
        run = self.sparrow("run", "-d", "--", "sh", "-c", script).ok().out.strip()
        self._house.says(run, "up")
        return run


@pytest.mark.parametrize("how", ["--keep-runs", "SIGKILL"])
def test_runs_go_on_under_an_upgrade_and_back(house: House, how: str):
    old, new = Release(house, "0.0.7"), Release(house, "99.0.0")
    first = old.begin("exit 5")
    elder = old.status()
    assert elder["version"] == "0.0.7"

    def leave(release: Release) -> None:
        if how == "--keep-runs":
            release.sparrow("shutdown", "--keep-runs").ok()
        else:
            house.kill_supervisor()

    leave(old)
    second = new.begin("exit 6")
    young = new.status()
    assert young["version"] == "99.0.0"
    assert young["zygote_pid"] != elder["zygote_pid"]
    assert processes.alive(elder["zygote_pid"]), "the older one sees its own to their end"
    new.sparrow("inject", first, "it").ok()
    assert house.outcome(first)["exit_code"] == 5
    assert "got it" in house.printed(first)
    eventually(lambda: not processes.alive(elder["zygote_pid"]), what="the end of a zygote that has no run left")
    leave(new)
    third = old.begin("exit 7")
    old.sparrow("inject", second, "it").ok()
    old.sparrow("inject", third, "it").ok()
    assert (house.outcome(second)["exit_code"], house.outcome(third)["exit_code"]) == (6, 7)
    eventually(lambda: not processes.alive(young["zygote_pid"]), what="the end of the other one")
    old.sparrow("shutdown").ok()


def test_what_ends_under_an_upgrade_is_told_truly(house: House):
    old, new = Release(house, "0.0.7"), Release(house, "99.0.0")
    runs = {code: old.begin(f"exit {code}") for code in (0, 3, 9)}
    zygote = old.status()["zygote_pid"]
    old.sparrow("inject", runs[3], "it").ok()
    house.kill_supervisor()
    new.sparrow("ps").ok()
    for code in (0, 9):
        new.sparrow("inject", runs[code], "it").ok()
    assert {code: house.outcome(run)["exit_code"] for code, run in runs.items()} == {0: 0, 3: 3, 9: 9}
    eventually(lambda: not processes.alive(zygote), what="the end of the older zygote")
    new.sparrow("shutdown").ok()


def test_an_elder_zygote_that_is_killed_takes_no_run_along(house: House):
    old, new = Release(house, "0.0.7"), Release(house, "99.0.0")
    run = old.begin("exit 4")
    zygote = old.status()["zygote_pid"]
    house.kill_supervisor()
    new.sparrow("ps").ok()
    young = new.status()
    processes.kill(zygote)
    eventually(lambda: not processes.alive(zygote))
    assert new.status()["zygote_pid"] == young["zygote_pid"]
    new.sparrow("inject", run, "it").ok()
    assert house.outcome(run)["exit_code"] == 4
    new.sparrow("shutdown").ok()


def test_a_run_of_an_older_protocol_is_recorded_and_ended_but_not_steered(house: House):
    old, new = Release(house, "0.0.7", **{"PROTOCOL = 1": "PROTOCOL = 0"}), Release(house, "99.0.0")
    run = old.begin("exit 4")
    house.kill_supervisor()
    new.sparrow("ps").ok()
    eventually(lambda: "protocol 0" in " ".join(new.status()["problems"]), what="word of it")
    assert run[:8] in " ".join(new.status()["problems"])
    refused = new.sparrow("inject", run, "it")
    refused.refused(1, "protocol 0", "kill")
    assert new.sparrow("kill", run).code == 0
    assert house.outcome(run)["status"] == "interrupted"
    assert "up" in house.printed(run)
    assert not [problem for problem in new.status()["problems"] if "protocol" in problem]
    new.sparrow("shutdown").ok()


def test_python_runs_are_loaded_from_the_sparrow_that_started_them(house: House):
    old, new = Release(house, "0.0.7"), Release(house, "99.0.0")
    house.write("which.py", "import sparrow_mp\ndef work(run):\n    return sparrow_mp.__version__\n")
    for release in (old, new):
        run = release.sparrow("run", "-d", "-e", "python", "which.py:work").ok().out.strip()
        assert house.outcome(run)["result"] == release.version
        release.sparrow("shutdown", "--keep-runs").ok()
