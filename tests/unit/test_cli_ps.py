"""The table of `ps` fits its terminal."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sparrow_mp.cli.ps import HEADERS, runs_table
from sparrow_mp.cli.words import columns
from sparrow_mp.events import Tokens
from sparrow_mp.wire import RunRecord

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def record(n: int, **more: object) -> RunRecord:
    usual: dict[str, object] = {
        "run": f"{n:08x}-0000-4000-8000-000000000000", "status": "running", "engine": "shell", "agent": "shell",
        "task": "a task that is long enough to be cut somewhere", "cwd": "/", "labels": [], "events": 1234567,
        "created": "2026-11-22T11:00:00Z", "cost_usd": 0.0, "tokens": Tokens(), "cpu_percent": 104.4,
        "memory_bytes": 123 << 20,
    }  # fmt: skip
    return RunRecord(**{**usual, **more})  # type: ignore[arg-type]


RUNS = [
    record(1, name="a-name-as-long-as-it-may-be-or-a-bit-longer"),
    record(2, waiting=True, task="日本語のタスク" * 9),
    record(3, status="queued", position=12, cpu_percent=None, memory_bytes=None),
]


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 90, 100, 120, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    lines = runs_table(RUNS, width=width, colour=False, now=NOW)
    assert len(lines) == 4
    assert max(map(columns, lines)) <= width
    for line, id, status in zip(lines[1:], "123", ("running", "waiting", "queued #12"), strict=True):
        assert line.startswith(f"0000000{id}  ")
        assert f" {status}" in line
    assert lines[0].split() == [header for header in HEADERS if header in lines[0]]
    if width >= 100:
        assert lines[0].split() == list(HEADERS)
        assert "104%   123 M" in lines[1]


def test_a_pipe_gets_all_of_it() -> None:
    lines = runs_table(RUNS, width=None, colour=False, now=NOW)
    assert lines[0].split() == list(HEADERS)
    assert "a-name-as-long-as-it-may-be" in lines[1]
