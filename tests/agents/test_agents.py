"""Agents that people use, driven by the engine `acp`: installed from npm and PyPI, with a model server on loopback."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.agents.model_server import ModelServer
from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytest.importorskip("acp", reason="needs the extra acp")
pytestmark = [pytest.mark.agents, pytest.mark.timeout(180)]

_START_S = 60.0
"""An agent that is started for the first time unpacks itself, on a machine that has other things to do."""


def begin(seat: House, agent: str, script: str, autonomy: str) -> str:
    return seat.detach("-e", "acp", "--agent", agent, "--autonomy", autonomy, f"Please do this: {{{{{script}}}}}")


def told(seat: House, run: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in seat.events(run) if event["type"] == kind]


def said(seat: House, run: str) -> list[str]:
    return [event["text"].strip() for event in told(seat, run, "Message") if event["role"] == "assistant"]


def ended(seat: House, run: str) -> dict[str, Any]:
    return seat.outcome(run, _START_S)


def completed(seat: House, run: str) -> None:
    assert ended(seat, run)["status"] == "completed", account(seat, run)


def account(seat: House, run: str) -> str:
    """Why it is not as it should be."""
    lines = [str(event)[:1000] for event in seat.events(run)]
    return "\n".join(lines)


def holds(seat: House, model: ModelServer, run: str) -> None:
    def held() -> bool:
        return model.holding.is_set() or (seat.places.transcript(run) / "meta.json").exists()

    eventually(held, _START_S, f"a request to the model of run {run}")
    assert model.holding.is_set(), account(seat, run)


def asked(seat: House, run: str) -> None:
    def waits() -> bool:
        return bool(seat.record(run)["waiting"]) or (seat.places.transcript(run) / "meta.json").exists()

    eventually(waits, _START_S, f"a question of run {run}")
    assert seat.record(run)["waiting"], account(seat, run)


def test_a_tool_call_that_somebody_allows_from_another_terminal(seat: House, agent: str, model: ModelServer) -> None:
    run = begin(seat, agent, "run echo hi > made.txt / say All is done.", "supervised")
    asked(seat, run)
    assert not (seat.work / "made.txt").exists()
    seat.sparrow("approve", run).ok()
    completed(seat, run)
    assert (seat.work / "made.txt").read_text() == "hi\n"
    assert said(seat, run)[-1] == "All is done."
    (question,) = told(seat, run, "ApprovalRequested")
    (answer,) = told(seat, run, "ApprovalResolved")
    assert question["risk"] == "Exec"
    assert (answer["decision"], answer["by"]) == ("Allow", "user")
    (proposed,) = told(seat, run, "ToolUseProposed")
    assert "made.txt" in str(proposed)
    for kind in ("ToolUseStarted", "ToolOutput"):
        (event,) = told(seat, run, kind)
        assert event["id"] == proposed["id"]
    assert not told(seat, run, "ToolOutput")[0].get("is_error")


def test_a_tool_call_that_somebody_denies(seat: House, agent: str, model: ModelServer) -> None:
    run = begin(seat, agent, "run echo hi > made.txt / say Then not.", "supervised")
    asked(seat, run)
    seat.sparrow("deny", run).ok()
    completed(seat, run)
    assert not (seat.work / "made.txt").exists()


def test_a_file_that_it_writes_is_asked_for_and_a_diff(seat: House, agent: str, model: ModelServer) -> None:
    if agent == "codex":
        pytest.skip("it writes files with patches in a language of its own")
    inside, outside = seat.work / "new.txt", seat.work / ".env"
    run = begin(seat, agent, f"write {inside} hello / write {outside} secret / say Tried.", "supervised")
    asked(seat, run)
    assert not inside.exists()
    seat.sparrow("approve", run).ok()
    completed(seat, run)
    assert inside.read_text().strip() == "hello"
    assert not outside.exists(), "which is out of bounds"
    assert [event["file"] for event in told(seat, run, "DiffApplied")] == [str(inside)], account(seat, run)
    assert [diff["file"] for diff in ended(seat, run)["diffs"]] == [str(inside)]
    answers = [(event["decision"], event["by"]) for event in told(seat, run, "ApprovalResolved")]
    assert answers[0] == ("Allow", "user")
    assert answers[1:] in ([("Deny", "policy")], []), "Gemini CLI does not even ask"
    tokens = [event["input"] for event in told(seat, run, "TokenUsage")]
    assert tokens or agent == "qwen", "all but Qwen Code tell what they have used"


def test_what_is_injected_in_mid_turn_is_the_next_prompt(seat: House, agent: str, model: ModelServer) -> None:
    run = begin(seat, agent, "hold say The first is done.", "trusted")
    holds(seat, model, run)
    seat.sparrow("inject", run, "And this: {{say The second too.}}").ok()
    model.release()
    completed(seat, run)
    assert said(seat, run) == ["The first is done.", "The second too."]
    assert knows(model, "second", "The first is done."), "it is one conversation"


def test_what_is_injected_now_ends_the_turn_first(seat: House, agent: str, model: ModelServer) -> None:
    run = begin(seat, agent, "hold say Never said.", "trusted")
    holds(seat, model, run)
    seat.sparrow("inject", "--now", run, "No, this: {{say That instead.}}").ok()
    completed(seat, run)
    assert said(seat, run)[-1] == "That instead."
    assert "Never said." not in said(seat, run)


def test_an_interruption_leaves_nothing_alive(seat: House, agent: str, model: ModelServer) -> None:
    run = begin(seat, agent, "run tail -f /dev/null & tail -f /dev/null / say Never.", "trusted")

    def tree() -> list[int]:
        return [pid for pid in seat.processes() if processes.title(pid) == "tail -f /dev/null"]

    sleepers = eventually(lambda: found if len(found := tree()) == 2 else [], _START_S, "what its tool has started")
    engine = seat.pid_of(run)
    seat.sparrow("kill", run).ok()
    assert ended(seat, run)["status"] == "interrupted"
    assert not [pid for pid in [engine, *sleepers] if processes.alive(pid)]
    status = seat.status()
    ours = {status["pid"], status["zygote_pid"]}
    left = [pid for pid in seat.processes() if pid not in ours and not processes.title(pid).startswith("sparrow")]
    assert not left, [processes.title(pid) for pid in left]


def test_a_turn_goes_on_while_the_supervisor_is_dead(seat: House, agent: str, model: ModelServer) -> None:
    run = begin(seat, agent, "hold run echo hi > made.txt / say Without it.", "trusted")
    holds(seat, model, run)
    seat.kill_supervisor()
    model.release()
    eventually((seat.work / "made.txt").exists, _START_S, "what the agent does")
    assert not seat.supervised
    seat.start()
    completed(seat, run)
    assert said(seat, run)[-1] == "Without it."
    assert [len(told(seat, run, kind)) for kind in ("ToolUseProposed", "ToolUseStarted", "ToolOutput")] == [1, 1, 1]


def test_a_run_that_has_ended_goes_on_in_another(seat: House, agent: str, model: ModelServer) -> None:
    first = begin(seat, agent, "run echo hi > made.txt / say The first is done.", "trusted")
    completed(seat, first)
    second = resume(seat, agent, first)
    completed(seat, second)
    assert said(seat, second) == ["The second too."], "what was said before is not recorded again"
    assert not told(seat, second, "ToolUseProposed")
    assert knows(model, "second", "The first is done."), "it knows what it did"


def test_one_that_was_killed_in_mid_turn_goes_on_too(seat: House, agent: str, model: ModelServer) -> None:
    first = begin(seat, agent, "run echo hi > made.txt / hold say Never said.", "trusted")
    holds(seat, model, first)
    processes.kill(seat.pid_of(first))
    assert ended(seat, first)["status"] == "crashed"
    model.release()
    second = resume(seat, agent, first)
    completed(seat, second)
    assert said(seat, second) == ["The second too."]
    assert knows(model, "second", "made.txt"), "it knows what it was asked for"


def resume(seat: House, agent: str, run: str) -> str:
    if (
        agent == "gemini"
    ):  # it finds a session only in another minute than that in which it began: their files have the same name
        minute = time.time() // 60
        eventually(lambda: time.time() // 60 > minute, 70.0, "the next minute")
    return seat.sparrow("resume", "-d", run, "Go on: {{say The second too.}}").ok().out.strip()


def knows(model: ModelServer, prompt: str, earlier: str) -> bool:
    """Whether the model was asked for one thing by somebody who remembered another."""
    return any(
        any(prompt in text for who, text in asked.said if who == "user") and earlier in str(asked.said)
        for asked in model.requests
    )
