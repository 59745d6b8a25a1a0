"""The local model server, for whoever needs one: where it is, and starting it where it is not.

It is a run of its own, of the engine `model`, with the name `model`. One that was started because somebody needed it ends
by itself once nobody has asked it anything for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import shlex
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from sparrow_mp.aclient import AsyncClient, AsyncRun
from sparrow_mp.config import load_config
from sparrow_mp.errors import SparrowError
from sparrow_mp.events import Error, Message, Progress, RunFinished, RunQueued
from sparrow_mp.model_address import Endpoint, endpoint
from sparrow_mp.paths import Places
from sparrow_mp.regular import open_regular
from sparrow_mp.settings import LocalModelSettings

NAME = "model"
"""The name of the run, and of its engine."""

_ATTEMPTS = 3
_LOOK_S = 0.02


class NoLocalModel(SparrowError):
    """The local model server cannot be had; the message says why and what to do."""


def ensure(
    places: Places,
    *,
    start: bool = False,
    model: str | os.PathLike[str] | None = None,
    idle: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> Endpoint:
    """``ensure_async`` for programs without a loop."""
    return asyncio.run(ensure_async(places, start=start, model=model, idle=idle, tell=tell))


async def ensure_async(
    places: Places,
    *,
    start: bool = False,
    model: str | os.PathLike[str] | None = None,
    idle: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> Endpoint:
    """Where a local model answers; a run that serves one is started where there is none, and waited for.

    ``start`` says whether a supervisor may be started where there is none; a run must not, since that would be a process of
    its own tree. ``model`` (a GGUF file) and ``idle`` (seconds; 0: for ever) go before the settings, for a server that is
    started now. ``tell`` hears what it is waited for, such as the model's being fetched. Raises NoLocalModel, and what the
    client raises.
    """
    found = endpoint(places, to_use=True)
    if found is not None:
        return found
    if importlib.util.find_spec("xllamacpp") is None:
        raise NoLocalModel("a local model needs the library that runs it: pip install 'sparrow-mp[local]'")
    settings = load_config(places.config).local_model
    async with AsyncClient(places=places, start=start, on_start=tell) as client:
        for _ in range(_ATTEMPTS):
            run = await _begun(client, places, _task(settings, model, idle))
            found = await _answering(run, places, tell)
            if found is not None:
                return found
    raise NoLocalModel("the local model's server ends again and again before it is asked anything: see `sparrow ps -a`")


async def _begun(client: AsyncClient, places: Places, task: str) -> AsyncRun:
    """The run that serves, or will: the one there is, else a new one."""
    await client.list()  # so that there is a supervisor, and its folders
    async with _alone(places):
        for record in await client.list():
            if record.engine == NAME and record.status != "stopping":
                return AsyncRun(client, record.run)
        env = {**os.environ, "SPARROW_STATE_DIR": str(places.state), "SPARROW_RUNTIME_DIR": str(places.runtime)}
        return await client.submit(task, engine=NAME, name=NAME, env=env, cwd=places.state)


@contextlib.asynccontextmanager
async def _alone(places: Places) -> AsyncIterator[None]:
    """Of those that need a server at the same time one looks, and starts it, after the other."""
    fd = open_regular(places.runtime / "model.lock", os.O_RDWR | os.O_CREAT)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOOK_S)
        yield
    finally:
        os.close(fd)


def _task(settings: LocalModelSettings, model: str | os.PathLike[str] | None, idle: float | None) -> str:
    words = ["serve", "--idle", f"{settings.idle if idle is None else idle:g}", "--context", str(settings.context)]
    file = os.fspath(model) if model is not None else settings.file
    if file:
        words += ["--model", str(Path(file).expanduser().absolute())]
    if settings.threads:
        words += ["--threads", str(settings.threads)]
    return shlex.join(words)


async def _answering(run: AsyncRun, places: Places, tell: Callable[[str], None] | None) -> Endpoint | None:
    """Wait until it answers; None where it has ended as it should: it was idle, or another one serves.

    Raises NoLocalModel where it fails, or has to wait itself.
    """
    words = ""
    events = run.events()
    try:
        async for event in events:
            if isinstance(event, Progress) and event.note and tell is not None:
                tell(event.note)
            elif isinstance(event, RunQueued):
                await run.interrupt("there was no free place")
                words = "no place is free for it (see `max_runs` in the settings)"
            elif isinstance(event, Error):
                words = words or event.message
            elif isinstance(event, RunFinished):
                if event.outcome.status == "completed":
                    return None
                words = words or event.outcome.reason or f"it has ended ({event.outcome.status})"
            elif not isinstance(event, Message):
                continue
            found = endpoint(places, to_use=True)
            if found is not None:
                return found
    finally:
        await events.aclose()
    raise NoLocalModel(f"the local model cannot be served: {words}")


__all__ = ["NAME", "Endpoint", "NoLocalModel", "endpoint", "ensure", "ensure_async"]
