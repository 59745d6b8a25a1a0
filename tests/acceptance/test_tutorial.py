"""The README's snippets and the examples do what they say; the tutorial's commands: tests/stress/test_tutorial.py."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.house import Going, House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

TOP = Path(__file__).parents[2]


def snippet(document: Path, name: str) -> str:
    """The code block behind the marker of that name."""
    found = re.search(rf"<!-- test: {name} -->\n```\w+\n(.*?)```", document.read_text(), re.DOTALL)
    assert found is not None, f"{document.name} has no snippet {name}"
    return found[1]


def test_the_readmes_client_follows_a_run(shared: House):
    done = shared.python(snippet(TOP / "README.md", "client"))
    assert done.code == 0, done
    assert done.out.splitlines() == ["2 1", "3 2", "4 3", "completed"]


def test_the_readmes_engine_runs(shared: House):
    shared.write("review.py", snippet(TOP / "README.md", "engine"))
    run = shared.detach("-e", "python", "review.py:review")
    outcome = shared.outcome(run)
    assert outcome["status"] == "completed", outcome
    assert outcome["result"] == "1 files"


@pytest.mark.parametrize("source", ["README.md", "examples/subscriber.py"])
def test_ten_lines_of_python_hear_every_event(shared: House, source: str):
    path = TOP / source
    code = snippet(path, "subscriber") if path.suffix == ".md" else path.read_text().partition('"""\n\n')[2]
    assert len(code.splitlines()) <= 10
    shared.start()
    with Going([sys.executable, "-c", code], shared.env, shared.work, None) as listening:
        run = _run_until_heard(shared, listening)
        heard = eventually(lambda: [line for line in listening.out.splitlines() if f'"run":"{run}"' in line])
        eventually(lambda: f"{run}/RunFinished" in listening.out, what="the run's end")
        assert heard[0].startswith(f"{run}/RunStarted {{")


def _run_until_heard(house: House, listening: Going) -> str:
    """Start runs until the subscriber, which takes a moment to connect, has heard the beginning of one."""

    def heard_one() -> str:
        assert listening.process.poll() is None, listening.err
        run = house.detach("echo", "heard")
        house.outcome(run)
        return run if f"{run}/RunStarted" in listening.out else ""

    return eventually(heard_one, what="a run that is heard")


@pytest.mark.parametrize("client", ["nc", "socat"])
def test_one_line_of_shell_hears_what_a_run_says(shared: House, client: str):
    for program in (client, "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    (line,) = [line for line in snippet(TOP / "README.md", "ndjson").splitlines() if line.startswith(f"{client} ")]
    host, _, port = shared.start()["tcp"].rpartition(":")
    line = line.replace("127.0.0.1 9337", f"{host} {port}")
    said = "heard by nc" if client == "nc" else '["RunFinished",3]'
    with Going(["bash", "-c", line], shared.env, shared.work, None) as listening:

        def heard() -> bool:
            shared.outcome(shared.detach("echo", "heard", "by", client))
            return said in listening.out

        eventually(heard, what=said)
        _end_group(listening)


def _end_group(going: Going) -> None:
    """End a pipeline: it leads a process group of its own."""
    import os
    import signal

    os.killpg(going.process.pid, signal.SIGTERM)
    going.process.wait(10)


@pytest.mark.parametrize("task", ["crunch", "guess", "c-project"])
def test_every_example_does_what_it_says(shared: House, task: str):
    examples = TOP / "examples"
    if task == "crunch":
        run = shared.detach("-e", "python", f"{examples}/crunch.py:crunch", "--cwd", str(examples))
        outcome = shared.outcome(run)
        assert outcome["result"]["files"] > 5
        assert {"Message", "Progress", "Custom"} <= {event["type"] for event in shared.events(run)}
    elif task == "guess":
        run = shared.detach("--", "python3", str(examples / "guess.py"), "5", "5")
        shared.says(run, "Your guess: ")
        shared.sparrow("inject", run, "5").ok()
        outcome = shared.outcome(run)
        assert "Yes, 5! That took 1 try." in shared.printed(run)
    else:
        for program in ("make", "cc"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed")
        shutil.copytree(examples / "c-project", shared.work / "c", ignore=shutil.ignore_patterns("build"))
        run = shared.detach("--", "make", "-C", "c", "-j2", "check")
        outcome = shared.outcome(run)
        assert "three                 3 ####" in shared.printed(run)
    assert outcome["status"] == "completed", outcome


def test_the_example_of_a_plugin_is_an_engine(house: House):
    # What installing it puts beside sparrow: the module, and the metadata that names the entry point.
    site = house.work / "site"
    shutil.copytree(TOP / "examples/engine-plugin", site)
    metadata = site / "sparrow_countdown-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sparrow-countdown\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[sparrow.engines]\ncountdown = sparrow_countdown:countdown\n")
    house.env["PYTHONPATH"] = str(site)
    run = house.detach("-e", "countdown", "3")
    outcome = house.outcome(run)
    assert outcome["result"] == "lift-off"
    assert outcome["status"] == "completed", outcome
