"""Where a run works and what it has: the caller's folder and environment, and no secret left anywhere."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.control import ask
from tests.support.house import House

pytestmark = pytest.mark.acceptance

SHOW = "import os, json; print(json.dumps(dict(os.environ)))"


def test_a_run_has_the_callers_environment_and_nothing_else(shared: House):
    shared.start()
    for engine in (["--", "python3", "-c", SHOW], ["-e", "shell", f'python3 -c "{SHOW}"']):
        done = shared.sparrow("run", *engine, env={"MINE": "a b\nc é", "EMPTY": ""}).ok()
        found = json.loads(done.out)
        found.pop("LC_CTYPE", None)  # Python's own doing
        for shells in ("PWD", "OLDPWD", "SHLVL", "_"):
            found.pop(shells, None)
        assert found == {**shared.env, "MINE": "a b\nc é", "EMPTY": ""}


def test_a_python_run_has_the_callers_environment(shared: House):
    shared.write("show.py", "import os\ndef main(run):\n    return dict(os.environ)\n")
    run = shared.detach("-e", "python", "show.py:main", env={"MINE": "x"})
    assert shared.outcome(run)["result"] == {**shared.env, "MINE": "x"}


def test_one_callers_environment_is_not_the_nexts(shared: House):
    shared.sparrow("run", "true", env={"MINE": "one"}).ok()
    assert shared.sparrow("run", "echo ${MINE-none}").ok().out == "none\n"


def test_env_adds_and_insists(shared: House):
    done = shared.sparrow(
        "run", "--env", "A=1=2", "--env", "B=", "--env", "C", "echo $A,$B,$C", env={"A": "0", "C": "c"}
    ).ok()
    assert done.out == "1=2,,c\n"
    shared.sparrow("run", "--env", "NOT_SET_HERE", "true").refused(2, "NOT_SET_HERE")


def test_a_run_works_in_the_callers_folder(shared: House):
    folder = shared.work / "a folder with spaces é"
    folder.mkdir()
    assert shared.sparrow("run", "pwd", cwd=folder).ok().out == f"{folder}\n"
    assert shared.sparrow("run", "--cwd", folder, "--", "pwd").ok().out == f"{folder}\n"
    assert shared.sparrow("run", "--cwd", folder.name, "--", "pwd").ok().out == f"{folder}\n"
    assert shared.sparrow("run", "--cwd", "~", "--", "pwd").ok().out == f"{shared.home}\n"


def test_a_request_without_folder_and_environment_has_the_home_folder_and_the_supervisors(shared: House):
    shared.start()
    run = ask(shared, {"op": "submit", "task": "pwd; echo $SPARROW_TEST_HOUSE"})["run"]
    shared.outcome(run)
    assert shared.printed(run) == f"{shared.home}\n{shared.id}\n"


def test_a_program_is_found_on_the_callers_path(shared: House):
    tool = shared.write("bin/only-here", "#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    assert (
        shared.sparrow("run", "--", "only-here", env={"PATH": f"{tool.parent}:{shared.env['PATH']}"}).ok().out
        == "found\n"
    )
    assert shared.sparrow("run", "--", "only-here").code == 127
    assert shared.sparrow("run", "--", "./bin/only-here").ok().out == "found\n"


def test_arguments_arrive_as_they_are(shared: House):
    words = ["", " ", "a b", "$HOME", "*", "'", '"', "\\", "-x", "--", "é🎉", "a\nb", "--help"]
    done = shared.sparrow(
        "run", "--", "python3", "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words
    ).ok()
    assert json.loads(done.out) == words


def test_inputs_record_the_names_of_the_variables_the_folder_and_the_repositorys_head(shared: House):
    repository = shared.work / "repo"
    git = repository / ".git"
    git.mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs/heads").mkdir(parents=True)
    (git / "refs/heads/main").write_text("0123456789abcdef0123456789abcdef01234567\n")
    run = shared.detach("--agent", "me", "--", "true", cwd=repository, env={"MINE": "x"})
    shared.outcome(run)
    inputs = json.loads((shared.places.transcript(run) / "inputs.json").read_text())
    assert inputs["repo_head"] == "0123456789abcdef0123456789abcdef01234567"
    assert (inputs["task"], inputs["agent"], inputs["cwd"]) == ("true", "me", str(repository))
    assert inputs["env"] == sorted({**shared.env, "MINE": "x"})
    assert inputs["timestamp"].endswith("Z")
    assert inputs["config_snapshot"]["run"]["engine"] == "shell"


def test_a_secret_in_the_environment_is_nowhere(house: House):
    secret = secrets.token_hex(16)
    house.write("idle.py", "def main(run):\n    run.next_message()\n")
    runs = [
        house.detach("--", "sh", "-c", "read line", env={"TOKEN": secret}),
        house.detach("-e", "python", "idle.py:main", env={"TOKEN": secret}),
        house.detach("-e", "python", "idle.py:main", env={"TOKEN": secret, "PYTHONUTF8": "1"}),
    ]
    for run in runs:
        house.pid_of(run)
    assert holders(house, secret) == []
    for pid in processes.pids():
        assert secret not in processes.title(pid)
    told = house.status()
    for pid in (told["pid"], told["zygote_pid"], told["adapters_pid"]):
        assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes(), processes.title(pid)
    house.kill_supervisor()
    house.start()
    for run in runs:
        house.sparrow("inject", run, "go").ok()
        assert house.outcome(run)["status"] == "completed"
    assert holders(house, secret) == []


def test_a_secret_of_a_run_that_waits_in_the_queue_is_in_private_files_only(house: House):
    secret = secrets.token_hex(16)
    house.configure("[supervisor]\nmax_runs = 1\n")
    first = house.detach("--", "sh", "-c", "read line")
    queued = house.detach("--", "sh", "-c", "read line", env={"TOKEN": secret})
    for path in holders(house, secret):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.is_relative_to(house.places.runs)
    house.sparrow("inject", first, "go").ok()
    house.outcome(first)
    house.pid_of(queued)
    assert holders(house, secret) == []


def holders(house: House, secret: str) -> list[Path]:
    """The files that have the secret in them."""
    paths = [
        Path(folder, name)
        for top in (house.state, house.runtime)
        for folder, _, names in os.walk(top)
        for name in names
    ]
    return [path for path in paths if path.is_file() and secret.encode() in content(path)]


def content(path: Path) -> bytes:
    """What is in a file; nothing where it has just gone, as what belongs to a run goes while the run begins and when it ends."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def test_everything_in_the_state_folder_is_the_owners_alone(house: House):
    run = house.detach("--", "sh", "-c", "echo up; read line")
    house.says(run, "up")
    for top in (house.state, house.runtime):
        assert top.stat().st_mode & 0o777 == 0o700
        for folder, folders, names in os.walk(top):
            for name in folders + names:
                path = Path(folder, name)
                mode = path.lstat().st_mode & 0o777
                assert mode & 0o077 == 0, (path, oct(mode))
