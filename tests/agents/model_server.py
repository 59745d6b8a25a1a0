"""A model server on loopback that says what it is told to, in four dialects.

What it is to say stands in the prompt: ``{{run echo hi > a.txt / say It is done.}}``. Each step answers one request: a command
to run by the agent's own shell tool, a file to write by its own tool for that (``write a.txt hello``), or words, after which the
turn ends. ``hold`` before a step has the server begin to answer, and wait for ``release`` before it says more.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.agents.dialects import Asked, Call, Frame, Reply, dialect_of

_SCRIPT = re.compile(r"\{\{(.+?)\}\}", re.DOTALL)
_SHELLS = ("bash", "Bash", "run_shell_command", "exec_command", "shell_command", "shell")
"""What agents call the tool that runs a command."""
_WRITERS = ("write", "Write", "write_file")
_FIELDS = {"path": ("file_path", "filePath", "path"), "content": ("content",), "command": ("command", "cmd")}
_HELD_S = 60.0
_PLAIN: Reply = ["Fine."]
"""To what is none of the test's prompts: agents ask for titles and summaries too."""


class ModelServer:
    """Listens at ``url``. What it was asked is in ``requests``, the oldest first."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.unknown: list[str] = []
        """Paths that it was asked for and does not know."""
        self.holding = threading.Event()
        """That it has begun an answer and waits."""
        self._released = threading.Event()
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Have it go on where it holds."""
        self._released.set()

    def close(self) -> None:
        """Listen no more."""
        self.release()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def reply_to(self, asked: Asked) -> tuple[Reply, bool]:
        """What the script says at this point, and whether to hold before it."""
        begun = [place for place, (who, text) in enumerate(asked.said) if who == "user" and _SCRIPT.search(text)]
        if not begun:
            return _PLAIN, False
        script = _SCRIPT.findall(asked.said[begun[-1]][1])[-1]
        steps = [step.strip() for step in script.split(" / ")]
        taken = sum(who == "call" for who, _ in asked.said[begun[-1] + 1 :])
        step = steps[min(taken, len(steps) - 1)]
        held = step.startswith("hold ")
        verb, _, rest = step.removeprefix("hold ").partition(" ")
        if verb == "say":
            return re.findall(r"\S+\s*", rest), held and bool(asked.tools)
        if not asked.tools:
            return _PLAIN, False  # for a title, of the same prompt
        call = f"call_{len(asked.said)}"
        if verb == "write":
            path, _, content = rest.partition(" ")
            return _call(call, asked, _WRITERS, {"path": path, "content": content}), held
        return _call(call, asked, _SHELLS, {"command": rest}), held

    def hold(self) -> None:
        """Wait, as long as a test does at most."""
        self.holding.set()
        self._released.wait(_HELD_S)


def _call(call: str, asked: Asked, names: tuple[str, ...], wanted: dict[str, str]) -> Call:
    """A call of one of the agent's tools; its other arguments, where it insists on some, say nothing."""
    name = next(name for name in names if name in asked.tools)
    fields = asked.tools[name]["properties"]
    arguments: dict[str, Any] = {}
    for field in asked.tools[name].get("required") or []:
        arguments[field] = {"boolean": False, "number": 60000, "integer": 60000}.get(
            fields[field].get("type"), "as told"
        )
    for what, value in wanted.items():
        arguments[next(field for field in _FIELDS[what] if field in fields)] = value
    if "sandbox_permissions" in fields:  # Codex asks people where the model says that it must leave the sandbox
        arguments |= {"sandbox_permissions": "require_escalated", "justification": "as told"}
    return Call(call, name, arguments)


def _handler(server: ModelServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "test"}]})

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            dialect = dialect_of(self.path)
            if dialect is None:
                server.unknown.append(self.path)
                self._answer({"input_tokens": 12, "totalTokens": 12})  # they count, and tell of themselves
                return
            request = json.loads(body)
            asked = dialect.asked(request)
            server.requests.append(asked)
            reply, held = server.reply_to(asked)
            frames = dialect.answer(reply)
            try:
                if not request.get("stream") and not self.path.partition("?")[0].endswith(":streamGenerateContent"):
                    self._answer(_whole(list(frames)))
                else:
                    self._stream(frames, held)
            except ConnectionError:
                pass  # the agent was interrupted

        def _answer(self, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, frames: Iterator[Frame], held: bool) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()  # HTTP/1.0: the end of the connection is the end of the stream
            self.wfile.flush()
            if held:
                server.hold()
            for name, data in frames:
                head = f"event: {name}\n" if name else ""
                text = data if isinstance(data, str) else json.dumps(data)
                self.wfile.write(f"{head}data: {text}\n\n".encode())
                self.wfile.flush()

    return Handler


def _whole(frames: list[Frame]) -> dict[str, Any]:
    """The same answer in one piece, in the dialects whose agents ask for that: chat completions, messages and Gemini's."""
    bodies = [data for _, data in frames if isinstance(data, dict)]
    if bodies[0].get("object") == "chat.completion.chunk":
        text = "".join(body["choices"][0]["delta"].get("content") or "" for body in bodies)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {**bodies[-1], "object": "chat.completion", "choices": [choice]}
    if bodies[0].get("type") == "message_start":
        text = "".join(body["delta"].get("text", "") for body in bodies if body["type"] == "content_block_delta")
        return {**bodies[0]["message"], "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
    if "candidates" in bodies[0]:
        text = "".join(part.get("text", "") for body in bodies for part in body["candidates"][0]["content"]["parts"])
        candidate = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
        return {**bodies[-1], "candidates": [candidate]}
    return bodies[-1]["response"]


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """One that is closed afterwards."""
    server = ModelServer()
    try:
        yield server
    finally:
        server.close()
