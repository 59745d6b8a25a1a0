"""An engine in a package of its own: installed beside sparrow, it is found by its name and used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.house import House

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "sparrow-test-engines"
version = "1"

[project.entry-points."sparrow.engines"]
upper = "test_engines:upper"
waits = "test_engines:waits"
counter = "test_engines:Counter"
python3 = "test_engines:Interpreter"
broken = "test_engines_broken:anything"

[tool.hatch.build.targets.wheel]
include = ["test_engines.py", "test_engines_broken.py"]
"""

ENGINES = '''
"""Engines of every kind."""

import sys
from sparrow_mp import Message, Progress


def upper(run):
    run.emit(Message(role="assistant", text=run.task.upper()))
    return len(run.task)


async def waits(run):
    return await run.next_message_async(timeout=20)


class Counter:
    def __init__(self, run):
        self.context = run

    def run(self):
        for n in range(int(self.context.task)):
            self.context.emit(Progress(done=n + 1))
        return "counted"


class Interpreter:
    @staticmethod
    def command(run):
        return [sys.executable, "-c", run.task]
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package is installed."""
    source = tmp_path_factory.mktemp("source")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "test_engines.py").write_text(ENGINES)
    (source / "test_engines_broken.py").write_text("import no_such_module_at_all\n")
    target = tmp_path_factory.mktemp("target")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--disable-pip-version-check", "--target", str(target), str(source)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return target


@pytest.fixture
def equipped(house: House, installed: Path) -> House:
    house.env["PYTHONPATH"] = str(installed)
    return house


def test_engines_of_a_package_are_found_and_used(equipped: House):
    run = equipped.detach("-e", "upper", "some words")
    outcome = equipped.outcome(run)
    assert (outcome["status"], outcome["result"]) == ("completed", 10)
    assert [event.get("text") for event in equipped.events(run) if event["type"] == "Message"] == ["SOME WORDS"]
    assert equipped.record(run)["engine"] == "upper"
    assert equipped.record(run)["agent"] == "upper"

    run = equipped.detach("-e", "waits", "whatever")
    equipped.sparrow("inject", run, "this").ok()
    assert equipped.outcome(run)["result"] == "this"

    run = equipped.detach("-e", "counter", "3")
    assert equipped.outcome(run)["result"] == "counted"
    assert [event["done"] for event in equipped.events(run) if event["type"] == "Progress"] == [1, 2, 3]

    done = equipped.sparrow("run", "-e", "python3", "print(input())", stdin="from stdin\n").ok()
    assert done.out == "from stdin\n"


def test_an_engine_that_fails_to_import_is_rejected(equipped: House):
    done = equipped.sparrow("run", "-e", "broken", "x")
    assert done.code == 1
    assert "no_such_module_at_all" in done.err
    assert equipped.ps()[0]["status"] == "rejected"
    equipped.sparrow("run", "-e", "uper", "x").refused(2, "did you mean `upper`")


def test_a_package_that_is_installed_while_the_supervisor_runs_is_found(house: House, installed: Path):
    later = house.top / "later"
    later.mkdir()
    house.env["PYTHONPATH"] = str(later)
    house.start()
    house.sparrow("run", "-e", "upper", "x").refused(2, "no engine `upper`")
    for path in installed.iterdir():
        (later / path.name).symlink_to(path)
    run = house.detach("-e", "upper", "found")
    assert house.outcome(run)["result"] == 5


def test_an_engine_can_be_the_default(equipped: House):
    equipped.configure("[run]\nengine = 'upper'\n")
    run = equipped.detach("words")
    assert equipped.outcome(run)["result"] == 5
