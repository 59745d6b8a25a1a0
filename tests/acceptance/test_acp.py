"""Engine `acp`: agents that speak the Agent Client Protocol. Those that misbehave are in tests/stress."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.acp_runs import AGENT, begin, said, told
from tests.support.house import House
from tests.support.waiting import eventually

pytest.importorskip("acp", reason="needs the extra acp")
pytestmark = pytest.mark.acceptance


def test_chunks_become_whole_messages_and_the_session_is_kept(shared: House) -> None:
    run = begin(shared, "hello world")
    outcome = shared.outcome(run)
    assert (outcome["status"], outcome["result"]) == ("completed", "end_turn")
    assert said(shared, run) == ["Hello, hello world"]
    assert [event["text"] for event in told(shared, run, "ThinkingDelta")] == ["Hello?"]
    (session,) = told(shared, run, "Custom")
    assert (session["name"], session["data"]) == ("acp_session", {"id": "s1", "can_load": True})


def test_a_tool_call_is_told_once_whatever_the_order(shared: House) -> None:
    run = begin(shared, "tools")
    assert shared.outcome(run)["cost_usd"] == 0.5
    kinds = [event["type"] for event in shared.events(run)]
    for kind in ("ToolUseProposed", "ToolUseStarted", "ToolOutput", "DiffProposed", "DiffApplied"):
        assert kinds.count(kind) == 1, kind
    (diff,) = told(shared, run, "DiffProposed")
    assert (diff["file"], diff["plus"], diff["minus"]) == ("/x/a.txt", 1, 0)
    (progress,) = told(shared, run, "Progress")
    assert (progress["done"], progress["total"], progress["note"]) == (1, 2, "two")


@pytest.mark.parametrize(("verb", "answer"), [("approve", "yes"), ("deny", "no")])
def test_people_answer_a_permission_and_the_agent_hears_its_own_option(shared: House, verb: str, answer: str) -> None:
    run = begin(shared, "permit", autonomy="supervised")
    eventually(lambda: shared.record(run)["waiting"], what="its question")
    shared.sparrow(verb, run).ok()
    assert shared.outcome(run)["status"] == "completed"
    assert said(shared, run) == [answer]


def test_policy_answers_what_it_can(shared: House) -> None:
    run = begin(shared, "unknown_tool")
    assert shared.outcome(run)["status"] == "completed"
    assert said(shared, run) == ["yes"]
    assert not told(shared, run, "ApprovalRequested")


def test_files_and_terminals_are_those_of_the_workspace(shared: House) -> None:
    shared.write("in.txt", "inside")
    run = begin(shared, "files")
    shared.outcome(run)
    assert said(shared, run) == ["inside True True"]
    assert (shared.work / "out.txt").read_text() == "written"
    (refused,) = told(shared, run, "ApprovalResolved")
    assert (refused["decision"], refused["by"]) == ("Deny", "policy")
    run = begin(shared, "terminal")
    shared.outcome(run)
    assert said(shared, run) == ["from the terminal 3"]


def test_what_was_allowed_as_a_tool_call_is_not_asked_for_again_as_a_file(shared: House) -> None:
    run = begin(shared, "edit", autonomy="supervised")
    for answered, verb in enumerate(("approve", "deny", "deny")):
        _asked(shared, run, answered + 1)
        shared.sparrow(verb, run).ok()
    assert shared.outcome(run)["status"] == "completed"
    assert said(shared, run) == ["written refused refused"]


def _asked(house: House, run: str, times: int) -> None:
    eventually(lambda: len(told(house, run, "ApprovalRequested")) == times, what=f"question {times}")


def test_what_is_injected_waits_for_the_end_of_the_turn(shared: House) -> None:
    run = begin(shared, "wait_for_file")
    eventually(lambda: shared.record(run)["status"] == "running", what="the run")
    shared.sparrow("inject", run, "hello again").ok()
    shared.write("go", "")
    assert shared.outcome(run)["status"] == "completed"
    assert said(shared, run) == ["busy", "Hello, hello again"]
    (shared.work / "go").unlink()


def test_an_interruption_cancels_the_turn(shared: House) -> None:
    run = begin(shared, "slow")
    waiting = shared.work / "waiting"
    eventually(waiting.exists, what="its turn")
    shared.sparrow("kill", run).ok()
    assert shared.outcome(run)["status"] == "interrupted"
    assert said(shared, run) == ["waiting and cancelled"]
    waiting.unlink()


def test_nothing_outside_of_the_workspace_is_changed(shared: House) -> None:
    folder = shared.write("inner/x", "").parent
    run = begin(shared, "elsewhere", cwd=folder)
    assert shared.outcome(run)["status"] == "completed"
    assert said(shared, run) == ["no no no no no"]
    assert not (shared.work / "up").exists()
    assert not Path("/tmp/sparrow-was-here").exists()


def test_a_message_that_does_not_wait_has_the_turn_cancelled(shared: House) -> None:
    run = begin(shared, "hurried", autonomy="supervised")
    eventually(lambda: shared.record(run)["waiting"], what="its question")
    shared.sparrow("inject", "--now", run, "hello instead").ok()
    assert shared.outcome(run)["status"] == "completed"
    assert said(shared, run) == ["asked: cancelled", "Hello, hello instead"]
    (resolved,) = told(shared, run, "ApprovalResolved")
    assert (resolved["decision"], resolved["by"]) == ("Deny", "run")


def test_an_interruption_withdraws_what_was_asked(shared: House) -> None:
    run = begin(shared, "hurried", autonomy="supervised")
    eventually(lambda: shared.record(run)["waiting"], what="its question")
    shared.sparrow("kill", run).ok()
    assert shared.outcome(run)["status"] == "interrupted"
    assert said(shared, run) == ["asked: cancelled"]


@pytest.mark.parametrize("mode", ["", "resumes"])
def test_a_session_goes_on_in_another_run(shared: House, mode: str) -> None:
    first = begin(shared, "leave", mode=mode)
    assert shared.outcome(first)["status"] == "failed"
    second = shared.sparrow("resume", "-d", first, "hello", "again").ok().out.strip()
    assert shared.outcome(second)["status"] == "completed"
    assert said(shared, second) == ["Hello, hello again"]
    (session,) = told(shared, second, "Custom")
    assert session["data"]["id"] == "s1"
    assert shared.sparrow("resume", second, "hello").ok().out.count("Hello, hello") == 1
    records = {row["run"]: row for row in shared.ps("--all")}
    assert records[first]["agent"] == records[second]["agent"]


def test_what_cannot_be_resumed_says_why(shared: House) -> None:
    run = begin(shared, "hello", mode="forgets")
    shared.outcome(run)
    shared.sparrow("resume", run, "x").refused(2, "keeps no sessions")
    shared.sparrow("resume", "no-such-run", "x").refused(3, "no-such-run")
    run = begin(shared, "slow")
    eventually(lambda: told(shared, run, "Custom"), what="its session")
    shared.sparrow("resume", run, "x").refused(2, "has not ended", "sparrow inject")
    shared.sparrow("kill", "--now", run).ok()
    (shared.work / "waiting").unlink(missing_ok=True)  # its word, for which another test may wait
    run = shared.detach("true")
    shared.outcome(run)
    shared.sparrow("resume", run, "x").refused(2, "engine `shell`", "no session")


def test_agents_and_their_servers_are_in_the_configuration(house: House) -> None:
    house.configure(
        f"""
        [agents.mine]
        command = "{sys.executable} {AGENT}"
        env = {{ OF_THE_CONFIG = "set" }}
        [agents.opencode]
        command = "{sys.executable} {AGENT} login"
        login = "ask Ann"
        [mcp.files]
        command = "sh"
        args = ["-c", "true"]
        env = {{ A = "b" }}
        [mcp.web]
        url = "http://127.0.0.1:9/mcp"
        [mcp.gone]
        command = "no-such-program"
        """
    )
    run = house.detach("-e", "acp", "--agent", "mine", "servers")
    assert house.outcome(run)["status"] == "completed"
    (text,) = said(house, run)
    servers, _, variable = text.rpartition(" ")
    (server,) = json.loads(servers)
    assert (server["name"], server["args"], server["env"]) == ("files", ["-c", "true"], [{"name": "A", "value": "b"}])
    assert Path(server["command"]).is_absolute()
    assert variable == "set"
    notes = [event["text"] for event in told(house, run, "Message") if event["role"] == "system"]
    assert ["`web`" in notes[0], "`gone`" in notes[1]] == [True, True]
    run = house.detach("-e", "acp", "--agent", "opencode", "x")
    house.outcome(run)
    (error,) = told(house, run, "Error")
    assert "needs a login: ask Ann" in error["message"]
    rows = {row["agent"]: row for row in house.sparrow("agents", "--json").ok().rows()}
    assert rows["mine"]["installed"]
    assert {"mine", "opencode", "vibe"} <= rows.keys()
    house.configure("[agents.odd]\nlogin = 'x'")
    house.sparrow("agents").refused(2, "[agents.odd] has no `command`")


def test_an_agent_that_is_not_installed(shared: House) -> None:
    done = shared.sparrow("run", "-e", "acp", "--agent", "vibe", "x")
    assert "pip install mistral-vibe" in done.err
    done = shared.sparrow("run", "-e", "acp", "--agent", "no-such-thing", "x")
    assert "no agent and no program `no-such-thing`" in done.err


def known(house: House, name: str, script: str) -> dict[str, str]:
    """An environment in which a program of this name is what the script says."""
    program = house.write(f"bin/{name}", f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{house.env['PATH']}"}


def test_one_that_would_not_ask_is_told_to(shared: House) -> None:
    env = known(shared, "codex-acp", f"exec {sys.executable} {AGENT} modes")
    run = shared.detach("-e", "acp", "--agent", "codex", "hello", env=env)
    assert shared.outcome(run)["status"] == "completed"
    assert "".join(said(shared, run)) == "now read-only. Hello, hello"
    env = known(shared, "codex-acp", f"exec {sys.executable} {AGENT} new_modes")
    run = shared.detach("-e", "acp", "--agent", "codex", "hello", env=env)
    assert shared.outcome(run)["status"] == "completed"
    assert "has no mode `read-only` any more" in shared.printed(run, "stderr")


def test_one_that_would_not_ask_is_told_to_by_a_variable_where_the_user_has_not_set_it(shared: House) -> None:
    path = known(shared, "opencode", 'echo "may: $OPENCODE_PERMISSION" >&2')
    for env, words in ((path, '"*":"ask"'), (path | {"OPENCODE_PERMISSION": '"allow"'}, 'may: "allow"')):
        run = shared.detach("-e", "acp", "--agent", "opencode", "x", env=env)
        assert shared.outcome(run)["status"] == "failed"
        assert words in shared.printed(run, "stderr")


def test_the_agents_that_are_here_and_how_to_get_the_others(house: House) -> None:
    program = house.write("bin/opencode", "#!/bin/sh\necho 1.2.3\n")
    program.chmod(0o755)
    env = {"PATH": f"{program.parent}:{house.env['PATH']}"}
    rows = {row["agent"]: row for row in house.sparrow("agents", "--json", env=env).ok().rows()}
    assert (rows["opencode"]["version"], rows["opencode"]["command"]) == ("1.2.3", ["opencode", "acp"])
    shown = house.sparrow("agents", env=env).ok().out
    assert "1.2.3" in shown
    assert rows["vibe"]["install"] in shown


@pytest.mark.parametrize(
    ("task", "mode", "words"),
    [("leave", "", "ended (exit code 7) in the midst of its work"), ("hello", "login", "needs a login")],
)
def test_what_goes_wrong_is_one_sentence(shared: House, task: str, mode: str, words: str) -> None:
    run = begin(shared, task, mode=mode)
    outcome = shared.outcome(run)
    assert (outcome["status"], outcome["exit_code"]) == ("failed", 1)
    (error,) = told(shared, run, "Error")
    assert words in error["message"]
