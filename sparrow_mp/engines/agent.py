"""Engine ``agent``: a loop of our own around any language model: it is asked, it uses tools, until it has done the task.

What is injected meanwhile is said to the model with its next request. The model is chosen by ``--agent``, or by the setting
`models.chain`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

from sparrow_mp.errors import SparrowError
from sparrow_mp.events import Custom, Error, Message
from sparrow_mp.run.context import RunContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_ai.messages import ModelMessage

    from sparrow_mp.engines.agent_mcp import Servers
    from sparrow_mp.engines.agent_models import Choice
    from sparrow_mp.paths import Places
    from sparrow_mp.settings import Config

_INSTRUCTIONS = """\
You are an agent that works on its own in the folder {workspace}: you have tools to read, search, write and edit its files and to \
run commands there. Do the task that you are given, step by step, and do only that. Look before you change something, and see \
afterwards whether it is right, for instance by running the tests. Use no tool where none is needed. A call may be refused: then \
go on without it. When you are done, say briefly what you have done; do not ask questions, as nobody may be there to answer."""

_ADVICE = "AGENTS.md"
_TALK = "You are a helpful assistant. Answer briefly."

_SMALL = (
    "No model is configured, so this is `{model}`, on this machine: a small one for trying things out, without tools. To choose"
    " another say --agent provider:model, or set `models.chain`."
)
_OWN = "No model is configured, so this is `{model}`, on this machine. To choose another say --agent, or set `models.chain`."


class AgentEngine:
    """Asks the models that ``--agent`` names, or that are configured."""

    def command(self, _: RunContext) -> None:
        """There is none to execute in place of this process: it is the agent."""

    def find(self, run: RunContext) -> Any:
        """What drives the run. Raises LookupError where the extra is missing."""
        if any(importlib.util.find_spec(name) is None for name in ("pydantic_ai", "openai")):
            raise LookupError("the engine `agent` needs its library: pip install 'sparrow-mp[agent]'")
        return _drive


async def _drive(run: RunContext) -> str:
    from sparrow_mp.engines.agent_loop import Failed

    logging.disable(
        logging.CRITICAL
    )  # what the libraries log of an endpoint's faults is told as events, without any key
    warnings.simplefilter("ignore")
    try:
        return await _work(run)
    except Failed as failed:
        run.emit(Error(message=str(failed)))
        raise SystemExit(1) from None


async def _work(run: RunContext) -> str:
    """Set everything up, and hold the conversation. Raises Failed."""
    from sparrow_mp.config import load_config
    from sparrow_mp.engines.agent_loop import Failed, Loop
    from sparrow_mp.engines.agent_models import choices, open_model
    from sparrow_mp.engines.agent_requests import NoModel, Requests
    from sparrow_mp.engines.agent_secrets import Redactor, key_of, without_keys
    from sparrow_mp.engines.agent_toolbox import Toolbox
    from sparrow_mp.paths import find_places

    places = find_places(os.environ, run.config)
    try:
        config = load_config(places.config, os.environ)
    except SparrowError as error:
        raise Failed(error.message) from None
    keys = {config.models.key_env, *(endpoint.key_env for endpoint in config.endpoints.values())} - {""}
    redactor = Redactor(os.environ)
    for variable in keys:
        redactor.add(variable, key_of(variable, os.environ) or "")
    for server in config.mcp.values():
        for variable, value in server.env.items():
            redactor.add(variable, value)
    asked = None if run.agent == "agent" else run.agent
    chosen = choices(config, asked, os.environ) or [await _local(run, places)]
    for choice in chosen:
        redactor.add("key", choice.key or "")
    env = without_keys(os.environ, keys)
    async with contextlib.AsyncExitStack() as stack:
        try:
            requests = Requests(
                chosen,
                lambda choice: open_model(choice, os.environ),
                config.models,
                lambda event: run.emit(redactor.event(event)),
            )
        except NoModel as error:
            raise Failed(redactor.text(str(error))) from None
        servers = await _servers(run, config, env, stack) if config.mcp and chosen[0].tools else None
        toolbox = Toolbox(run, env, redactor, requests.current.window, servers) if chosen[0].tools else None
        instructions = _instructions(run, requests.current.window) if toolbox is not None else _TALK
        recalled = _recalled(run, places)
        return await Loop(run, requests, toolbox, config.models, instructions, redactor, recalled).hold()


def _instructions(run: RunContext, window: int) -> str:
    """What the model is told before all else, with what the folder itself says to agents."""
    from sparrow_mp.engines.agent_files import ToolError, Workspace

    own = ""
    with contextlib.suppress(ToolError):
        own = Workspace(run.workspace).text(_ADVICE)[: window // 2]  # characters: an eighth of the window
    return _INSTRUCTIONS.format(workspace=run.workspace) + (f"\n\n{_ADVICE} of this folder says:\n{own}" if own else "")


def _recalled(run: RunContext, places: Places) -> Sequence[ModelMessage]:
    """What was said before, where this run goes on with another one's conversation. Raises Failed."""
    from sparrow_mp.engines.agent_loop import Failed
    from sparrow_mp.engines.agent_recall import SESSION, recall

    try:
        recalled = recall(places.transcripts, run.session) if run.session is not None else []
    except LookupError as error:
        raise Failed(str(error)) from None
    run.emit(Custom(name=SESSION, data={"id": run.id, "can_load": True, "from": run.session}))
    return recalled


async def _servers(
    run: RunContext, config: Config, env: dict[str, str], stack: contextlib.AsyncExitStack
) -> Servers | None:
    """The MCP servers of the configuration; those that are not there are told, and the run goes on without them."""
    try:
        from sparrow_mp.engines.agent_mcp import Servers
    except ImportError:
        run.emit(
            Message(role="system", text="MCP servers need a library that is missing: pip install 'sparrow-mp[agent]'")
        )
        return None
    servers = Servers(env, run.workspace)
    for name, settings in config.mcp.items():
        fault = await servers.add(stack, name, settings)
        if fault:
            run.emit(Message(role="system", text=f"The MCP server `{name}` is not there: {fault}."))
    return servers


async def _local(run: RunContext, places: Places) -> Choice:
    """The small model on this machine. Raises Failed."""
    from sparrow_mp.engines.agent_loop import Failed
    from sparrow_mp.engines.agent_models import Choice
    from sparrow_mp.local_model import ensure_async
    from sparrow_mp.settings import EndpointSettings

    try:
        found = await ensure_async(places, tell=lambda words: run.emit(Message(role="system", text=words)))
    except SparrowError as error:
        raise Failed(
            f"no model is configured (say --agent provider:model, or set `models.chain`), and {error.message}"
        ) from None
    run.emit(Message(role="system", text=(_SMALL if found.small else _OWN).format(model=found.model)))
    endpoint = EndpointSettings(base_url=found.base_url, model=found.model)
    return Choice(found.model, endpoint, found.context, key=found.api_key, tools=not found.small)
