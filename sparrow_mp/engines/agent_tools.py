"""What an agent can do: its tools, each with what it is given, its risk, and the paths it touches."""

# ruff: noqa: D102  each tool does what `Tool` says of its methods

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from sparrow_mp.command_risk import risk_of_command
from sparrow_mp.engines.agent_files import ToolError, Workspace, replaced
from sparrow_mp.engines.agent_shell import run_command
from sparrow_mp.events import DiffApplied, DiffProposed, Event, Risk

_LONGEST_PATCH = 100_000
_LONGEST_TIMEOUT_S = 3600
_Path = Annotated[str, Meta(description="relative to the workspace")]


class Use(NamedTuple):
    """What one call of a tool would do: said to whoever permits it."""

    summary: str
    kind: str
    risk: Risk
    paths: list[str]


class Desk(NamedTuple):
    """What tools work with. ``most`` is how many characters a tool may answer."""

    workspace: Workspace
    env: Mapping[str, str]
    emit: Callable[[Event], None]
    most: int


class Tool(Struct, forbid_unknown_fields=True):
    """One tool; an instance is a call of it. The docstring is what the model is told."""

    def use(self) -> Use:
        """What it would do."""
        raise NotImplementedError

    async def call(self, desk: Desk) -> str:
        """Do it; the answer for the model. Raises ToolError, OSError."""
        raise NotImplementedError

    def propose(self, desk: Desk) -> None:
        """Say more of what it would do, before it is permitted. Raises ToolError where it cannot be done."""


class Read(Tool):
    """Read a text file: its lines, numbered."""

    path: _Path
    first: Annotated[int, Meta(description="the first line, from 1")] = 1
    count: Annotated[int, Meta(description="how many lines")] = 400

    def use(self) -> Use:
        return Use(f"read {self.path}", "read", "ReadOnly", [self.path])

    async def call(self, desk: Desk) -> str:
        return await asyncio.to_thread(desk.workspace.lines, self.path, self.first, self.count)


class List(Tool):
    """List a folder; with a pattern such as `**/*.py`, all files below it whose paths match."""

    path: _Path = "."
    pattern: str = ""

    def use(self) -> Use:
        return Use(f"list {self.path} {self.pattern}".rstrip(), "list", "ReadOnly", [self.path])

    async def call(self, desk: Desk) -> str:
        place = desk.workspace
        if self.pattern:
            found = await asyncio.to_thread(place.files, self.path, self.pattern)
        else:
            found = await asyncio.to_thread(place.entries, self.path)
        return "\n".join(found) or "(nothing)"


class Search(Tool):
    """Search files for a regular expression (Python's); each line that matches, as `path:line: text`."""

    regex: str
    path: Annotated[str, Meta(description="a file or a folder, relative to the workspace")] = "."
    files: Annotated[str, Meta(description="only in files whose names match, such as `*.py`")] = "*"

    def use(self) -> Use:
        return Use(f"search {self.path} for {self.regex}", "search", "ReadOnly", [self.path])

    async def call(self, desk: Desk) -> str:
        found = await asyncio.to_thread(desk.workspace.search, self.path, self.regex, self.files)
        return "\n".join(found) or "(no match)"


class Write(Tool):
    """Write a whole file, anew or over what there is. To change a part of one, use `edit`."""

    path: _Path
    text: str

    def use(self) -> Use:
        return Use(f"write {self.path}", "edit", "Mutating", [self.path])

    def propose(self, desk: Desk) -> None:
        before = desk.workspace.before(self.path) or ""
        desk.emit(diff_of(self.path, before, self.text))

    async def call(self, desk: Desk) -> str:
        desk.workspace.write(self.path, self.text)
        desk.emit(DiffApplied(file=self.path))
        return f"wrote {self.path}"


class Edit(Tool):
    """Replace an exact piece of a file's text, white space included, by another. It has to be there exactly once."""

    path: _Path
    old: str
    new: str
    everywhere: Annotated[bool, Meta(description="replace each, however often it is there")] = False

    def use(self) -> Use:
        return Use(f"edit {self.path}", "edit", "Mutating", [self.path])

    def propose(self, desk: Desk) -> None:
        desk.emit(diff_of(self.path, *self._texts(desk)))

    async def call(self, desk: Desk) -> str:
        desk.workspace.write(self.path, self._texts(desk)[1])
        desk.emit(DiffApplied(file=self.path))
        return f"edited {self.path}"

    def _texts(self, desk: Desk) -> tuple[str, str]:
        text = desk.workspace.text(self.path)
        return text, replaced(text, self.old, self.new, everywhere=self.everywhere)


class Shell(Tool):
    """Run a command line with sh in the workspace; what it prints, and its exit code. It has no input."""

    command: str
    timeout: Annotated[float, Meta(description="seconds; then it is ended")] = 120

    def use(self) -> Use:
        return Use(f"run {self.command}", "execute", risk_of_command(self.command), ["."])

    async def call(self, desk: Desk) -> str:
        if "\0" in self.command:
            raise ToolError("a command cannot have a NUL in it")
        timeout = max(1.0, min(self.timeout, _LONGEST_TIMEOUT_S))  # 1, for what is no number
        ended = await run_command(self.command, desk.workspace.root, desk.env, timeout, desk.most)
        how = f"ended after {timeout:g} s: it took too long" if ended.code is None else f"exit code {ended.code}"
        output = f"{ended.output.rstrip()}\n({how})".lstrip()
        if ended.code != 0:
            raise ToolError(output)
        return output


TOOLS: dict[str, type[Tool]] = {
    "read": Read, "list": List, "search": Search, "write": Write, "edit": Edit, "shell": Shell,
}  # fmt: skip


def schema_of(tool: type[Tool]) -> dict[str, Any]:
    """The JSON schema of what a tool is given."""
    _, components = msgspec.json.schema_components([tool])
    (schema,) = components.values()
    wanted = {"type", "properties", "required"}
    return {key: value for key, value in schema.items() if key in wanted}


def call_of(name: str, args: Any) -> Tool:
    """A call of the tool of that name. Raises ToolError where that makes no sense."""
    kind = TOOLS.get(name)
    if kind is None:
        raise ToolError(f"there is no tool `{name}`; there are {', '.join(TOOLS)}")
    try:
        return msgspec.convert(args, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ToolError(f"`{name}` is not called so: {error}") from None


def diff_of(file: str, old: str, new: str) -> DiffProposed:
    """A change of a file, as an event."""
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), file, file, lineterm=""))
    changes = lines[2:]
    plus = sum(line.startswith("+") for line in changes)
    minus = sum(line.startswith("-") for line in changes)
    return DiffProposed(file=file, patch="\n".join(lines)[:_LONGEST_PATCH], plus=plus, minus=minus)
