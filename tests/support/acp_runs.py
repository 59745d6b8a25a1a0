"""Runs of the scripted agent, and what they have recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.support.house import House

AGENT = Path(__file__).with_name("scripted_agent.py")


def begin(house: House, task: str, *, mode: str = "", autonomy: str = "trusted", cwd: Path | None = None) -> str:
    agent = f"{sys.executable} {AGENT} {mode}"
    where: list[str | Path] = [] if cwd is None else ["--cwd", cwd]
    return house.detach("-e", "acp", "--agent", agent, "--autonomy", autonomy, *where, task)


def told(house: House, run: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in house.events(run) if event["type"] == kind]


def said(house: House, run: str) -> list[str]:
    return [event["text"] for event in told(house, run, "Message") if event["role"] == "assistant"]
