"""What of a long conversation is kept as it is, and what is summed up. Pure: nothing here asks a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

CHARS_PER_TOKEN = 4
_KEPT_SHARE = 0.3
"""How much of the window the newest turns may take after a compaction."""
_LONGEST_WORDS = 4000
"""Characters of what people said that are kept as they are."""

SUMMARY_REQUEST = (
    "Sum up the work so far for yourself, as you will go on with nothing but this summary: what you were asked for, what you"
    " have found out (with the names of files and what matters in them), what you have changed, what is left to do. Do not"
    " call any tool and do not go on with the work now."
)


def chars_of(messages: Sequence[ModelMessage]) -> int:
    """The characters that the messages have."""
    return sum(len(text) for message in messages for text in _texts(message))


def tokens_of(messages: Sequence[ModelMessage]) -> int:
    """About how many tokens that is."""
    return chars_of(messages) // CHARS_PER_TOKEN


def too_long(messages: Sequence[ModelMessage], measured: int, window: int, share: float) -> bool:
    """Whether to compact before the next request; ``measured`` is how many tokens the last one is known to have had."""
    return max(measured, tokens_of(messages)) > share * window


def cut_of(messages: Sequence[ModelMessage], window: int) -> int:
    """From where on the messages are kept as they are: an answer of the model, so that no tool's answer lacks its question.

    The last answer is kept in any case: what comes next may answer its calls. 0 or 1: there is nothing to sum up.
    """
    room = int(_KEPT_SHARE * window * CHARS_PER_TOKEN)
    cut = max(0, len(messages) - 1)
    size = 0
    for n in range(len(messages) - 1, 0, -1):
        size += chars_of(messages[n : n + 1])
        if size > room:
            break
        if isinstance(messages[n], ModelResponse):
            cut = n
    return cut


def compacted(messages: Sequence[ModelMessage], cut: int, summary: str, task: str) -> list[ModelMessage]:
    """The conversation with everything before the cut summed up. What people said stays as they said it."""
    said = _words_of_people(messages[1:cut])  # the first is the task, or an earlier summary
    parts = [task]
    if said:
        parts.append("What else I have said since:\n" + "\n".join(f"- {text}" for text in said)[-_LONGEST_WORDS:])
    parts.append(f"(The conversation so far was too long, and is summed up here.)\n{summary}")
    first = messages[0]
    instructions = first.instructions if isinstance(first, ModelRequest) else None
    opening = ModelRequest(parts=[UserPromptPart("\n\n".join(parts))], instructions=instructions)
    return [opening, *messages[cut:]]


def shortened(messages: Sequence[ModelMessage], most: int) -> list[ModelMessage]:
    """The same conversation, with no answer of a tool longer than so many characters."""
    return [_with_short_answers(message, most) for message in messages]


def as_text(messages: Sequence[ModelMessage], most: int) -> str:
    """The conversation as text for who sums it up: at most so many characters, the newest of them."""
    lines: list[str] = []
    for message in messages:
        for part in message.parts:
            match part:
                case UserPromptPart():
                    lines.append(f"USER: {_plain(part.content)}")
                case TextPart():
                    lines.append(f"YOU: {part.content}")
                case ToolCallPart():
                    lines.append(f"YOU CALLED {part.tool_name}: {_clipped(part.args_as_json_str(), 500)}")
                case ToolReturnPart():
                    lines.append(f"IT ANSWERED: {_clipped(_plain(part.content), 2000)}")
                case _:
                    pass
    return "\n".join(lines)[-most:]


def summary_without_model(messages: Sequence[ModelMessage]) -> str:
    """What is said where no model sums up: which tools were called on what, and the last words."""
    calls: list[str] = []
    words = ""
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                calls.append(f"- {part.tool_name} {_clipped(part.args_as_json_str(), 120)}")
            elif isinstance(part, TextPart):
                words = part.content
    listed = "\n".join(calls[-40:]) or "(none)"
    return f"Tools that you have called, the newest last:\n{listed}\nYour last words: {_clipped(words, 2000)}"


def _texts(message: ModelMessage) -> list[str]:
    return [text for part in message.parts if (text := _text_of(part))]


def _text_of(part: Any) -> str:
    match part:
        case ToolCallPart():
            return part.args_as_json_str()
        case TextPart() | ThinkingPart():
            return part.content
        case UserPromptPart() | ToolReturnPart():
            return _plain(part.content)
        case _:
            return ""


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, default=str)


def _words_of_people(messages: Sequence[ModelMessage]) -> list[str]:
    return [_plain(part.content) for message in messages for part in message.parts if isinstance(part, UserPromptPart)]


def _with_short_answers(message: ModelMessage, most: int) -> ModelMessage:
    if not isinstance(message, ModelRequest):
        return message
    parts = [_with_short_content(part, most) if isinstance(part, ToolReturnPart) else part for part in message.parts]
    return replace(message, parts=parts)


def _with_short_content(part: ToolReturnPart, most: int) -> ToolReturnPart:
    text = _plain(part.content)
    if len(text) <= most:
        return part
    return ToolReturnPart(tool_name=part.tool_name, content=_clipped(text, most), tool_call_id=part.tool_call_id)


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n[… {len(text) - most} characters left out …]"
