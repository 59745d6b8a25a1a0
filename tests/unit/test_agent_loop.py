"""The loop of the engine `agent` against a real server on loopback that follows a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic_ai", reason="needs the extra agent")
pytest.importorskip("openai", reason="needs the extra agent")

from sparrow_mp.engines.agent_toolbox import REFUSED
from sparrow_mp.events import (
    Compacted,
    CostUpdate,
    Message,
    TokenUsage,
    TokenUsageEstimated,
    ToolOutput,
    ToolUseProposed,
)
from tests.support.conversing import converse
from tests.support.model_server import (
    Reply,
    calls,
    fails,
    hangs,
    says,
)
from tests.support.recording_run import RecordingRun
from tests.support.waiting import eventually

pytestmark = pytest.mark.unit


# ── tools ──


def test_tools_are_used_and_their_answers_go_back(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    run = RecordingRun(tmp_path)
    server = converse(
        run,
        calls("read", path="a.txt"),
        calls("edit", path="a.txt", old="one", new="two", saying="I will."),
        calls("shell", command="cat a.txt"),
        says("It is ", "done."),
    )
    assert (tmp_path / "a.txt").read_text() == "two\n"
    assert [type(event).__name__ for event in run.events if not isinstance(event, TokenUsage)] == [
        "RouteSelected",
        *("ToolUseProposed", "ToolUseStarted", "ToolOutput"),
        *("Message", "ToolUseProposed", "DiffProposed", "ToolUseStarted", "DiffApplied", "ToolOutput"),
        *("ToolUseProposed", "ToolUseStarted", "ToolOutput"),
        "Message",
    ]
    assert [event.text for event in run.told(Message)] == ["I will.", "It is done."]
    assert [event.risk for event in run.told(ToolUseProposed)] == ["ReadOnly", "Mutating", "Exec"]
    assert len({event.id for event in run.told(ToolUseProposed)}) == 3, "the server says call_1 each time"
    assert [text for role, text in server.heard(3) if role == "tool"] == [
        "    1  one", "edited a.txt", "two\n(exit code 0)",
    ]  # fmt: skip
    assert run.asked[1] == ("edit a.txt", "edit", "Mutating", ["a.txt"])
    assert [(event.input, event.output) for event in run.told(TokenUsage)][-1] == (40, 20)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (calls("read", path="../x"), "not permitted"),
        (calls("no_such_tool", a=1), "there is no tool `no_such_tool`"),
        (calls("read", raw='{"path": '), "`read` is not called so"),
        (calls("edit", path="a", old="x", new="y"), "there is no file a"),
        (calls("shell", command="exit 7"), "(exit code 7)"),
    ],
)
def test_what_a_tool_cannot_do_is_told_to_the_model(tmp_path: Path, reply: Reply, words: str) -> None:
    run = RecordingRun(tmp_path)
    server = converse(run, reply, says("well"))
    (output,) = run.told(ToolOutput)
    assert output.is_error
    assert words in output.blocks[0].text
    assert words in server.heard(1)[-1][1]


def test_what_is_refused_is_not_done(tmp_path: Path) -> None:
    run = RecordingRun(tmp_path)
    run.refused = {"execute"}
    server = converse(run, calls("shell", command="touch x"), says("well"))
    assert not (tmp_path / "x").exists()
    assert server.heard(1)[-1] == ("tool", REFUSED)


# ── injection ──


def test_what_is_said_in_mid_turn_comes_with_the_next_request(tmp_path: Path) -> None:
    run = RecordingRun(tmp_path)

    def then_inject(reply: Reply, text: str) -> Reply:
        def both(handler: Any, request: dict[str, Any]) -> None:
            run.inbox.append(text)
            reply(handler, request)

        return both

    server = converse(
        run, then_inject(calls("list"), "also this"), then_inject(says("done"), "and that"), says("all done")
    )
    assert [role for role, _ in server.heard(1)][-3:] == ["assistant", "tool", "user"]
    assert server.heard(1)[-1] == ("user", "also this")
    assert server.heard(2)[-2:] == [("assistant", "done"), ("user", "and that")]


# ── accounting ──


def test_prices_make_costs_and_what_is_not_counted_is_estimated(tmp_path: Path) -> None:
    run = RecordingRun(tmp_path)
    converse(run, calls("list"), says("x", tokens=(1000, 500)), prices=(1.0, 10.0))
    assert [event.usd for event in run.told(CostUpdate)] == pytest.approx([0.00006, 0.00606])
    run = RecordingRun(tmp_path, budget=1.0)
    converse(run, says("x" * 400, tokens=None))
    (estimate,) = run.told(TokenUsageEstimated)
    assert estimate.output == 100
    assert "budget is not kept" in run.told(Message)[-1].text


# ── compaction ──


def test_a_long_conversation_is_summed_up_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "big").write_text("\n".join(f"line {n}" for n in range(150)))
    run = RecordingRun(tmp_path, task="the task")
    run.inbox = ["my wish"]
    script = [calls("read", path="big")] * 7
    server = converse(run, *script, says("SUMMARY"), calls("list"), says("done"), window=2000, compact_at=0.8)
    (compacted,) = run.told(Compacted)
    assert compacted.after_chars < compacted.before_chars
    summed_up = next(n for n, request in enumerate(server.asked) if not request.get("tools"))
    heard = server.heard(summed_up + 1)
    assert heard[1][0] == "user"
    assert "the task" in heard[1][1]
    assert "SUMMARY" in heard[1][1]
    roles = [role for role, _ in heard[2:]]
    assert roles[:2] == ["assistant", "tool"], "a tool's answer follows its call"
    assert "SUMMARY" not in [event.text for event in run.told(Message)]


def test_one_that_takes_less_than_was_thought_has_it_summed_up_too(tmp_path: Path) -> None:
    run = RecordingRun(tmp_path)
    too_long = fails(400, "too many tokens", code="context_length_exceeded")
    server = converse(run, calls("list"), calls("list"), too_long, says("SUMMARY"), says("done"))
    assert len(run.told(Compacted)) == 1
    assert len(server.asked) == 5


# ── what is not to wait ──


def test_what_is_urgent_gives_up_the_request_or_the_tool(tmp_path: Path) -> None:
    run = RecordingRun(tmp_path)

    def urgent(reply: Reply, text: str) -> Reply:
        def both(handler: Any, request: dict[str, Any]) -> None:
            run.hurry(text)
            reply(handler, request)

        return both

    sleep = calls("shell", command="touch begun; sleep 60")

    def when_it_sleeps(handler: Any, request: dict[str, Any]) -> None:
        sleep(handler, request)
        eventually((tmp_path / "begun").exists, what="its command")
        run.hurry("stop that")

    server = converse(run, urgent(hangs("I wi"), "not so"), when_it_sleeps, says("well"))
    assert server.heard(1)[-2:] == [("user", "do it"), ("user", "not so")]
    assert server.heard(2)[-2][0] == "tool"
    assert server.heard(2)[-1] == ("user", "stop that")
    assert run.told(ToolOutput)[-1].blocks[0].text == "given up"
