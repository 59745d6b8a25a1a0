"""The configuration's servers of the Model Context Protocol, as an agent is told of them. It connects to them by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

from acp.schema import EnvVariable, HttpMcpServer, McpServerStdio

from sparrow_mp.events import Event, Message
from sparrow_mp.settings import McpSettings


def mcp_servers(wanted: Mapping[str, McpSettings], capabilities: Any, emit: Callable[[Event], None]) -> list[Any]:
    """Those that the agent can use; what it has to do without is told.

    ``capabilities`` are the agent's own: each takes servers that are programs, not each those that have an address.
    """
    takes_http = bool(getattr(getattr(capabilities, "mcp_capabilities", None), "http", False))
    found: list[Any] = []
    for name, settings in wanted.items():
        fault = ""
        program = shutil.which(settings.command) if settings.command else None
        if program is not None:
            env = [EnvVariable(name=variable, value=value) for variable, value in settings.env.items()]
            found.append(McpServerStdio(name=name, command=program, args=settings.args, env=env))
        elif settings.command:
            fault = f"there is no program `{settings.command}`"
        elif not settings.url:
            fault = "say `command` or `url`"
        elif takes_http:
            found.append(HttpMcpServer(type="http", name=name, url=settings.url, headers=[]))
        else:
            fault = "this agent takes only servers that are programs"
        if fault:
            emit(Message(role="system", text=f"The MCP server `{name}` is not there: {fault}."))
    return found
