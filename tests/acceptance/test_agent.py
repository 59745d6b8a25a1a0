"""Engine `agent`: a loop of our own around a language model, here a server on loopback that follows a script."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.model_server import calls, fails, hangs, model_server, says
from tests.support.waiting import eventually

pytest.importorskip("pydantic_ai", reason="needs the extra agent")
pytestmark = pytest.mark.acceptance

KEY = "sk-this-is-never-to-be-recorded"


SERVER_OF_TOOLS = Path(__file__).parents[1] / "support" / "mcp_server.py"


def configure(house: House, *addresses: str) -> None:
    """Models m1, m2, … at these addresses, and two MCP servers, one of which is not there."""
    chain = ", ".join(f'"m{n}"' for n in range(1, len(addresses) + 1))
    tables = [
        f'[endpoints.m{n}]\nbase_url = "{at}"\nmodel = "m"\nkey_env = "LAB_KEY"\ninput_price = 1000\noutput_price = 1000\n'
        for n, at in enumerate(addresses, 1)
    ]
    house.configure(
        f"[models]\nchain = [{chain}]\nbackoff = 0.01\nretries = 1\n{''.join(tables)}"
        f'[mcp.tools]\ncommand = "{sys.executable}"\nargs = ["{SERVER_OF_TOOLS}"]\n'
        'env = { SECRET_OF_SERVER = "not-for-anybody" }\n'
        '[mcp.gone]\ncommand = "no-such-program-anywhere"\n'
    )


def told(house: House, run: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in house.events(run) if event["type"] == kind]


def everything_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_a_task_is_done_with_tools_and_the_next_model_and_no_secret_is_recorded(house: House) -> None:
    house.env["LAB_KEY"] = KEY
    house.write("a.txt", "one\n")
    house.write("key.txt", f"LAB_KEY={KEY}")
    house.write("AGENTS.md", "Be kind.")
    script = [
        fails(401, f"bad key {KEY}"),
        calls("edit", path="a.txt", old="one", new="two"),
        calls("shell", command="echo it is $LAB_KEY; cat key.txt"),
        calls("tools_look"),
        calls("tools_act", on="x"),
        calls("tools_fail"),
        says("done"),
    ]
    with model_server(*script) as server:
        configure(house, server.base_url, server.base_url)
        done = house.sparrow("run", "-e", "agent", "--autonomy", "trusted", "--budget", "1", "change it").ok()
        (row,) = house.ps()
        run = row["run"]
        outcome = house.outcome(run)
    assert server.keys == [f"Bearer {KEY}"] * 7
    assert (house.work / "a.txt").read_text() == "two\n"
    assert "assistant: done" in done.out
    assert [(diff["plus"], diff["minus"]) for diff in outcome["diffs"]] == [(1, 1)]
    assert (outcome["status"], outcome["tokens"]) == ("completed", {"input": 60, "output": 30})
    assert outcome["cost_usd"] == pytest.approx(0.09)
    (switched,) = told(house, run, "ModelSwitched")
    assert (switched["from"], switched["to"]) == ("m1", "m2")
    assert server.heard(0)[0][1].endswith("AGENTS.md of this folder says:\nBe kind.")
    offered = [tool["function"]["name"] for tool in server.asked[0]["tools"]]
    assert offered[-3:] == ["tools_look", "tools_act", "tools_fail"]
    assert [event["risk"] for event in told(house, run, "ToolUseProposed")[2:]] == ["ReadOnly", "Exec", "Exec"]
    outputs = [event["blocks"][0]["Text"] for event in told(house, run, "ToolOutput")]
    assert outputs[1].startswith("it is\n"), "its commands do not have the key"
    assert "LAB_KEY=[LAB_KEY]" in outputs[1], "and what gets hold of it does not get it out"
    assert outputs[3] == "act {'on': 'x'} [SECRET_OF_SERVER]"
    assert [event["is_error"] for event in told(house, run, "ToolOutput")] == [False, False, False, False, True]
    assert "`gone` is not there" in told(house, run, "Message")[0]["text"]
    for path in everything_below(house.state):
        data = path.read_bytes()
        assert KEY.encode() not in data, path
        assert b"not-for-anybody" not in data, path
    with model_server(calls("list", tokens=(1000, 0))) as server:
        configure(house, server.base_url)
        run = house.detach("-e", "agent", "--budget", "2.5", "go on for ever")
        assert house.outcome(run)["status"] == "over_budget"


def test_people_are_asked_and_what_is_said_meanwhile_is_heard(shared: House) -> None:
    with model_server(calls("shell", command="touch made"), says("never mind")) as server:
        env = {"SPARROW_MODELS_BASE_URL": server.base_url}
        run = shared.detach("-e", "agent", "--agent", "m", "make it", env=env)
        eventually(lambda: shared.record(run)["waiting"], what="its question")
        shared.sparrow("inject", run, "use another name").ok()
        shared.sparrow("deny", run).ok()
        assert shared.outcome(run)["status"] == "completed"
    assert not (shared.work / "made").exists()
    roles = [role for role, _ in server.heard(1)]
    assert roles[-2:] == ["tool", "user"]
    assert server.heard(1)[-1][1] == "use another name"


def test_an_interruption_ends_the_request_and_the_commands(shared: House) -> None:
    with model_server(calls("shell", command="sleep 987 & sleep 987"), says("x")) as server:
        env = {"SPARROW_MODELS_BASE_URL": server.base_url}
        run = shared.detach("-e", "agent", "--agent", "m", "--autonomy", "trusted", "sleep", env=env)
        sleeping = eventually(
            lambda: [pid for pid in shared.processes() if processes.title(pid) == "sleep 987"], what="its commands"
        )
        shared.known.update(sleeping)
        shared.sparrow("kill", run).ok()
        assert shared.outcome(run)["status"] == "interrupted"
        assert not [pid for pid in sleeping if processes.alive(pid)]
    with model_server(hangs("I am ")) as server:
        env = {"SPARROW_MODELS_BASE_URL": server.base_url}
        run = shared.detach("-e", "agent", "--agent", "m", "hang", env=env)
        eventually(lambda: server.asked, what="its request")
        shared.sparrow("kill", run).ok()
        outcome = shared.outcome(run)
    assert (outcome["status"], outcome["forced"]) == ("interrupted", False)
    assert not told(shared, run, "Output")


def test_what_goes_wrong_is_one_sentence(shared: House) -> None:
    done = shared.sparrow("run", "-e", "agent", "--agent", "nothing", "x")
    done.refused(1, "the model `nothing` does not answer: it is unknown")
    assert not done.out


def test_an_ended_run_s_conversation_goes_on_in_another(shared: House) -> None:
    with model_server(calls("list"), says("I have looked."), says("It was empty.")) as server:
        env = {"SPARROW_MODELS_BASE_URL": server.base_url}
        run = shared.detach("-e", "agent", "--agent", "m", "look around", env=env)
        assert shared.outcome(run)["status"] == "completed"
        again = shared.sparrow("resume", run, "what was there?", env=env).ok()
    assert "assistant: It was empty." in again.out
    assert [role for role, _ in server.heard(2)] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert server.heard(2)[-1][1] == "what was there?"
