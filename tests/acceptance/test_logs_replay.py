"""A transcript, read afterwards: rendered, followed, at its own pace, and without a supervisor."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

# As the Rust sparrow-cli writes it: no seq, no ts; a field and a type that nobody here knows.
FOREIGN = [
    {"type": "RunStarted", "run": "7f3e9a10-0000-4000-8000-000000000001", "task": "fix the tests", "agent": "coder"},
    {"type": "RouteSelected", "run": "7f3e9a10-0000-4000-8000-000000000001", "chain": ["big", "small"], "context_window": 200000},
    {"type": "ThinkingDelta", "run": "7f3e9a10-0000-4000-8000-000000000001", "text": "let me see"},
    {"type": "ToolUseProposed", "run": "7f3e9a10-0000-4000-8000-000000000001", "id": "t1", "name": "edit",
     "args": {"file": "a.py", "deep": [1, {"x": None}]}, "risk": "Mutating", "novel_field": True},
    {"type": "ApprovalRequested", "run": "7f3e9a10-0000-4000-8000-000000000001", "id": "a1", "summary": "edit a.py?"},
    {"type": "ApprovalResolved", "run": "7f3e9a10-0000-4000-8000-000000000001", "id": "a1", "decision": "AllowOnce"},
    {"type": "ToolOutput", "run": "7f3e9a10-0000-4000-8000-000000000001", "id": "t1", "is_error": False,
     "blocks": [{"Text": "done"}, {"Json": {"ok": True}}, {"Diff": {"file": "a.py", "patch": "@@ -1 +1 @@\\n-a\\n+b\\n"}},
                {"Image": {"data": [137, 80, 78, 71], "mime": "image/png"}}]},
    {"type": "TestResult", "run": "7f3e9a10-0000-4000-8000-000000000001", "passed": 3, "failed": 1, "detail": "test_x"},
    {"type": "WhollyNew", "run": "7f3e9a10-0000-4000-8000-000000000001", "surprise": [1, 2]},
    {"type": "TokenUsage", "run": "7f3e9a10-0000-4000-8000-000000000001", "input": 100, "output": 20},
    {"type": "Message", "run": "7f3e9a10-0000-4000-8000-000000000001", "role": "assistant", "text": "All green."},
    {"type": "RunFinished", "run": "7f3e9a10-0000-4000-8000-000000000001",
     "outcome": {"status": "completed", "cost_usd": 0.01, "tokens": {"input": 100, "output": 20},
                 "diffs": [{"file": "a.py", "plus": 1, "minus": 1}], "duration_ms": 1234}},
]  # fmt: skip


def talkative(house: House) -> str:
    """A run that has said something on both streams."""
    run = house.detach("--", "sh", "-c", "for i in 1 2 3 4; do echo line $i; echo err $i >&2; done")
    house.outcome(run)
    return run


def test_logs_render_every_event(shared: House):
    run = shared.detach("--name", "talk", "--", "sh", "-c", "echo out; echo err >&2; read line; echo got $line")
    shared.sparrow("inject", run, "a word").ok()
    shared.outcome(run)
    text = shared.sparrow("logs", run).ok().out
    for words in ("started", "out", "! err", "a word", "got a word", "completed"):
        assert words in text, words
    assert "\x1b" not in text
    assert shared.sparrow("logs", "talk").ok().out == text
    assert (
        shared.sparrow("logs", run, "--json").ok().stdout
        == (shared.places.transcript(run) / "events.jsonl").read_bytes()
    )


def test_escape_sequences_of_a_run_are_made_visible(shared: House):
    run = shared.detach("--", "printf", "a\\033[2Jb\\033]0;title\\007c\\n")
    shared.outcome(run)
    text = shared.sparrow("logs", run).ok().out
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text
    assert "\x07" not in text


def test_logs_since(shared: House):
    run = shared.detach("--", "seq", "5")
    shared.outcome(run)
    events = shared.events(run)
    rows = shared.sparrow("logs", run, "--json", "--since", "3").ok().rows()
    assert rows == events[3:]
    rows = shared.sparrow("logs", run, "--json", "--since", events[2]["ts"]).ok().rows()
    assert rows == [event for event in events if event["ts"] >= events[2]["ts"]]
    assert shared.sparrow("logs", run, "--json", "--since", "1h").ok().rows() == events
    shared.sparrow("logs", run, "--since", "yesterdayish").refused(2)


def test_logs_need_no_supervisor(house: House):
    run = talkative(house)
    before = house.sparrow("logs", run).ok().out
    house.sparrow("shutdown").ok()
    assert house.sparrow("logs", run).ok().out == before
    assert house.sparrow("logs", "-f", run).ok().out == before
    assert not house.supervised


def test_following_ends_with_the_run(shared: House):
    run = shared.detach("--", "sh", "-c", "echo I am there; read line; echo got $line")
    with shared.begin("logs", "-f", "--json", run) as going, shared.begin("events", "--run", run) as other:
        eventually(lambda: "I am there" in going.out and "I am there" in other.out)
        shared.sparrow("inject", run, "it").ok()
        shared.outcome(run)
        recorded = (shared.places.transcript(run) / "events.jsonl").read_text()
        assert going.wait().out == recorded
        assert other.wait().out == recorded


def test_events_of_all_runs_live(house: House):
    house.start()
    with house.begin("events") as everything, house.begin("events", "--type", "RunFinished") as ends:

        def heard() -> bool:
            house.sparrow("run", "true").ok()
            return bool(everything.out and ends.out)

        eventually(heard, what="live events")  # both are known to listen once they have heard something
        run = house.detach("--", "echo", "hello")
        house.outcome(run)
        eventually(lambda: everything.out.count(run) == 3 and ends.out.count(run) == 1, what="the run's events")
        rows = [json.loads(line) for line in everything.out.splitlines()]
        assert [row for row in rows if row["run"] == run] == house.events(run)
        assert {json.loads(line)["type"] for line in ends.out.splitlines()} == {"RunFinished"}


def lasting(house: House, seconds: float) -> Path:
    """The record of a run whose three events have so much time between the first and the last."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    run = "7f3e9a10-0000-4000-8000-000000000001"
    happened: list[dict[str, Any]] = [
        {"type": "RunStarted", "task": "wait", "agent": "shell"},
        {"type": "Message", "role": "assistant", "text": "half"},
        {"type": "RunFinished", "outcome": {"status": "completed", "cost_usd": 0, "duration_ms": 0}},
    ]
    lines = []
    for seq, event in enumerate(happened, 1):
        at = begin + timedelta(seconds=seconds * (seq - 1) / 2)
        lines.append(json.dumps({**event, "run": run, "seq": seq, "ts": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}) + "\n")
    return house.write(f"{seconds:g}.jsonl", "".join(lines))


