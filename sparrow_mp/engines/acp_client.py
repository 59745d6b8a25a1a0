"""Our end of the Agent Client Protocol: what the agent tells becomes events, and what it wants is permitted or not."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

from acp.exceptions import RequestError
from acp.schema import (
    AgentMessageChunk,
    AgentPlanUpdate,
    AgentThoughtChunk,
    AllowedOutcome,
    CreateTerminalResponse,
    DeniedOutcome,
    EnvVariable,
    KillTerminalResponse,
    PermissionOption,
    PromptResponse,
    ReadTextFileResponse,
    ReleaseTerminalResponse,
    RequestPermissionResponse,
    TerminalExitStatus,
    TerminalOutputResponse,
    ToolCallProgress,
    ToolCallStart,
    ToolCallUpdate,
    UsageUpdate,
    WaitForTerminalExitResponse,
    WriteTextFileResponse,
)

from sparrow_mp.command_risk import risk_of_command
from sparrow_mp.engines.acp_terminals import Terminals
from sparrow_mp.engines.acp_tools import ToolCalls
from sparrow_mp.events import CostUpdate, Decision, Message, Progress, Risk, ThinkingDelta, TokenUsage
from sparrow_mp.regular import open_regular, read_regular
from sparrow_mp.run.context import Interrupted, RunContext

_LONGEST_TEXT = 100_000
"""Characters that are gathered before they are an event, whether the agent has ended its sentence or not."""
_LONGEST_NOTE = 1000
_NOT_PERMITTED = -32001
"""Not -32000, which asks for a login."""
_MOST_TOKENS = 1 << 53
_LARGEST_FILE = 20 << 20


class _Withdrawn(Exception):
    """Nobody is asked any more."""


class Client:
    """What the agent may call. The library calls each in a task of its own, in the order in which they came."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._said: list[str] = []
        self._role = ""
        self._size = 0
        self._tools = ToolCalls(run.emit)
        self._terminals = Terminals()
        self._asking: set[asyncio.Task[Decision]] = set()
        self._message: str | None = None
        self.recalls = False
        """Whether what it tells is what had happened before, and is recorded with the run that it happened in."""
        self.recalled = 0
        """How many updates that was."""

    # ── what it tells ──

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        """Something has happened in the session."""
        if self.recalls:
            self.recalled += 1
            return
        match update:
            case AgentMessageChunk():
                self._say("assistant", _text_of(update.content), update.message_id)
            case AgentThoughtChunk():
                self._say("thought", _text_of(update.content), update.message_id)
            case ToolCallStart() | ToolCallProgress():
                self.flush()
                self._tools.update(update)
            case AgentPlanUpdate():
                self.flush()
                done = sum(entry.status == "completed" for entry in update.entries)
                now = next((entry.content for entry in update.entries if entry.status == "in_progress"), "")
                note = now[:_LONGEST_NOTE] or None
                self._run.emit(Progress(done=done, total=len(update.entries), unit="steps", note=note))
            case UsageUpdate(cost=cost) if cost is not None and cost.currency.upper() == "USD":
                self._run.emit(CostUpdate(usd=cost.amount))
            case _:
                pass  # modes, commands and titles are for editors

    def _say(self, role: str, text: str, message: str | None) -> None:
        """Gather a piece of a message: what is one message is one event."""
        if (role, message) != (self._role, self._message) or self._size > _LONGEST_TEXT:
            self.flush()
        self._role, self._message = role, message
        self._said.append(text)
        self._size += len(text)

    def flush(self) -> None:
        """What was gathered is an event now."""
        text = "".join(self._said)
        self._said.clear()
        self._size = 0
        for start in range(0, len(text), _LONGEST_TEXT):
            part = text[start : start + _LONGEST_TEXT]
            self._run.emit(
                ThinkingDelta(text=part) if self._role == "thought" else Message(role="assistant", text=part)
            )

    def turn_ended(self, done: PromptResponse) -> None:
        """The agent has nothing more to say to its prompt."""
        self.flush()
        usage = _usage_of(done)
        if usage is not None:
            self._run.emit(usage)

    # ── what it wants ──

    async def request_permission(
        self, session_id: str, tool_call: ToolCallUpdate, options: list[PermissionOption], **_: Any
    ) -> RequestPermissionResponse:
        """Whether it may go on with a tool call; the answer is one of its own options."""
        self.flush()
        call = self._tools.update(tool_call, asked=True)
        try:
            decision = await self._ask(call.title, call.kind, call.risk, call.paths)
        except (Interrupted, _Withdrawn):  # the protocol has a word for it
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        if decision.startswith("Allow"):
            self._tools.allow(call, self._real)
        wanted = ("allow_once", "allow_always") if decision.startswith("Allow") else ("reject_once", "reject_always")
        # Once, if it can be had: what was allowed for longer is remembered by us, and can be looked up.
        chosen = next((option for kind in wanted for option in options if option.kind == kind), None)
        if chosen is None:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=chosen.option_id))

    async def _ask(self, summary: str, tool: str, risk: Risk, paths: list[str]) -> Decision:
        """Raises Interrupted, or _Withdrawn where the turn ends before anybody has answered."""
        asking = asyncio.ensure_future(self._run.permit_async(summary, tool=tool, risk=risk, paths=paths))
        self._asking.add(asking)
        try:
            await asyncio.wait([asking])
            if asking.cancelled():
                raise _Withdrawn
            return asking.result()
        finally:
            self._asking.discard(asking)
            asking.cancel()

    def withdraw(self) -> None:
        """The turn is to end: nobody is to be asked any more for what was in it."""
        for asking in self._asking:
            asking.cancel()

    async def _allow(self, summary: str, tool: str, risk: Risk, paths: list[str]) -> None:
        """Raises RequestError where it may not."""
        try:
            allowed = (await self._ask(summary, tool, risk, paths)).startswith("Allow")
        except (Interrupted, _Withdrawn):
            allowed = False
        if not allowed:
            raise RequestError(_NOT_PERMITTED, f"not permitted: {summary[:_LONGEST_NOTE]}")

    async def read_text_file(
        self, session_id: str, path: str, line: int | None = None, limit: int | None = None, **_: Any
    ) -> ReadTextFileResponse:
        """A file of the workspace, or some lines of it."""
        real = self._real(path)
        await self._allow(f"read {path[:_LONGEST_NOTE]}", "read", "ReadOnly", [path, str(real)])
        try:
            lines = (await asyncio.to_thread(_read, real)).splitlines(keepends=True)
        except FileNotFoundError:
            raise RequestError.resource_not_found(path) from None
        except OSError as error:
            raise RequestError.internal_error({"details": f"{path}: {error.strerror}"}) from None
        first = max(0, (line or 1) - 1)
        return ReadTextFileResponse(content="".join(lines[first : None if limit is None else first + limit]))

    def _real(self, path: str) -> Path:
        """Where it leads to now, which is what is permitted and what is opened. Raises RequestError for what is no path."""
        if "\0" in path:
            raise RequestError.invalid_params({"details": "a path has no NUL in it"})
        return Path(os.path.realpath(self._run.workspace / path))

    async def write_text_file(self, session_id: str, path: str, content: str, **_: Any) -> WriteTextFileResponse:
        """Write a file of the workspace."""
        real = self._real(path)
        if not self._tools.allows(
            real
        ):  # else they were asked for the tool call, and would be for each file of it again
            await self._allow(f"write {path[:_LONGEST_NOTE]}", "edit", "Mutating", [path, str(real)])
        try:
            await asyncio.to_thread(_write, real, content)
        except OSError as error:
            raise RequestError.internal_error({"details": f"{path}: {error.strerror}"}) from None
        return WriteTextFileResponse()

    async def create_terminal(
        self,
        session_id: str,
        command: str,
        args: list[str] | None = None,
        env: list[EnvVariable] | None = None,
        cwd: str | None = None,
        output_byte_limit: int | None = None,
        **_: Any,
    ) -> CreateTerminalResponse:
        """Run a command in the workspace."""
        words = [command, *(args or [])]
        line = command if not args else " ".join(words)
        folder = cwd or str(self._run.workspace)
        await self._allow(
            f"run {line[:_LONGEST_NOTE]}", "execute", risk_of_command(line if not args else words), [folder]
        )
        extra = {variable.name: variable.value for variable in env or []}
        try:
            terminal = await self._terminals.begin(words, folder, {**os.environ, **extra}, output_byte_limit)
        except OSError as error:
            raise RequestError.internal_error({"details": f"{command}: {error.strerror}"}) from None
        return CreateTerminalResponse(terminal_id=terminal)

    async def terminal_output(self, session_id: str, terminal_id: str, **_: Any) -> TerminalOutputResponse:
        """What a command has printed so far."""
        terminal = self._terminals.get(terminal_id)
        return TerminalOutputResponse(
            output=terminal.output(), truncated=terminal.truncated, exit_status=_status(terminal.returncode)
        )

    async def wait_for_terminal_exit(self, session_id: str, terminal_id: str, **_: Any) -> WaitForTerminalExitResponse:
        """Wait for a command's end."""
        status = _status(await self._terminals.get(terminal_id).wait()) or TerminalExitStatus()
        return WaitForTerminalExitResponse(exit_code=status.exit_code, signal=status.signal)

    async def kill_terminal(self, session_id: str, terminal_id: str, **_: Any) -> KillTerminalResponse:
        """End a command; what it printed stays."""
        self._terminals.get(terminal_id).kill()
        return KillTerminalResponse()

    async def release_terminal(self, session_id: str, terminal_id: str, **_: Any) -> ReleaseTerminalResponse:
        """End a command and forget it."""
        await self._terminals.release(terminal_id)
        return ReleaseTerminalResponse()

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """There are no extensions."""
        raise RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """There are no extensions."""

    async def close(self) -> None:
        """End what runs for it."""
        await self._terminals.close()


