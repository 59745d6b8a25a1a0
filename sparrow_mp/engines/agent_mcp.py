"""Tools of MCP servers, which the configuration names: started or called, asked for their tools, and ended with the run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mcp import Client, StdioServerParameters
from pydantic_ai.tools import ToolDefinition

from sparrow_mp.engines.agent_files import ToolError
from sparrow_mp.engines.agent_tools import Use
from sparrow_mp.events import Risk
from sparrow_mp.settings import McpSettings

_GREETING_S = 30.0
_CALL_S = 600.0
_LONGEST_NAME = 64


class Offered(NamedTuple):
    """One tool of a server."""

    client: Client
    server: str
    tool: Any
    risk: Risk


class Servers:
    """The servers that are there, and their tools by the names that the model knows."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        self._env = env
        self._folder = folder
        self._tools: dict[str, Offered] = {}

    async def add(self, stack: contextlib.AsyncExitStack, name: str, settings: McpSettings) -> str:
        """Have one more, until the stack ends. Why that cannot be; empty where it can."""
        if not settings.command and not settings.url:
            return "say `command` or `url`"
        risk: Risk = "Exec" if settings.command else "Network"
        try:
            async with asyncio.timeout(_GREETING_S):
                client = await stack.enter_async_context(Client(self._server(settings), read_timeout_seconds=_CALL_S))
                tools = (await client.list_tools()).tools
        except TimeoutError:
            return f"it does not answer within {_GREETING_S:g} s"
        except Exception as error:  # whatever a server does wrong comes as an exception of one of four libraries
            reason = _reason(error)
            return reason.replace(settings.url, "its address") if settings.url else reason  # which may have a key in it
        for tool in tools:
            self._tools[_name_of(name, tool.name)] = Offered(client, name, tool, _risk_of(tool, risk))
        return ""

    def _server(self, settings: McpSettings) -> StdioServerParameters | str:
        if not settings.command:
            return settings.url
        env = {**self._env, **settings.env}
        return StdioServerParameters(command=settings.command, args=settings.args, env=env, cwd=self._folder)

    def definitions(self) -> list[ToolDefinition]:
        """What the model is told of them."""
        return [
            ToolDefinition(
                name=name,
                description=offered.tool.description or offered.tool.name,
                parameters_json_schema=dict(offered.tool.input_schema),
                strict=False,
            )
            for name, offered in self._tools.items()
        ]

    def has(self, name: str) -> bool:
        """Whether a server offers this."""
        return name in self._tools

    def use(self, name: str, args: Mapping[str, Any]) -> Use:
        """What a call would do, as far as it can be known."""
        offered = self._tools[name]
        return Use(f"{offered.server}: {offered.tool.name} {json.dumps(args, default=str)}", name, offered.risk, [])

    async def call(self, name: str, args: dict[str, Any]) -> str:
        """The tool's answer. Raises ToolError."""
        offered = self._tools[name]
        try:
            result: Any = await offered.client.call_tool(offered.tool.name, args)
        except Exception as error:  # as above
            raise ToolError(f"the server `{offered.server}`: {_reason(error)}") from None
        text = "\n".join(_text_of(block) for block in result.content)
        if result.is_error:
            raise ToolError(text or "it failed")
        return text or "(nothing)"


def _name_of(server: str, tool: str) -> str:
    """What models take for a name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{server}_{tool}")[:_LONGEST_NAME]


def _risk_of(tool: Any, otherwise: Risk) -> Risk:
    notes = tool.annotations
    if notes is not None and notes.read_only_hint:
        return "ReadOnly"
    if notes is not None and notes.destructive_hint:
        return "Destructive"
    return otherwise


def _text_of(block: Any) -> str:
    text = getattr(block, "text", None)
    return text if isinstance(text, str) else f"[{getattr(block, 'type', 'something')}]"


def _reason(error: BaseException) -> str:
    """The words of the first cause that has any."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split("\n", 1)[0][:300] or type(error).__name__
