"""A conversation taken up again: the transcript of the run that had it says all of it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from sparrow_mp.errors import StateError
from sparrow_mp.events import AnyEvent, Custom, EventError, Message, RunStarted, ToolOutput, ToolUseProposed, decode
from sparrow_mp.transcript import iter_lines

SESSION = "agent_session"
"""The name of the event that says which conversation this is, and which one it goes on with."""
_MOST_RUNS = 100


def recall(transcripts: Path, session: str) -> list[ModelMessage]:
    """What was said in the run that a session is named after, and in those before it. Raises LookupError."""
    runs: list[list[AnyEvent]] = []
    wanted: str | None = session
    while wanted is not None and len(runs) < _MOST_RUNS:
        events = _events_of(transcripts, wanted)
        runs.insert(0, events)
        wanted = _before(events)
    conversation = _Conversation()
    for events in runs:
        for event in events:
            conversation.add(event)
    return conversation.messages()


def _events_of(transcripts: Path, run: str) -> list[AnyEvent]:
    try:
        folder = transcripts / str(uuid.UUID(run))
        events = [decode(line) for line in iter_lines(folder)]
    except (ValueError, OSError, StateError, EventError) as error:
        raise LookupError(f"the conversation of run {run[:8]} cannot be read: {error}") from None
    if not events:
        raise LookupError(f"there is no transcript of run {run[:8]} any more, and so nothing to go on with")
    return events


def _before(events: list[AnyEvent]) -> str | None:
    for event in events:
        if isinstance(event, Custom) and event.name == SESSION and isinstance(event.data, dict):
            before = event.data.get("from")
            return before if isinstance(before, str) else None
    return None


class _Conversation:
    """Events become messages. A call and its answer are one pair each, whether the model made several at once or not."""

    def __init__(self) -> None:
        self._messages: list[ModelMessage] = []
        self._called: dict[str, str] = {}
        """The calls that have no answer yet, by their ids: the tools' names."""

    def add(self, event: AnyEvent) -> None:
        """One more."""
        match event:
            case RunStarted(task=text) | Message(role="user", text=text):
                self._give_up()
                self._add_to_request(UserPromptPart(text))
            case Message(role="assistant", text=text):
                self._answer(TextPart(text))
            case ToolUseProposed(id=call, name=name, args=args):
                self._answer(ToolCallPart(name, args if isinstance(args, dict) else {"args": args}, call))
                self._called[call] = name
            case ToolOutput(id=call, blocks=blocks) if call in self._called:
                texts = [block.text for block in blocks if isinstance(block.text, str)]
                self._return(call, "\n".join(texts))
            case _:
                pass

    def messages(self) -> list[ModelMessage]:
        """All of them; what was never answered is said to have been given up."""
        self._give_up()
        return self._messages

    def _return(self, call: str, text: str) -> None:
        part = ToolReturnPart(tool_name=self._called.pop(call), content=text, tool_call_id=call)
        self._add_to_request(part)

    def _give_up(self) -> None:
        for call in list(self._called):
            self._return(call, "(given up)")

    def _add_to_request(self, part: Any) -> None:
        last = self._messages[-1] if self._messages else None
        if isinstance(last, ModelRequest):
            last.parts = [*last.parts, part]
        else:
            self._messages.append(ModelRequest(parts=[part]))

    def _answer(self, part: TextPart | ToolCallPart) -> None:
        self._give_up()
        last = self._messages[-1] if self._messages else None
        if isinstance(last, ModelResponse):
            last.parts = [*last.parts, part]
        else:
            self._messages.append(ModelResponse(parts=[part]))