def _read(real: Path) -> str:
    """Raises OSError."""
    _unmoved(real)
    return read_regular(real, _LARGEST_FILE).decode("utf-8", "replace")


def _write(real: Path, content: str) -> None:
    """Raises OSError."""
    real.parent.mkdir(parents=True, exist_ok=True)
    _unmoved(real)
    fd = open_regular(real, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    with open(fd, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(content)


def _unmoved(real: Path) -> None:
    """Raises OSError where the path leads elsewhere by now than it did when it was permitted."""
    if os.path.realpath(real) != str(real):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(real))


def _usage_of(done: PromptResponse) -> TokenUsage | None:
    """What a turn has used, in the protocol's place for it or in Gemini CLI's."""
    if done.usage is not None:
        return TokenUsage(input=done.usage.input_tokens, output=done.usage.output_tokens)
    quota = (done.field_meta or {}).get("quota")
    count = quota.get("token_count") if isinstance(quota, dict) else None
    used = [count.get(name) for name in ("input_tokens", "output_tokens")] if isinstance(count, dict) else []
    numbers = [number for number in used if isinstance(number, int) and 0 <= number < _MOST_TOKENS]
    return TokenUsage(input=numbers[0], output=numbers[1]) if len(numbers) == 2 else None


def _text_of(content: Any) -> str:
    """A piece of a message, as text: what is none is named."""
    text = getattr(content, "text", None)
    return text if isinstance(text, str) else f"[{getattr(content, 'type', 'something')}]"


def _status(returncode: int | None) -> TerminalExitStatus | None:
    if returncode is None:
        return None
    return TerminalExitStatus(
        exit_code=returncode if returncode >= 0 else None, signal=str(-returncode) if returncode < 0 else None
    )
