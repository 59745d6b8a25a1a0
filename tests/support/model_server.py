"""An OpenAI-compatible endpoint on loopback that answers from a script, well and badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler", dict[str, Any]], None]


class ModelServer(ThreadingHTTPServer):
    """Gives the replies of its script in their order, the last one for ever; keeps the requests that came."""

    daemon_threads = True

    def __init__(self, *script: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.closing = threading.Event()

    @property
    def base_url(self) -> str:
        """What to configure."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def heard(self, number: int) -> list[tuple[str, str]]:
        """Role and text of each message in a request, by its number from 0."""
        return [(message["role"], _text_of(message)) for message in self.asked[number]["messages"]]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    model = "m"

    @property
    def models(self) -> ModelServer:
        """The server, as what it is."""
        assert isinstance(self.server, ModelServer)
        return self.server

    def do_POST(self) -> None:
        """A chat completion."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.models.keys.append(self.headers.get("Authorization", ""))
        number = len(self.models.asked)
        self.models.asked.append(request)
        self.close_connection = True
        try:
            self.models.script[min(number, len(self.models.script) - 1)](self, request)
        except OSError:
            pass  # whoever asked has left

    def log_message(self, format: str, *args: object) -> None:
        """It is no news."""

    def begin(self, kind: str = "text/event-stream") -> None:
        """The head of an answer that ends when the connection does."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()

    def send(self, data: Any) -> None:
        """One event of a stream."""
        text = data if isinstance(data, str) else json.dumps(data)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> None:
        """One piece of an answer."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self.send(
            {
                "id": "c",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": self.model,
                "choices": [choice],
                **more,
            }
        )

    def end(self, finish: str, tokens: tuple[int, int] | None) -> None:
        """Why it ends, and what it has used."""
        self.chunk({}, finish)
        if tokens is not None:
            given, made = tokens
            usage = {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}
            self.send(
                {
                    "id": "c",
                    "object": "chat.completion.chunk",
                    "created": 1,
                    "model": self.model,
                    "choices": [],
                    "usage": usage,
                }
            )
        self.send("[DONE]")


def says(*pieces: str, tokens: tuple[int, int] | None = (10, 5), finish: str = "stop", model: str = "m") -> Reply:
    """An answer in pieces."""

    def reply(handler: Handler, _: dict[str, Any]) -> None:
        handler.model = model
        handler.begin()
        for piece in pieces:
            handler.chunk({"role": "assistant", "content": piece})
        handler.end(finish, tokens)

    return reply


def calls(name: str, tokens: tuple[int, int] | None = (10, 5), saying: str = "", raw: str = "", **args: Any) -> Reply:
    """A call of a tool; its arguments come in two pieces."""

    def reply(handler: Handler, _: dict[str, Any]) -> None:
        handler.begin()
        if saying:
            handler.chunk({"role": "assistant", "content": saying})
        written = raw or json.dumps(args)
        half = len(written) // 2
        function = {"name": name, "arguments": written[:half]}
        handler.chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
        handler.chunk({"tool_calls": [{"index": 0, "function": {"arguments": written[half:]}}]})
        handler.end("tool_calls", tokens)

    return reply


def fails(status: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any) -> Reply:
    """An error."""

    def reply(handler: Handler, _: dict[str, Any]) -> None:
        body = json.dumps({"error": {"message": message, **error}}).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def garbage(text: str = "<html>busy</html>", kind: str = "text/html") -> Reply:
    """What is no answer."""

    def reply(handler: Handler, _: dict[str, Any]) -> None:
        handler.begin(kind)
        handler.wfile.write(text.encode())

    return reply


def breaks_off(*pieces: str) -> Reply:
    """An answer whose rest never comes: the connection is closed."""

    def reply(handler: Handler, _: dict[str, Any]) -> None:
        handler.begin()
        for piece in pieces:
            handler.chunk({"role": "assistant", "content": piece})
        handler.wfile.write(b'data: {"id": "c", "choi')

    return reply


def hangs(*pieces: str) -> Reply:
    """An answer whose rest never comes: the connection stays open."""

    def reply(handler: Handler, _: dict[str, Any]) -> None:
        handler.begin()
        for piece in pieces:
            handler.chunk({"role": "assistant", "content": piece})
        handler.models.closing.wait(60)

    return reply


@contextmanager
def model_server(*script: Reply) -> Iterator[ModelServer]:
    """A server that gives these replies."""
    server = ModelServer(*script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""
