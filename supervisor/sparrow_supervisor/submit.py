"""From a submission to a run: what is asked is checked, and what is not said is filled in."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import shlex
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparrow_mp import wire
from sparrow_mp.config import Config
from sparrow_mp.errors import BadRequest, NoSuchEngine, TooLarge
from sparrow_mp.paths import Places
from sparrow_mp.run import engines
from sparrow_mp.wire import MAX_TASK_BYTES, RunSpec, Submit

_MAX_AGENT = 1000
_MOST = 1e18
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Usual:
    """What the supervisor was started with and has changed for itself, but not for its runs."""

    umask: int
    open_files: int


def specify(asked: Submit, config: Config, places: Places, env: Mapping[str, str], usual: Usual) -> RunSpec:
    """The run that is asked for, with an id of its own. ``env`` and ``usual`` are for a run that brings no own.

    Raises BadRequest, NoSuchEngine, TooLarge; a run that is refused here never was one.
    """
    engine = asked.engine or ("command" if asked.argv is not None else config.run.engine)
    task = asked.task
    if asked.argv is not None:
        if engine != "command":
            raise BadRequest(f"argv is for the engine `command`, not for `{engine}`; give a task instead")
        if not asked.argv or not asked.argv[0]:
            raise BadRequest("the command is empty; give a program: sparrow run -- PROGRAM ARG…")
        task = task or shlex.join(asked.argv)
    elif engine == "command":
        raise BadRequest("the engine `command` needs a program: sparrow run -- PROGRAM ARG…")
    if not task.strip():
        raise BadRequest("the task is empty; say what the run is to do")
    _check_sizes(asked, task)
    _check_engine(engine)
    _check_numbers(asked)
    run = asked.id or str(uuid.uuid4())
    own = config.run_for(engine)
    return RunSpec(
        run=run,
        task=task,
        engine=engine,
        agent=asked.agent or engine,
        endpoint=places.endpoint(run),
        name=_checked_name(asked.name),
        cwd=_checked_folder(asked.cwd),
        env=dict(env) if asked.env is None else asked.env,
        argv=asked.argv,
        autonomy=asked.autonomy or own.autonomy,
        budget=asked.budget or own.budget or None,
        timeout=asked.timeout or own.timeout or None,
        memory=asked.memory or own.memory or None,
        max_output=asked.max_output or own.max_output or None,
        max_transcript=asked.max_transcript or own.max_transcript or None,
        max_processes=asked.max_processes or own.max_processes or None,
        nice=own.nice if asked.nice is None else asked.nice,
        stdin=asked.stdin,
        interpreter=asked.interpreter,
        session=asked.session,
        umask=usual.umask if asked.umask is None else asked.umask,
        open_files=usual.open_files,
        outbox_bytes=config.run.outbox_bytes,
        grace=own.grace,
        approval_timeout=own.approval_timeout,
        allowed=str(places.allowed),
        config=str(places.config),
    )


def _check_sizes(asked: Submit, task: str) -> None:
    size = len(wire.encode(task))  # as it is in an event, where a control character takes six bytes
    if size > MAX_TASK_BYTES:
        raise TooLarge(f"the task has {size} bytes, the limit is {MAX_TASK_BYTES}; put it into a file and name that")
    if len(asked.agent or "") > _MAX_AGENT:  # it is in an event as well
        raise TooLarge(f"the agent's name has {len(asked.agent or '')} characters, the limit is {_MAX_AGENT}")
    texts = [task, *(asked.argv or []), *(asked.env or {}), *(asked.env or {}).values(), asked.cwd or ""]
    if any("\0" in text for text in texts):
        raise BadRequest("the task, the arguments, the folder and the environment cannot have a NUL in them")
    if any(not name or "=" in name for name in asked.env or {}):
        raise BadRequest("the name of an environment variable cannot be empty or have a `=` in it")


def _check_engine(name: str) -> None:
    if name in engines.BUILT_IN:
        return
    importlib.invalidate_caches()  # so that a package that was installed a moment ago is found
    known = engines.engine_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(sorted(known))}"
        raise NoSuchEngine(f"no engine `{name}`; {hint}")


def _check_numbers(asked: Submit) -> None:
    for name in ("timeout", "budget", "memory", "max_output", "max_transcript", "max_processes"):
        value = getattr(asked, name)
        if value is not None and not 0 < value < _MOST:
            raise BadRequest(f"`{name}` is {value}; it must be more than 0")


def _checked_name(name: str | None) -> str | None:
    if name is not None and not _NAME.fullmatch(name):
        raise BadRequest(
            f"the name {name!r} will not do: use up to 64 letters, digits and . _ - and begin with a letter or digit"
        )
    return name


def _checked_folder(cwd: str | None) -> str:
    folder = cwd if cwd is not None else os.path.expanduser("~")
    if not os.path.isabs(folder):
        raise BadRequest(f"the folder {folder} is not absolute; give its whole path")
    if not os.path.isdir(folder):
        raise BadRequest(f"there is no folder {folder}; make it, or give another with --cwd")
    if not os.access(folder, os.X_OK):
        raise BadRequest(f"the folder {folder} cannot be entered; check its mode, or give another with --cwd")
    return folder


def inputs_of(
    spec: RunSpec, asked: Submit, config_snapshot: Any, created: str, job: str | None = None
) -> dict[str, Any]:
    """What is written into inputs.json: sparrow-cli's names first, then ours. Of the environment only the names."""
    return {
        "task": spec.task,
        "config_snapshot": config_snapshot,
        "model_id": spec.agent,
        "repo_head": repository_head(Path(spec.cwd)),
        "timestamp": created,
        "agent": spec.agent,
        "run": spec.run,
        "name": spec.name,
        "engine": spec.engine,
        "argv": spec.argv,
        "autonomy": spec.autonomy,
        "budget": spec.budget,
        "timeout": spec.timeout,
        "memory": spec.memory,
        "max_output": spec.max_output,
        "max_transcript": spec.max_transcript,
        "max_processes": spec.max_processes,
        "nice": spec.nice,
        "priority": asked.priority,
        "labels": asked.labels,
        "cwd": spec.cwd,
        "env": sorted(spec.env),
        "job": job,
    }


def repository_head(folder: Path) -> str | None:
    """The commit that the git repository around a folder is at; None where there is none.

    Read from git's files (gitrepository-layout(5)) rather than asked of git, since the loop starts no process and waits for none.
    """
    try:
        for place in (folder, *folder.parents):
            git = place / ".git"
            if git.is_file():
                git = (place / git.read_text().removeprefix("gitdir:").strip()).resolve()
            if (git / "HEAD").is_file():
                return _head_of(git)
    except (OSError, ValueError):
        pass
    return None


def _head_of(git: Path) -> str | None:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head or None
    name = head.removeprefix("ref:").strip()
    common = (git / (git / "commondir").read_text().strip()).resolve() if (git / "commondir").is_file() else git
    for place in (git, common):
        if (place / name).is_file():
            return (place / name).read_text().strip()
    packed = common / "packed-refs"
    if packed.is_file():
        for line in packed.read_text().splitlines():
            commit, _, ref = line.partition(" ")
            if ref == name:
                return commit
    return None
