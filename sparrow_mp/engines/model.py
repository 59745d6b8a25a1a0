"""Engine ``model``: a server of a local model that speaks OpenAI's protocol, on this machine and for its owner alone.

The task is ``serve [--model FILE.gguf] [--idle TIME] [--threads N] [--context TOKENS]``. The server is llama.cpp's own, which
the library xllamacpp runs in this process. It wants a key with each request, made anew each time, which only its address file
has: so neither a web page nor another user can ask it anything.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import secrets
import shlex
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from sparrow_mp.engines.model_file import NoModel, check, find_or_fetch
from sparrow_mp.errors import StateError
from sparrow_mp.events import Error, Message
from sparrow_mp.model_address import Claim, Endpoint, Taken
from sparrow_mp.paths import find_places
from sparrow_mp.quantities import parse_duration
from sparrow_mp.run.context import CannotRun, RunContext

USAGE = "serve [--model FILE.gguf] [--idle TIME] [--threads N] [--context TOKENS]"
_CONTEXT = 8192
_MOST_THREADS = 8
_AT_ONCE = 2
"""How many requests it works on at the same time; further ones wait."""
_MOST_WORDS = 512
"""How many tokens the small model may say at once: left alone it goes on for ever."""
_LONGEST_LOOK_S = 5.0
_NO_ORIGIN = "http://localhost.invalid"
"""The only web pages whose scripts a browser lets read the answers: none."""


_kept: list[Any] = []
"""The server ends with its process, which is the surest way: taken down by itself it waits for its threads, maybe for ever."""


class Wish(NamedTuple):
    """What the task asks for. ``idle`` is in seconds, 0 for ever; ``threads`` 0 is half of the processors."""

    model: str | None = None
    idle: float = 0.0
    threads: int = 0
    context: int = _CONTEXT


class ModelEngine:
    """Serves until it is interrupted, or nobody has asked it anything for a while."""

    def command(self, _: RunContext) -> None:
        """There is none: the server is a library."""

    def find(self, run: RunContext) -> Any:
        """What drives the run. Raises CannotRun where the library is missing or the task is none."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise CannotRun("the engine `model` needs its library: pip install 'sparrow-mp[local]'")
        try:
            wish = parse_task(run.task)
        except ValueError as error:
            raise CannotRun(f"{error}; the engine `model` has one task: {USAGE}") from None
        return lambda run: _serve(run, wish)


def parse_task(task: str) -> Wish:
    """The task as what it asks for. Raises ValueError."""
    words = shlex.split(task)
    if words[:1] != ["serve"]:
        raise ValueError(f"`{task}` is not to be understood")
    values: dict[str, Any] = {}
    pairs = words[1:]
    for option, value in zip(pairs[::2], [*pairs[1::2], ""], strict=False):
        name = option.removeprefix("--")
        if option == name or name not in Wish._fields or not value:
            raise ValueError(f"`{option}` is no option, or has no value")
        values[name] = _value(name, value)
    return Wish(**values)


def _value(name: str, text: str) -> str | float | int:
    if name == "model":
        return text
    if name == "idle":
        return parse_duration(text)
    if not re.fullmatch("[0-9]{1,7}", text):
        raise ValueError(f"`{text}` is no number for --{name}")
    return int(text)


def _serve(run: RunContext, wish: Wish) -> str:
    try:
        with Claim(find_places()) as claim:
            return _with_model(run, wish, claim)
    except Taken:
        return "a local model is served already: see `sparrow model status`"
    except (NoModel, StateError) as error:
        run.emit(Error(message=str(error)))
        raise SystemExit(1) from None


def _with_model(run: RunContext, wish: Wish, claim: Claim) -> str:
    file = (run.workspace / wish.model) if wish.model else find_or_fetch(run)
    check(file)
    name = file.name.removesuffix(".gguf")
    if not wish.model:
        name = name.partition(".")[0]
    key = secrets.token_urlsafe(24)
    server = _start(run, file, name, key, wish)
    _kept.append(server)
    url = f"{server.listening_address}/v1"
    claim.tell(Endpoint(url, name, key, _context(url, key, wish), wish.idle, not wish.model, run.id))
    run.emit(Message(role="assistant", text=f"{name} answers at {url}"))
    return _until_idle(run, server, claim, wish.idle)


def _context(url: str, key: str, wish: Wish) -> int:
    """How many tokens a conversation may have: what was asked for, or what the model was made for where that is less."""
    request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        about = json.load(answer)["data"][0].get("meta") or {}
    return min(wish.context, about.get("n_ctx_train") or wish.context)


def _start(run: RunContext, file: Path, name: str, key: str, wish: Wish) -> Any:
    """The server, which answers from now on. Raises NoModel where the library makes nothing of the file."""
    xllamacpp: Any = importlib.import_module("xllamacpp")  # it has no types
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.cors_origins = _NO_ORIGIN
    params.cors_credentials = False
    params.n_ctx = wish.context
    params.n_parallel = _AT_ONCE
    params.kv_unified = True  # so that each request may have the whole context
    params.n_threads_http = _AT_ONCE + 2
    threads = wish.threads or max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0)) // 2))
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    if not wish.model:
        params.sampling.temp, params.sampling.top_p = 0.2, 0.9  # as its makers advise
        params.n_predict = _MOST_WORDS
    params.warmup = False
    params.fit_params = False
    params.cache_ram_mib = 0
    params.ui = False
    params.endpoint_slots = False  # they would show what is asked
    params.endpoint_metrics = True
    params.verbosity = 1  # errors; more of it would be what is asked and answered
    try:
        return xllamacpp.Server(params)
    except RuntimeError:
        raise NoModel(f"{file} cannot be loaded; `sparrow logs {run.id[:8]}` says more") from None


def _until_idle(run: RunContext, server: Any, claim: Claim, idle: float) -> str:
    """Wait until nobody has asked anything for ``idle`` seconds (0: for ever); why it ends. Raises Interrupted."""
    pause = min(_LONGEST_LOOK_S, idle / 4) if idle else None
    seen: object = None
    since = time.monotonic()
    while True:
        text = run.next_message(pause)
        if text is not None:
            run.emit(Message(role="assistant", text="I answer over HTTP only: see `sparrow model status`"))
        if not idle:
            continue
        now = (_work(server), claim.asked_for)
        if now != seen or now[0] is None:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since >= idle:
            return f"nobody asked for anything for {idle:g} s"


def _work(server: Any) -> str | None:
    """What changes with each request; None while one is worked on."""
    figures = server.handle_metrics()
    if re.search(r"^llamacpp:requests_(processing|deferred) [^0]", figures, re.MULTILINE):
        return None
    return " ".join(
        re.findall(r"^llamacpp:(?:prompt_tokens|prompt_tokens_cached|tokens_predicted)_total .*", figures, re.MULTILINE)
    )
