"""What the clouds speak that agents are made for, as far as agents use it: what was asked for, and how an answer is streamed.

A dialect is two functions: ``asked`` reads a request, ``answer`` makes the events of a reply to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A tool that the model wants to be used."""

    id: str
    name: str
    arguments: dict[str, Any]


class Asked(NamedTuple):
    """A request: what was said so far, the oldest first, and the tools there are, each with the schema of its arguments.

    ``said`` has pairs of who and what: ``user``, ``assistant``, ``call`` (a tool was wanted) and ``result`` (it was used).
    """

    said: list[tuple[str, str]]
    tools: dict[str, dict[str, Any]]


Reply = list[str] | Call
"""The pieces of a text, or a tool to use."""

Frame = tuple[str, dict[str, Any] | str]
"""The name of a server-sent event, empty where the dialect has none, and its data."""


class Dialect(NamedTuple):
    """How requests are read and replies are said."""

    asked: Callable[[dict[str, Any]], Asked]
    answer: Callable[[Reply], Iterator[Frame]]


def _text(content: Any) -> str:
    """What a message says, whatever it consists of."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


# ── OpenAI, chat completions ──


def _chat_asked(request: dict[str, Any]) -> Asked:
    said = []
    for message in request["messages"]:
        role = "result" if message["role"] == "tool" else message["role"]
        said += [("call", "")] * len(message.get("tool_calls") or [])
        said.append((role, _text(message.get("content"))))
    tools = (tool["function"] for tool in request.get("tools") or [])
    return Asked(said, {tool["name"]: tool.get("parameters") or {} for tool in tools})


def _chat_answer(reply: Reply) -> Iterator[Frame]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> Frame:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        if finish is not None:
            body["usage"] = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
        return "", body

    if isinstance(reply, Call):
        function = {"name": reply.name, "arguments": json.dumps(reply.arguments)}
        call = {"index": 0, "id": reply.id, "type": "function", "function": function}
        yield chunk({"role": "assistant", "content": None, "tool_calls": [call]})
        yield chunk({}, "tool_calls")
    else:
        for piece in reply:
            yield chunk({"role": "assistant", "content": piece})
        yield chunk({}, "stop")
    yield "", "[DONE]"


# ── OpenAI, responses ──


def _responses_asked(request: dict[str, Any]) -> Asked:
    items = request["input"] if isinstance(request["input"], list) else [{"role": "user", "content": request["input"]}]
    said = []
    for item in items:
        kind = item.get("type", "message")
        if kind.endswith("call_output"):
            said.append(("result", str(item.get("output"))))
        elif kind.endswith("call"):
            said.append(("call", ""))
        elif kind == "message":
            said.append((item["role"], _text(item.get("content"))))
    tools = (tool for tool in request.get("tools") or [] if "name" in tool)
    return Asked(said, {tool["name"]: tool.get("parameters") or {} for tool in tools})


def _responses_answer(reply: Reply) -> Iterator[Frame]:
    def event(kind: str, **more: Any) -> Frame:
        return kind, {"type": kind, **more}

    yield event("response.created", response={"id": "r"})
    item: dict[str, Any]
    if isinstance(reply, Call):
        item = {"type": "function_call", "call_id": reply.id, "name": reply.name, "id": f"f-{reply.id}"}
        item["arguments"] = json.dumps(reply.arguments)
    else:
        item = {"type": "message", "role": "assistant", "id": "m1", "content": []}
        yield event("response.output_item.added", output_index=0, item=item)
        for piece in reply:
            yield event("response.output_text.delta", item_id="m1", output_index=0, content_index=0, delta=piece)
        item = {**item, "content": [{"type": "output_text", "text": "".join(reply), "annotations": []}]}
    yield event("response.output_item.done", output_index=0, item=item)
    usage = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}
    yield event("response.completed", response={"id": "r", "status": "completed", "output": [item], "usage": usage})


# ── Anthropic, messages ──


def _messages_asked(request: dict[str, Any]) -> Asked:
    said: list[tuple[str, str]] = []
    for message in request["messages"]:
        parts = message["content"]
        if isinstance(parts, str):
            parts = [{"type": "text", "text": parts}]
        for part in parts:
            match part.get("type"):
                case "text":
                    said.append((message["role"], part["text"]))
                case "tool_use":
                    said.append(("call", ""))
                case "tool_result":
                    said.append(("result", _text(part.get("content"))))
    return Asked(said, {tool["name"]: tool.get("input_schema") or {} for tool in request.get("tools") or []})


def _messages_answer(reply: Reply) -> Iterator[Frame]:
    def event(kind: str, **more: Any) -> Frame:
        return kind, {"type": kind, **more}

    head: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
    }
    yield event("message_start", message={**head, "usage": {"input_tokens": 12, "output_tokens": 1}})
    if isinstance(reply, Call):
        block: dict[str, Any] = {"type": "tool_use", "id": reply.id, "name": reply.name, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": json.dumps(reply.arguments)}]
    else:
        block = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in reply]
    yield event("content_block_start", index=0, content_block=block)
    for delta in deltas:
        yield event("content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", index=0)
    reason = "tool_use" if isinstance(reply, Call) else "end_turn"
    yield event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 3})
    yield event("message_stop")


# ── Gemini, generateContent ──


def _gemini_asked(request: dict[str, Any]) -> Asked:
    said: list[tuple[str, str]] = []
    for message in request.get("contents") or []:
        role = "assistant" if message.get("role") == "model" else "user"
        for part in message.get("parts") or []:
            if "functionCall" in part:
                said.append(("call", ""))
            elif "functionResponse" in part:
                said.append(("result", json.dumps(part["functionResponse"])))
            else:
                said.append((role, str(part.get("text", ""))))
    found = [declared for tool in request.get("tools") or [] for declared in tool.get("functionDeclarations") or []]
    return Asked(
        said, {each["name"]: each.get("parametersJsonSchema") or each.get("parameters") or {} for each in found}
    )


def _gemini_answer(reply: Reply) -> Iterator[Frame]:
    def chunk(part: dict[str, Any], finish: str | None = None) -> Frame:
        candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [part]}}
        if finish is not None:
            candidate["finishReason"] = finish
        usage = {"promptTokenCount": 12, "candidatesTokenCount": 3, "totalTokenCount": 15}
        return "", {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}

    if isinstance(reply, Call):
        yield chunk({"functionCall": {"id": reply.id, "name": reply.name, "args": reply.arguments}}, "STOP")
    else:
        for piece in reply:
            yield chunk({"text": piece})
        yield chunk({"text": ""}, "STOP")


CHAT = Dialect(_chat_asked, _chat_answer)
RESPONSES = Dialect(_responses_asked, _responses_answer)
MESSAGES = Dialect(_messages_asked, _messages_answer)
GEMINI = Dialect(_gemini_asked, _gemini_answer)


def dialect_of(path: str) -> Dialect | None:
    """By where a request is posted to."""
    for part, dialect in (
        ("/chat/completions", CHAT),
        ("/responses", RESPONSES),
        ("/messages", MESSAGES),
        (":streamGenerateContent", GEMINI),
        (":generateContent", GEMINI),
    ):
        if path.partition("?")[0].endswith(part):
            return dialect
    return None
