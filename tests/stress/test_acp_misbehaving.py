"""Agents that speak the Agent Client Protocol badly, in every way that was thought of."""

from __future__ import annotations

import sys

import pytest

from tests.support import processes
from tests.support.acp_runs import AGENT, begin, said, told
from tests.support.house import House
from tests.support.waiting import eventually

pytest.importorskip("acp", reason="needs the extra acp")
pytestmark = pytest.mark.stress


def test_garbage_changes_nothing_and_a_huge_message_is_cut_into_events(shared: House) -> None:
    run = begin(shared, "garbage")
    assert shared.outcome(run)["status"] == "completed"
    assert said(shared, run) == ["after the garbage"]
    run = begin(shared, "huge")
    assert shared.outcome(run)["status"] == "completed"
    assert "".join(said(shared, run)) == "x" * 3_000_000


def test_one_that_does_not_hear_is_ended_with_all_that_it_started(shared: House) -> None:
    run = begin(shared, "deaf")
    pid = shared.pid_of(run)
    tree = eventually(lambda: [each for each in processes.pids() if _below(each, pid) and _sleeps(each)], what="it")
    shared.sparrow("kill", "--grace", "0.5", run).ok()
    assert shared.outcome(run)["status"] == "interrupted"
    assert not [each for each in tree if processes.alive(each)]


def _below(pid: int, above: int) -> bool:
    while pid > 1:
        if pid == above:
            return True
        pid = processes.parent(pid) or 0
    return False


def _sleeps(pid: int) -> bool:
    return processes.title(pid).startswith("sleep")


@pytest.mark.parametrize(
    ("task", "mode", "words"),
    [
        ("leave", "", "ended (exit code 7) in the midst of its work"),
        ("nonsense", "", "answers what is not ACP"),
        ("hello", "future", "speaks version 2 of ACP"),
        ("hello", "login", "needs a login"),
        ("half", "", "ended (exit code 3) in the midst of its work"),
        ("endless", "", "has written a line of more than 50 MiB"),
        ("no_error", "", "an answer that is neither a result nor an error"),
    ],
)
def test_what_goes_wrong_is_one_sentence(shared: House, task: str, mode: str, words: str) -> None:
    run = begin(shared, task, mode=mode)
    outcome = shared.outcome(run)
    assert (outcome["status"], outcome["exit_code"]) == ("failed", 1)
    (error,) = told(shared, run, "Error")
    assert words in error["message"]
    assert bool(told(shared, run, "Output")) == (task == "half")  # the half line


def test_answers_to_nothing_are_passed_over(shared: House) -> None:
    run = begin(shared, "no_id")
    assert shared.outcome(run)["status"] == "completed"
    assert said(shared, run) == ["still here"]
    assert len(told(shared, run, "Output")) == 4


def test_what_is_too_large_for_an_event_is_cut(shared: House) -> None:
    run = begin(shared, "large")
    assert shared.outcome(run)["status"] == "completed"
    kinds = [event["type"] for event in shared.events(run)]
    assert (kinds.count("ToolUseProposed"), kinds.count("ToolOutput")) == (2, 2)
    (diff,) = told(shared, run, "DiffProposed")
    assert "too large to compare" in diff["patch"]
    assert diff["plus"] > 100_000


def test_a_command_has_ended_though_its_output_is_held(shared: House) -> None:
    run = begin(shared, "holding")
    assert shared.outcome(run)["status"] == "completed"
    assert said(shared, run) == ["0"]


def test_a_session_that_the_agent_has_lost(shared: House) -> None:
    client = "from sparrow_mp import Client\nimport sys\nwith Client() as c: print(c.submit('x', engine='acp', agent=sys.argv[1], session='s9').id)"
    run = shared.python(client, f"{sys.executable} {AGENT}").out.strip()
    assert shared.outcome(run)["status"] == "failed"
    (error,) = told(shared, run, "Error")
    assert "no such session" in error["message"]
