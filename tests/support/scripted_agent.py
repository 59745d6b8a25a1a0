"""An agent that speaks the Agent Client Protocol by hand, and does what its prompt says: well or badly.

Run as a program. It uses no library, so that it can say what no library would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_next = 100


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def raw(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def update(**what: Any) -> None:
    say({"method": "session/update", "params": {"sessionId": "s1", "update": what}})


def chunk(text: str, kind: str = "agent_message_chunk") -> None:
    update(sessionUpdate=kind, content={"type": "text", "text": text})


def hear() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def ask(method: str, **params: Any) -> dict[str, Any]:
    """A request of ours; its answer. What comes before it is dropped."""
    global _next
    _next += 1
    say({"id": _next, "method": method, "params": {"sessionId": "s1", **params}})
    while (heard := hear()).get("id") != _next or "method" in heard:
        pass
    return heard


def permission(tool: str, kind: str, **more: Any) -> str:
    options = [
        {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
        {"optionId": "no", "name": "No", "kind": "reject_once"},
    ]
    call = {"toolCallId": tool, "title": f"use {tool}", "kind": kind, **more}
    outcome = ask("session/request_permission", toolCall=call, options=options)["result"]["outcome"]
    return str(outcome.get("optionId", outcome["outcome"]))


def hello(text: str) -> None:
    chunk("Hel", "agent_thought_chunk")
    chunk("lo?", "agent_thought_chunk")
    for word in ("Hel", "lo, ", text):
        chunk(word)


def tools(_: str) -> None:
    update(sessionUpdate="tool_call_update", toolCallId="t1", status="in_progress", title="late")
    update(sessionUpdate="tool_call", toolCallId="t1", title="read it", kind="read", status="pending")
    diff = {"type": "diff", "path": "/x/a.txt", "oldText": "a\n", "newText": "a\nb\n"}
    update(sessionUpdate="tool_call_update", toolCallId="t1", status="in_progress", content=[diff])
    done = {"type": "content", "content": {"type": "text", "text": "written"}}
    update(sessionUpdate="tool_call_update", toolCallId="t1", status="completed", content=[done])
    update(sessionUpdate="tool_call_update", toolCallId="t1", status="completed")
    update(sessionUpdate="plan", entries=[
        {"content": "one", "priority": "high", "status": "completed"},
        {"content": "two", "priority": "low", "status": "in_progress"},
    ])  # fmt: skip
    update(sessionUpdate="usage_update", used=5, size=100, cost={"amount": 0.5, "currency": "USD"})


def permit(_: str) -> None:
    chunk(permission("shell", "execute", rawInput={"command": "make"}))


def unknown_tool(_: str) -> None:
    chunk(permission("never heard of", "other"))


def files(_: str) -> None:
    folder = os.getcwd()
    inside = ask("fs/read_text_file", path=f"{folder}/in.txt")
    outside = ask("fs/read_text_file", path="/etc/hostname")
    written = ask("fs/write_text_file", path=f"{folder}/out.txt", content="written")
    chunk(f"{inside['result']['content']} {'error' in outside} {'result' in written}")


def edit(_: str) -> None:
    """Ask for a file, write it by the client, and then another one, and the same when the call has ended."""
    folder = os.getcwd()
    permission("e1", "edit", locations=[{"path": f"{folder}/two.txt"}])
    answers = [ask("fs/write_text_file", path=f"{folder}/{name}.txt", content="x") for name in ("two", "three")]
    update(sessionUpdate="tool_call_update", toolCallId="e1", status="completed")
    answers.append(ask("fs/write_text_file", path=f"{folder}/two.txt", content="y"))
    chunk(" ".join("written" if "result" in answer else "refused" for answer in answers))


def terminal(_: str) -> None:
    made = ask("terminal/create", command="sh", args=["-c", "echo from the terminal; exit 3"])["result"]["terminalId"]
    code = ask("terminal/wait_for_exit", terminalId=made)["result"]["exitCode"]
    chunk(f"{ask('terminal/output', terminalId=made)['result']['output'].strip()} {code}")
    ask("terminal/release", terminalId=made)


def garbage(_: str) -> None:
    raw('{"half\n[1, 2]\nnot json at all\n\x00\n{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":5}}\n')
    raw('{"jsonrpc":"2.0","id":9999,"result":{}}\n')
    chunk("after the garbage")


def huge(_: str) -> None:
    chunk("x" * 3_000_000)


def slow(_: str) -> None:
    chunk("waiting")
    Path("waiting").touch()
    while hear().get("method") != "session/cancel":
        pass
    chunk(" and cancelled")


def deaf(_: str) -> None:
    subprocess.Popen(["sleep", "1000"], start_new_session=True)  # a grandchild that stays
    chunk("deaf")
    while True:
        hear()


def half(_: str) -> None:
    chunk("whole")
    raw('{"jsonrpc":"2.0","method":"session/upd')
    sys.exit(3)


def endless(_: str) -> None:
    for _mib in range(51):
        raw("x" * (1 << 20))
    raw("\n")
    while True:
        hear()


def no_error(_: str) -> None:
    say({"id": _prompt, "error": "no"})
    while True:
        hear()


def no_id(_: str) -> None:
    say({"id": [1], "result": {}})
    say({"id": True, "result": {}})
    raw('{"jsonrpc":"2.0","id":{},"method":"fs/read_text_file"}\n{"jsonrpc":"2.0","id":7,"method":[]}\n')
    chunk("still here")


def large(_: str) -> None:
    big = "x" * 2_000_000
    update(
        sessionUpdate="tool_call", toolCallId="t" * 5000, title=big, kind="edit", status="pending", rawInput={"a": big}
    )
    texts = [{"type": "content", "content": {"type": "text", "text": big}}] * 20
    update(sessionUpdate="tool_call_update", toolCallId="t" * 5000, status="completed", content=texts)
    lines = "".join(f"{n}\n" for n in range(300_000))
    diff = {"type": "diff", "path": "p" * 5000, "oldText": lines, "newText": lines[::-1]}
    update(sessionUpdate="tool_call_update", toolCallId="t2", status="completed", content=[diff])
    update(sessionUpdate="plan", entries=[{"content": big, "priority": "low", "status": "in_progress"}])


def elsewhere(_: str) -> None:
    """A change outside of the workspace, told as a diff alone; a link out of it; a pipe."""
    diff = {"type": "diff", "path": "/etc/hostname", "oldText": "", "newText": "x"}
    words = [permission("edit", "edit", content=[diff])]
    os.symlink("/tmp", "away")
    os.mkfifo("pipe")
    paths = [f"{os.getcwd()}/{path}" for path in ("away/sparrow-was-here", "pipe", "../up", "a\0b")]
    answers = [ask("fs/write_text_file", path=path, content="x") for path in paths]
    words += ["no" if "error" in answer else "yes" for answer in answers]
    chunk(" ".join(words))


def holding(_: str) -> None:
    """A command that ends while what it has started holds its output."""
    made = ask("terminal/create", command="sh", args=["-c", "sleep 1000 & echo done"])["result"]["terminalId"]
    chunk(str(ask("terminal/wait_for_exit", terminalId=made)["result"]["exitCode"]))


def hurried(_: str) -> None:
    """Ends its turn when it is told to, and asks somebody meanwhile."""
    global _next
    _next += 1
    call = {"toolCallId": "h", "title": "dig", "kind": "execute"}
    options = [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}]
    say({"id": _next, "method": "session/request_permission",
         "params": {"sessionId": "s1", "toolCall": call, "options": options}})  # fmt: skip
    outcome = None
    cancelled = False
    while outcome is None or not cancelled:
        heard = hear()
        cancelled = cancelled or heard.get("method") == "session/cancel"
        if heard.get("id") == _next:
            outcome = heard["result"]["outcome"]["outcome"]
    chunk(f"asked: {outcome}")


def servers(_: str) -> None:
    """The MCP servers that it was told of, and a variable of its own."""
    chunk(f"{json.dumps(_servers)} {os.environ.get('OF_THE_CONFIG')}")


def leave(_: str) -> None:
    chunk("bye")
    sys.exit(7)


def nonsense(_: str) -> None:
    say({"id": _prompt, "result": {"stopReason": "because"}})


def wait_for_file(_: str) -> None:
    chunk("busy")
    while not os.path.exists("go"):
        time.sleep(0.01)


_DOES: dict[str, Callable[..., object]] = {
    name: value for name, value in globals().items() if callable(value) and getattr(value, "__module__", "") == __name__
}
_prompt = 0
_servers: list[Any] = []


_MODES = {
    name: {"modes": {"currentModeId": "agent", "availableModes": [{"id": each, "name": each} for each in modes]}}
    for name, modes in {"modes": ["agent", "read-only"], "new_modes": ["agent", "careful"]}.items()
}


def main() -> None:
    """Serve one client."""
    global _prompt, _servers
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    while True:
        heard = hear()
        number, method = heard.get("id"), heard.get("method")
        if mode == "silent":
            continue
        if method == "initialize":
            version = 2 if mode == "future" else 1
            kept: dict[str, Any] = {"loadSession": mode not in ("forgets", "resumes")}
            if mode == "resumes":
                kept["sessionCapabilities"] = {"resume": {}}
            say({"id": number, "result": {"protocolVersion": version, "agentCapabilities": kept}})
        elif method == "session/new" and mode == "login":
            say({"id": number, "error": {"code": -32000, "message": "Authentication required"}})
        elif method == "session/new":
            _servers = heard["params"]["mcpServers"]
            say({"id": number, "result": {"sessionId": "s1", **_MODES.get(mode, {})}})
        elif method == "session/set_mode":
            say({"id": number, "result": {}})
            chunk(f"now {heard['params']['modeId']}. ")
        elif method == "session/load" and heard["params"]["sessionId"] == "s1":
            chunk("what was said before")
            say({"id": number, "result": {}})
            chunk("more of that, when it has answered")
        elif method == "session/resume" and mode == "resumes":
            say({"id": number, "result": {}})
        elif method in ("session/load", "session/resume"):
            say({"id": number, "error": {"code": -32602, "message": "no such session"}})
        elif method == "session/prompt":
            _prompt = number or 0
            text = heard["params"]["prompt"][0]["text"]
            word = text.split()[0]
            _DOES.get(word, hello)(text)
            say({"id": number, "result": {"stopReason": "cancelled" if word in ("slow", "hurried") else "end_turn"}})


if __name__ == "__main__":
    main()
