"""An MCP server over stdio in a few lines: a tool that only reads, one that does not say so, and one that fails."""

import json
import os
import sys

TOOLS = [
    {"name": "look", "description": "Looks.", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {
        "name": "act",
        "description": "Acts.",
        "inputSchema": {"type": "object", "properties": {"on": {"type": "string"}}},
    },
    {"name": "fail", "inputSchema": {"type": "object"}},
]


def answer(method: str, params: dict) -> dict | None:
    """The result; None where there is no such method."""
    match method:
        case "initialize":
            info = {"name": "test", "version": "1"}
            return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            return {"tools": TOOLS}
        case "tools/call":
            words = f"{params['name']} {params['arguments']} {os.environ.get('SECRET_OF_SERVER')}"
            return {"content": [{"type": "text", "text": words}], "isError": params["name"] == "fail"}
    return None


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = answer(message["method"], message.get("params") or {})
        unknown = {"error": {"code": -32601, "message": "no such method"}}
        told = unknown if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **told}), flush=True)
