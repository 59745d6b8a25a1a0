"""What is secret in a run's environment stays out of everything that is kept or shown."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.control import ask
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

NAME = "SPARROW_TEST_TOKEN"


def files_with(house: House, secret: str, besides: tuple[str, ...] = ()) -> list[Path]:
    """Every file of the house in which it is: transcripts, index with its log and its freed pages, logs, all."""
    found = []
    for folder, _, names in os.walk(house.top):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and name not in besides and secret.encode() in path.read_bytes():
                found.append(path)
    return found


def command_lines_with(secret: str) -> list[str]:
    return [processes.title(pid) for pid in processes.pids() if secret in processes.title(pid)]


def environments_with(house: House, secret: str) -> list[str]:
    """The processes of the house whose environment has it."""
    found = []
    for pid in house.processes():
        try:
            if secret.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(processes.title(pid))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", ["the caller's environment", "--env", "the control socket", "an engine in Python"])
def test_a_secret_of_a_run_is_kept_nowhere(house: House, how: str):
    secret = f"hush-{uuid.uuid4().hex}"
    house.start()  # without it
    holding = f'test "${NAME}" = {secret[:4]}-"${{{NAME}#*-}}" && echo up; read line'
    if how == "the control socket":
        env = {**house.env, NAME: secret}
        run = ask(house, {"op": "submit", "argv": ["sh", "-c", holding], "env": env, "cwd": str(house.work)})["run"]
    elif how == "--env":
        # Its value is not on any command line of ours: the name alone passes the caller's.
        run = house.detach("--env", NAME, "--", "sh", "-c", holding, env={NAME: secret})
    elif how == "an engine in Python":
        house.write(
            "keeps.py",
            "def main(run):\n    import os\n    assert os.environ['SPARROW_TEST_TOKEN']\n    print('up', flush=True)\n    run.next_message(60)\n",
        )
        run = house.detach("-e", "python", "keeps.py:main", env={NAME: secret})
    else:
        run = house.detach("--", "sh", "-c", holding, env={NAME: secret})
    house.says(run, "up")
    assert files_with(house, secret) == []
    assert command_lines_with(secret) == []
    assert not [title for title in environments_with(house, secret) if title.startswith("sparrow")]
    assert secret not in house.sparrow("ps", "-a", "--json").out + house.sparrow("logs", "--json", run).out
    house.sparrow("inject", run, "x").ok()
    assert house.outcome(run)["status"] == "completed"
    assert files_with(house, secret) == []
    inputs = (house.places.transcript(run) / "inputs.json").read_text()
    assert NAME in inputs


def test_a_queued_runs_environment_waits_in_a_file_of_its_own(house: House):
    secret = f"hush-{uuid.uuid4().hex}"
    house.configure("[supervisor]\nmax_runs = 1\n")
    first = house.detach("--", "sh", "-c", "echo up; read line")
    house.says(first, "up")
    run = house.detach("--", "true", env={NAME: secret})
    spec = house.places.run_folder(run) / "spec.json"
    assert files_with(house, secret) == [spec]
    assert spec.stat().st_mode & 0o777 == 0o600
    house.kill_supervisor()  # the next one passes it on, and keeps it nowhere else
    house.start()
    assert files_with(house, secret) == [spec]
    house.sparrow("inject", first, "x").ok()
    house.outcome(run)
    eventually(lambda: not spec.exists(), what="the end of its file")
    assert files_with(house, secret) == []


def test_a_run_that_is_taken_back_leaves_nothing(house: House):
    secret = f"hush-{uuid.uuid4().hex}"
    house.configure("[supervisor]\nmax_runs = 1\n")
    first = house.detach("--", "cat")
    house.pid_of(first)
    run = house.detach("--", "true", env={NAME: secret})
    house.sparrow("kill", run).ok()
    house.outcome(run)
    assert files_with(house, secret) == []


def test_what_is_asked_for_wrongly_is_not_logged(house: House):
    secret = f"hush-{uuid.uuid4().hex}"
    house.start()
    for request in (
        {"op": "submit", "task": "x", "engine": "nope", "env": {NAME: secret}},
        {"op": "submit", "task": "x", "env": {NAME: secret, "A=B": "x"}},
        {"op": "submit", "task": "x", "env": {NAME: f"{secret}\0"}},
        {"op": "submit", "task": "x", "env": {NAME: [secret]}},
        {"op": "submit", "argv": ["/no/such/program"], "env": {NAME: secret}, "cwd": "/"},
    ):
        ask(house, request)
    eventually(lambda: not list(house.places.runs.iterdir()), what="the end of the run that could not start")
    assert files_with(house, secret) == []
