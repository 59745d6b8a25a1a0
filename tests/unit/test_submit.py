"""From a submission to a run: each mistake has its code and its sentence, and what is not said is filled in."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparrow_mp import wire
from sparrow_mp.config import Config, RunSettings
from sparrow_mp.errors import BadRequest, NoSuchEngine, SparrowError, TooLarge
from sparrow_mp.events import MAX_EVENT_BYTES, RunQueued, RunStarted, encode
from sparrow_mp.paths import Places
from sparrow_mp.wire import MAX_TASK_BYTES, RunSpec, Submit
from sparrow_supervisor.submit import Usual, inputs_of, repository_head, specify

PLACES = Places(Path("/s"), Path("/r"), Path("/c"))
CONFIG = Config(run=RunSettings(engine="shell", grace=7.0, outbox_bytes=4 << 20))
USUAL = Usual(umask=0o027, open_files=1024)
ENV = {"PATH": "/bin", "SECRET": "hunter2"}


def specified(**asked: Any) -> RunSpec:
    return specify(Submit(**{"task": "make test", "cwd": "/", **asked}), CONFIG, PLACES, ENV, USUAL)


# ── what is filled in ──


def test_what_is_not_said() -> None:
    spec = specified()
    assert uuid.UUID(spec.run).version == 4
    assert str(uuid.UUID(spec.run)) == spec.run
    assert spec == RunSpec(
        run=spec.run,
        task="make test",
        engine="shell",
        agent="shell",
        endpoint=PLACES.endpoint(spec.run),
        cwd="/",
        env=ENV,
        outbox_bytes=4 << 20,
        grace=7.0,
        max_transcript=10 << 30,
        max_processes=5000,
        nice=0,
        umask=0o027,
        open_files=1024,
        allowed="/s/allowed.jsonl",
        config="/c",
    )
    assert specified().run != spec.run


def test_what_is_said() -> None:
    spec = specified(
        engine="python", agent="reviewer", name="my-run.1", autonomy="trusted", budget=2.5, timeout=60.0, stdin="null",
        env={"A": "1", "EMPTY": ""}, interpreter="/usr/bin/python3", umask=0o077,
    )  # fmt: skip
    assert (spec.engine, spec.agent, spec.name, spec.autonomy) == ("python", "reviewer", "my-run.1", "trusted")
    assert (spec.budget, spec.timeout, spec.stdin, spec.interpreter) == (2.5, 60.0, "null", "/usr/bin/python3")
    assert (spec.env, spec.umask) == ({"A": "1", "EMPTY": ""}, 0o077)


def test_the_environment_of_a_run_may_be_empty() -> None:
    assert specified(env={}).env == {}


def test_without_a_folder_it_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert specified(cwd=None).cwd == str(tmp_path)


def test_a_command_is_its_own_task() -> None:
    spec = specified(task="", argv=["echo", "a b", "$c"])
    assert (spec.engine, spec.task, spec.argv) == ("command", "echo 'a b' '$c'", ["echo", "a b", "$c"])
    assert specified(task="say it", argv=["echo"]).task == "say it"
    assert specified(engine="command", argv=["echo"]).engine == "command"
    assert specified(argv=["echo", ""]).argv == ["echo", ""]


@pytest.mark.parametrize("name", ["a", "A1", "7", "a.b_c-d", "x" * 64])
def test_good_names(name: str) -> None:
    assert specified(name=name).name == name


# ── mistakes ──

LONG = "x" * (MAX_TASK_BYTES + 1)


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({"task": ""}, BadRequest, "the task is empty; say what the run is to do"),
        ({"task": " \n\t"}, BadRequest, "the task is empty"),
        ({"task": "a\0b"}, BadRequest, "cannot have a NUL in them"),
        ({"argv": ["a", "b\0"]}, BadRequest, "cannot have a NUL in them"),
        ({"env": {"A": "\0"}}, BadRequest, "cannot have a NUL in them"),
        ({"env": {"A\0": ""}}, BadRequest, "cannot have a NUL in them"),
        ({"cwd": "/\0"}, BadRequest, "cannot have a NUL in them"),
        ({"env": {"": "x"}}, BadRequest, "the name of an environment variable cannot be empty or have a `=` in it"),
        ({"env": {"A=B": "x"}}, BadRequest, "the name of an environment variable cannot be empty"),
        ({"task": LONG}, TooLarge, "bytes, the limit is 262144; put it into a file and name that"),
        ({"task": "é" * (MAX_TASK_BYTES // 2 + 1)}, TooLarge, "the task has"),
        ({"task": "", "argv": ["echo", LONG]}, TooLarge, "the task has"),
        ({"task": "\x01" * MAX_TASK_BYTES}, TooLarge, "the task has"),
        ({"agent": "x" * 100_000}, TooLarge, "the agent's name has 100000 characters, the limit is 1000"),
        ({"engine": "shel"}, NoSuchEngine, "no engine `shel`; did you mean `shell`?"),
        ({"engine": "xyzzy"}, NoSuchEngine, "no engine `xyzzy`; there are "),
        ({"engine": "command"}, BadRequest, "the engine `command` needs a program: sparrow run -- PROGRAM"),
        ({"engine": "shell", "argv": ["echo"]}, BadRequest, "argv is for the engine `command`, not for `shell`"),
        ({"argv": []}, BadRequest, "the command is empty; give a program"),
        ({"argv": ["", "x"]}, BadRequest, "the command is empty"),
        ({"timeout": 0.0}, BadRequest, "`timeout` is 0.0; it must be more than 0"),
        ({"timeout": -1.0}, BadRequest, "`timeout` is -1.0"),
        ({"timeout": float("nan")}, BadRequest, "`timeout` is nan"),
        ({"timeout": float("inf")}, BadRequest, "`timeout` is inf"),
        ({"budget": 0.0}, BadRequest, "`budget` is 0.0; it must be more than 0"),
        ({"budget": float("nan")}, BadRequest, "`budget` is nan"),
        ({"memory": 0}, BadRequest, "`memory` is 0; it must be more than 0"),
        ({"max_processes": 0}, BadRequest, "`max_processes` is 0; it must be more than 0"),
        ({"name": ""}, BadRequest, "the name '' will not do"),
        ({"name": "x" * 65}, BadRequest, "use up to 64 letters, digits and . _ - and begin with a letter or digit"),
        ({"name": "-a"}, BadRequest, "the name '-a' will not do"),
        ({"name": "a b"}, BadRequest, "the name 'a b' will not do"),
        ({"name": "a/../b"}, BadRequest, "will not do"),
        ({"name": "a\n"}, BadRequest, "will not do"),
        ({"name": "ä"}, BadRequest, "will not do"),
        ({"cwd": "relative"}, BadRequest, "the folder relative is not absolute; give its whole path"),
        ({"cwd": ""}, BadRequest, "is not absolute"),
        ({"cwd": "/nowhere/at/all"}, BadRequest, "there is no folder /nowhere/at/all; make it"),
        ({"cwd": "/dev/null"}, BadRequest, "there is no folder /dev/null"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_mistake_says_what_it_is(asked: dict[str, Any], kind: type[SparrowError], words: str) -> None:
    with pytest.raises(kind) as caught:
        specified(**asked)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root enters every folder")
def test_a_folder_that_cannot_be_entered(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o600)
    with pytest.raises(BadRequest, match="cannot be entered"):
        specified(cwd=str(tmp_path / "closed"))


@pytest.mark.parametrize("unit", ["x", "é", "🐦", "\n", '"', "\\", "\x01"], ids=ascii)
def test_the_largest_task_fits_into_its_events(unit: str) -> None:
    """Of whatever it consists: a run that is accepted can say what it was asked to do."""
    task = unit * ((MAX_TASK_BYTES - 10) // (len(wire.encode(unit)) - 2)) + "x"
    spec = specified(task=task, agent="a" * 200)
    for event in (
        RunStarted(task=spec.task, agent=spec.agent),
        RunQueued(task=spec.task, agent=spec.agent, position=1),
    ):
        assert len(encode(event)) < MAX_EVENT_BYTES


# ── inputs.json ──


def test_the_inputs_have_what_sparrow_cli_writes_first_and_no_secret() -> None:
    asked = Submit(task="make test", cwd="/", labels=["ci"], priority=3, budget=1.0)
    spec = specify(asked, CONFIG, PLACES, ENV, USUAL)
    inputs = inputs_of(spec, asked, {"run": {}}, "2026-11-22T12:00:00.000000Z")
    assert list(inputs)[:5] == ["task", "config_snapshot", "model_id", "repo_head", "timestamp"]
    assert inputs["env"] == ["PATH", "SECRET"]
    assert b"hunter2" not in wire.encode(inputs)
    assert (inputs["run"], inputs["labels"], inputs["priority"], inputs["budget"]) == (spec.run, ["ci"], 3, 1.0)
    assert msgspec.json.decode(wire.encode(inputs)) == inputs


def git(folder: Path, *args: str) -> str:
    if shutil.which("git") is None:
        pytest.skip("needs git")
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ["-c", "user.name=sparrow", "-c", "user.email=sparrow@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *args], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def test_the_head_of_a_repository(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    (repository / "a" / "b").mkdir(parents=True)
    assert repository_head(repository) == repository_head(repository / "a" / "b") == head
    git(repository, "pack-refs", "--all")
    assert repository_head(repository) == head
    git(repository, "checkout", "-q", "--detach")
    assert repository_head(repository) == head


def test_the_head_of_a_worktree_is_its_own(repository: Path) -> None:
    git(repository, "worktree", "add", "-q", "-b", "side", "../side")
    git(repository.parent / "side", "commit", "-q", "--allow-empty", "-m", "second")
    heads = {repository_head(folder) for folder in (repository, repository.parent / "side")}
    assert heads == {git(repository, "rev-parse", "main"), git(repository, "rev-parse", "side")}
    assert len(heads) == 2
    git(repository, "pack-refs", "--all")
    assert repository_head(repository.parent / "side") == git(repository, "rev-parse", "side")


def test_where_there_is_no_repository_or_no_commit(tmp_path: Path) -> None:
    assert repository_head(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert repository_head(tmp_path) is None
    (tmp_path / ".git" / "HEAD").write_bytes(b"\xff\xfe")
    assert repository_head(tmp_path) is None
    (tmp_path / ".git" / "HEAD").unlink()
    assert repository_head(tmp_path) is None