@pytest.mark.parametrize(
    ("seconds", "speed", "least"), [(1, [], 1), (20, ["--speed", "10"], 2), (3600, ["--speed", "0"], 0)]
)
def test_replay_at_its_own_pace_and_faster(shared: House, seconds: float, speed: list[str], least: float):
    began = time.monotonic()
    done = shared.sparrow("replay", *speed, lasting(shared, seconds)).ok()
    took = time.monotonic() - began
    assert "half" in done.out
    assert took >= least
    if speed:
        assert took < seconds  # by far, even where the machine is busy


def test_replay_as_json_is_the_record(shared: House):
    run = shared.detach("--", "seq", "3")
    shared.outcome(run)
    assert shared.sparrow("replay", "--speed", "0", "--json", run).ok().rows() == shared.events(run)


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_transcript_of_sparrow_cli_replays(house: House, as_folder: bool):
    folder = house.work / "7f3e"
    folder.mkdir()
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(event, ensure_ascii=False) + "\n" for event in FOREIGN))
    place = folder if as_folder else path
    done = house.sparrow("replay", place).ok()
    for words in ("fix the tests", "big", "let me see", "edit", "AllowOnce", "done", "3 passed", "1 failed", "WhollyNew",
                  "surprise", "All green.", "completed"):  # fmt: skip
        assert words in done.out, words
    rows = house.sparrow("replay", "--json", place).ok().rows()
    assert [row.pop("seq") for row in rows] == list(range(1, len(FOREIGN) + 1))
    for row in rows:
        row.pop("ts", None)
    assert rows == FOREIGN
    assert not house.supervised


def test_what_is_no_transcript_is_told(house: House):
    house.sparrow("replay", house.write("not.jsonl", "this is no event\n")).refused(1, "not.jsonl", "line 1")
    empty = house.work / "empty"
    empty.mkdir()
    house.sparrow("replay", empty).refused(1, "empty")
    house.sparrow("replay", "nowhere").refused(3)
