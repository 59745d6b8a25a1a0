"""Calls of tools: each told, judged, done and answered, whatever a model makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic_ai.tools import ToolDefinition

from sparrow_mp.engines.agent_files import ToolError, Workspace
from sparrow_mp.engines.agent_secrets import Redactor
from sparrow_mp.engines.agent_tools import TOOLS, Desk, Use, call_of, schema_of
from sparrow_mp.events import Block, Event, ToolOutput, ToolUseProposed, ToolUseStarted
from sparrow_mp.run.context import RunContext

if TYPE_CHECKING:
    from sparrow_mp.engines.agent_mcp import Servers

_LONGEST_ANSWER = 30_000
_LONGEST_ARGS = 100_000
_SHARE = 0.5
"""Characters per token of the window that one answer may have: an eighth of it."""
REFUSED = "This was not permitted. Do not try to do the same in another way: go on without it, or say what you need."


class Toolbox:
    """The tools of one run: ours, and those of MCP servers."""

    def __init__(
        self, run: RunContext, env: Mapping[str, str], redactor: Redactor, window: int, servers: Servers | None = None
    ) -> None:
        self._run = run
        self._redactor = redactor
        self._servers = servers
        self._most = min(_LONGEST_ANSWER, int(_SHARE * window))
        self._desk = Desk(Workspace(run.workspace), env, self._emit, self._most)
        self._calls: set[str] = set()

    def _emit(self, event: Event) -> None:
        self._run.emit(self._redactor.event(event))

    def definitions(self) -> list[ToolDefinition]:
        """What the model is told of them."""
        ours = [
            ToolDefinition(name=name, description=tool.__doc__, parameters_json_schema=schema_of(tool), strict=False)
            for name, tool in TOOLS.items()
        ]
        return ours + (self._servers.definitions() if self._servers is not None else [])

    async def call(self, call: str, name: str, args: Any) -> str:
        """Do what the model wants, as far as that is permitted; the answer for it, whatever becomes of it."""
        call = self._unique(call)
        try:
            if self._servers is not None and self._servers.has(name):
                return await self._foreign(self._servers, call, name, args)
            return await self._own(call, name, args)
        except asyncio.CancelledError:
            self._tell(call, "given up", failed=True)
            raise

    async def _own(self, call: str, name: str, args: Any) -> str:
        """One of our tools."""
        try:
            tool = call_of(name, args)
        except ToolError as error:
            self._propose(call, name, args, Use("", "", "ReadOnly", []))
            return self._tell(call, str(error), failed=True)
        use = tool.use()
        self._propose(call, name, args, use)
        try:
            tool.propose(self._desk)
            if not await self._permitted(use):
                return self._tell(call, REFUSED, failed=True)
            self._emit(ToolUseStarted(id=call))
            return self._tell(call, await tool.call(self._desk), failed=False)
        except ToolError as error:
            return self._tell(call, str(error), failed=True)
        except OSError as error:
            return self._tell(call, error.strerror or str(error), failed=True)

    async def _foreign(self, servers: Servers, call: str, name: str, args: Any) -> str:
        """One of a server's tools."""
        given = args if isinstance(args, dict) else {}
        use = servers.use(name, given)
        self._propose(call, name, args, use)
        if not await self._permitted(use):
            return self._tell(call, REFUSED, failed=True)
        self._emit(ToolUseStarted(id=call))
        try:
            return self._tell(call, await servers.call(name, given), failed=False)
        except ToolError as error:
            return self._tell(call, str(error), failed=True)

    def _unique(self, call: str) -> str:
        """Some endpoints begin anew to count in each answer."""
        wanted = call or "call"
        unique, n = wanted, 1
        while unique in self._calls:
            n += 1
            unique = f"{wanted}-{n}"
        self._calls.add(unique)
        return unique

    def _propose(self, call: str, name: str, args: Any, use: Use) -> None:
        self._emit(ToolUseProposed(id=call, name=name[:200], args=_clipped(args), risk=use.risk))

    async def _permitted(self, use: Use) -> bool:
        summary = self._redactor.text(use.summary)[:2000]
        decision = await self._run.permit_async(summary, tool=use.kind, risk=use.risk, paths=use.paths)
        return decision.startswith("Allow")

    def _tell(self, call: str, answer: str, *, failed: bool) -> str:
        """The answer, without secrets and no longer than the model can use, told as the tool's output."""
        text = self._redactor.text(answer)
        if len(text) > self._most:
            text = f"{text[: self._most]}\n[… {len(text) - self._most} characters left out …]"
        self._run.emit(ToolOutput(id=call, blocks=[Block(text=text)], is_error=failed))
        return text


def _clipped(args: Any) -> Any:
    """What is given to a tool, where its JSON is not too long for an event; else the beginning of that."""
    text = json.dumps(args, ensure_ascii=True, default=str)
    return args if len(text) <= _LONGEST_ARGS else f"{text[:_LONGEST_ARGS]}…"
