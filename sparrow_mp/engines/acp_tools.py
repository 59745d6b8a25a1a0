"""An agent's tool calls as events: each is told once that it is proposed, that it runs, and what came of it, in whatever order
and however often the agent tells of it.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from acp.schema import FileEditToolCallContent

from sparrow_mp.command_risk import risk_of_command
from sparrow_mp.events import Block, DiffApplied, DiffProposed, Event, Risk, ToolOutput, ToolUseProposed, ToolUseStarted

_RISKS: dict[str, Risk] = {
    "read": "ReadOnly", "search": "ReadOnly", "think": "ReadOnly", "edit": "Mutating", "move": "Mutating",
    "delete": "Destructive", "fetch": "Network", "switch_mode": "Mutating",
}  # fmt: skip
_LONGEST = 100_000
"""Characters of a text, a patch or the arguments in an event, which may have 1 MiB: each may take six bytes there."""
_LONGEST_WORDS = 1000
"""Characters of a title, an id or a path."""
_MOST_LINES = 10_000
"""Of a file, old and new, that is compared line by line: how long that takes grows with their product."""


class ToolCall:
    """What is known of one. What the agent has not said yet is what is most cautious."""

    def __init__(self, call: str) -> None:
        self.id = call[:_LONGEST_WORDS]
        self.title = self.id
        self.kind = "other"
        self.input: Any = None
        self._places: list[str] = []
        self.texts: list[str] = []
        self.files: dict[str, tuple[str, str]] = {}
        self.proposed = self.started = self.ended = False
        self.allowed: frozenset[Path] = frozenset()
        """The files that it may write: where the paths that were permitted led to then."""

    def take(self, update: Any) -> None:
        """What an update says anew; what it leaves out stays."""
        self.title = (update.title or self.title)[:_LONGEST_WORDS]
        self.kind = update.kind or self.kind
        self.input = update.raw_input if update.raw_input is not None else self.input
        if update.locations is not None:
            self._places = [location.path for location in update.locations]
        if update.content is not None:
            self.texts = [text for content in update.content if (text := _text_of(content))]
            edits = [content for content in update.content if isinstance(content, FileEditToolCallContent)]
            if edits:  # else it tells in their place, when it has ended, that it has made them
                self.files = {edit.path: (edit.old_text or "", edit.new_text) for edit in edits}

    @property
    def paths(self) -> list[str]:
        """All that it says it is about."""
        return [*self._places, *self.files]

    @property
    def arguments(self) -> Any:
        """Its input, or the beginning of that where it is too large for an event."""
        text = msgspec.json.encode(self.input)
        return self.input if len(text) <= _LONGEST else f"{text[:_LONGEST].decode('utf-8', 'replace')}…"

    @property
    def risk(self) -> Risk:
        """As far as it can be known."""
        command = self.input.get("command") if isinstance(self.input, dict) else None
        if isinstance(command, str) or (isinstance(command, list) and all(isinstance(word, str) for word in command)):
            return risk_of_command(command)
        return _RISKS.get(self.kind, "Exec")


class ToolCalls:
    """All of a session's."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._calls: dict[str, ToolCall] = {}

    def update(self, update: Any, *, asked: bool = False) -> ToolCall:
        """Take an update of a call into account, the first one that was heard of it or not, and tell what is new.

        It is told as proposed when it is to begin, or is ``asked`` for: until then agents add to what it is to do.
        """
        call = self._calls.setdefault(update.tool_call_id, ToolCall(update.tool_call_id))
        if call.ended:
            return call
        shown = dict(call.files)
        call.take(update)
        status = update.status
        if not call.proposed and (asked or status not in (None, "pending")):
            call.proposed = True
            self._emit(ToolUseProposed(id=call.id, name=call.title[:200], args=call.arguments, risk=call.risk))
        for file, (old, new) in call.files.items():
            if shown.get(file) != (old, new):
                self._emit(_diff(file, old, new))
        if status in ("in_progress", "completed", "failed") and not call.started:
            call.started = True
            self._emit(ToolUseStarted(id=call.id))
        if status in ("completed", "failed") and not call.ended:
            call.ended = True
            self._end(call, failed=status == "failed", output=update.raw_output)
        return call

    def allow(self, call: ToolCall, real: Callable[[str], Path]) -> None:
        """Somebody has permitted it. ``real`` tells where a path leads to."""
        if call.risk == "Mutating" and not call.ended:
            call.allowed = frozenset(map(real, call.paths))

    def allows(self, file: Path) -> bool:
        """Whether a call that is under way was permitted to write this file."""
        return any(file in call.allowed for call in self._calls.values())

    def _end(self, call: ToolCall, *, failed: bool, output: Any) -> None:
        if not failed:
            for file in call.files:
                self._emit(DiffApplied(file=file[:_LONGEST_WORDS]))
        texts = call.texts or ([output] if isinstance(output, str) else [])
        self._emit(ToolOutput(id=call.id, blocks=_blocks(texts), is_error=failed))
        call.allowed = frozenset()
        call.texts, call.files, call.input = [], {}, None  # they may be large, and there may be many calls


def _blocks(texts: list[str]) -> list[Block]:
    """As many as have room in an event."""
    blocks: list[Block] = []
    left = _LONGEST
    for text in texts:
        if left <= 0:
            break
        blocks.append(Block(text=text[:left]))
        left -= len(text) + _LONGEST_WORDS  # so that their number is bounded too
    return blocks


def _diff(file: str, old: str, new: str) -> DiffProposed:
    file = file[:_LONGEST_WORDS]
    before, after = old.splitlines(), new.splitlines()
    if len(before) + len(after) > _MOST_LINES:
        gone, come = Counter(before), Counter(after)
        patch = f"(too large to compare line by line: {len(before)} lines before, {len(after)} after)"
        return DiffProposed(file=file, patch=patch, plus=(come - gone).total(), minus=(gone - come).total())
    lines = list(difflib.unified_diff(before, after, file, file, lineterm=""))
    plus = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
    minus = sum(line.startswith("-") and not line.startswith("---") for line in lines)
    return DiffProposed(file=file, patch="\n".join(lines)[:_LONGEST], plus=plus, minus=minus)


def _text_of(content: Any) -> str:
    text = getattr(getattr(content, "content", None), "text", None)
    return text if isinstance(text, str) else ""
