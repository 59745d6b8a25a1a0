"""A run does what its autonomy allows, asks for the rest, and its transcript shows who decided what."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.support.house import House
from tests.support.terminal import on_terminal
from tests.support.waiting import eventually

_ENGINE = """
import asyncio
from pathlib import Path

def sync(run):
    may = run.permit
    return [
        may("read a file", tool="read", risk="ReadOnly", paths=["a.txt"]),
        may("delete all", tool="shell", risk="Destructive"),
        may("read a secret", tool="read", risk="ReadOnly", paths=[Path(".env")]),
        may("read what a link hides", tool="read", risk="ReadOnly", paths=["link"]),
        may("write a file", tool="write", risk="Mutating", paths=["a.txt"]),
        may("write it again", tool="write", risk="Mutating", paths=["a.txt"]),
        may("run it", tool="write", risk="Exec"),
    ]

async def concurrent(run):
    one = run.permit_async("first", tool="a", risk="Network")
    two = run.permit_async("second", tool="b", risk="Network")
    return await asyncio.gather(one, two)

async def cancelled(run):
    asking = asyncio.create_task(run.permit_async("first", tool="a", risk="Network"))
    await run.next_message_async()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await run.next_message_async()

def once(run):
    return run.permit("try", tool="t", risk="Exec")

def destroys(run):
    return run.permit("delete", tool="t", risk="Destructive")
"""


def begin(house: House, function: str, *options: str) -> str:
    engine = house.write("permits.py", _ENGINE)
    return house.detach("-e", "python", *options, f"{engine}:{function}")


def asked(house: House, run: str) -> list[dict[str, Any]]:
    """What the run waits for now."""
    events = house.events(run)
    settled = {event["id"] for event in events if event["type"] == "ApprovalResolved"}
    return [event for event in events if event["type"] == "ApprovalRequested" and event["id"] not in settled]


def decisions(house: House, run: str) -> list[tuple[str, str, str]]:
    """What was decided, how, and by whom."""
    events = house.events(run)
    about = {event["id"]: event["summary"] for event in events if event["type"] == "ApprovalRequested"}
    return [
        (about[event["id"]], event["decision"], event["by"]) for event in events if event["type"] == "ApprovalResolved"
    ]


def test_a_transcript_shows_who_decided_what(shared: House) -> None:
    link = shared.work / "in" / "link"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("/etc/passwd")
    run = begin(shared, "sync", "--autonomy", "supervised", "--cwd", str(link.parent))
    eventually(lambda: [event["summary"] for event in asked(shared, run)] == ["write a file"], what="the question")
    shared.sparrow("approve", "--session", run).ok()
    eventually(lambda: [event["summary"] for event in asked(shared, run)] == ["run it"], what="the next question")
    shared.sparrow("deny", run).ok()
    told = shared.outcome(run)
    assert told["result"] == ["Allow", "Deny", "Deny", "Deny", "AllowSession", "AllowSession", "Deny"]
    assert decisions(shared, run) == [
        ("delete all", "Deny", "policy"),
        ("read a secret", "Deny", "policy"),
        ("read what a link hides", "Deny", "policy"),
        ("write a file", "AllowSession", "user"),
        ("run it", "Deny", "user"),
    ]
    text = shared.sparrow("logs", run).ok().out
    assert "by policy; a supervised run may do nothing destructive" in text
    assert "AllowSession (by a person)" in text
    assert "refused: delete all (shell, Destructive)" in text
    assert text.count("answer with: ") == 2, "what policy refuses is nobody's to answer"


@pytest.mark.parametrize("level", ["trusted", "autonomous"])
def test_who_is_trusted_is_asked_for_what_is_destructive_alone(shared: House, level: str) -> None:
    run = begin(shared, "sync", "--autonomy", level)
    eventually(lambda: [event["summary"] for event in asked(shared, run)] == ["delete all"], what="the question")
    shared.sparrow("approve", run).ok()
    assert shared.outcome(run)["result"][1] == "Allow"
    assert [row for row in decisions(shared, run) if row[2] == "user"] == [("delete all", "Allow", "user")]


def test_always_is_kept_for_the_tool_in_that_folder_until_it_is_taken_back(shared: House) -> None:
    one, other = shared.work / "one", shared.work / "other"
    one.mkdir()
    other.mkdir()
    run = begin(shared, "once", "--cwd", str(one))
    eventually(lambda: asked(shared, run), what="the question")
    shared.sparrow("approve", "--always", run).ok()
    assert shared.outcome(run)["result"] == "AllowAlways"
    again = begin(shared, "once", "--cwd", str(one))
    assert shared.outcome(again)["result"] == "AllowAlways"
    elsewhere = begin(shared, "once", "--cwd", str(other))
    eventually(lambda: asked(shared, elsewhere), what="the question in another folder")
    shared.sparrow("deny", elsewhere).ok()
    assert shared.outcome(elsewhere)["result"] == "Deny"
    assert shared.sparrow("allowed", "--json").ok().rows() == [{"workspace": str(one), "tool": "t", "risk": "Exec"}]
    assert str(one) in shared.sparrow("allowed", "--tool", "t").ok().out
    assert shared.sparrow("allowed", "--cwd", str(other)).ok().out == ""
    shared.sparrow("allowed", "--forget").refused(2, "--all")
    assert "nothing" in shared.sparrow("allowed", "--forget", "--tool", "other").ok().err
    assert "1 permission" in shared.sparrow("allowed", "--forget", "--cwd", "one").ok().err
    taken_back = begin(shared, "once", "--cwd", str(one))
    eventually(lambda: asked(shared, taken_back), what="the question again")
    shared.sparrow("kill", taken_back).ok()


def test_two_questions_at_once(shared: House) -> None:
    run = begin(shared, "concurrent")
    eventually(lambda: len(asked(shared, run)) == 2, what="both questions")
    ids = {event["summary"]: event["id"] for event in asked(shared, run)}
    shared.sparrow("approve", run, ids["second"]).ok()
    shared.sparrow("deny", run, ids["first"]).ok()
    assert shared.outcome(run)["result"] == ["Deny", "Allow"]


def test_what_the_engine_gives_up_is_open_no_longer(shared: House) -> None:
    run = begin(shared, "cancelled")
    eventually(lambda: asked(shared, run), what="the question")
    shared.sparrow("inject", run, "never mind").ok()
    eventually(lambda: not shared.record(run)["waiting"], what="the end of the question")
    assert decisions(shared, run) == [("first", "Deny", "run")]
    shared.sparrow("inject", run, "that is all").ok()
    assert shared.outcome(run)["status"] == "completed"


def test_a_run_that_nobody_watches_waits_for_all_to_see_and_not_for_ever(house: House) -> None:
    """By the clock or by hand: it shows, is told once, can be answered, and where nobody does it goes on with a no."""
    notify = f"[notify]\non = ['waiting']\ncommand = 'cat >> {house.work}/told'\n"
    house.configure(notify)
    engine = house.write("permits.py", _ENGINE)
    task = ("--autonomy", "autonomous", "-e", "python", f"{engine}:destroys")
    house.sparrow("schedule", "add", "nightly", "--cron", "0 0 1 1 *", *task).ok()
    run = house.sparrow("schedule", "fire", "nightly", "--json").ok().rows()[0]["run"]
    eventually(lambda: house.record(run)["waiting"], what="that it waits")
    (line,) = [line for line in house.sparrow("ps").ok().out.splitlines() if run[:8] in line]
    assert "waiting" in line
    assert "1 run waits" in house.sparrow("status").ok().out
    told = house.work / "told"
    eventually(lambda: told.exists() and told.read_text().endswith("\n"), what="that it is told")
    house.sparrow("approve", run).ok()
    assert house.outcome(run)["result"] == "Allow"
    assert told.read_text().count("\n") == 1
    assert decisions(house, run) == [("delete", "Allow", "user")]

    house.configure(f"{notify}[engines.python]\napproval_timeout = 0.2\n")
    house.sparrow("reload").ok()
    for run in (
        house.sparrow("schedule", "fire", "nightly", "--json").ok().rows()[0]["run"],
        house.detach(*task),
        begin(house, "once"),
    ):
        assert house.outcome(run)["result"] == "Deny"
        assert [row[1:] for row in decisions(house, run)] == [("Deny", "timeout")]
        assert not house.record(run)["waiting"]
        assert "by the time limit" in house.sparrow("logs", run).ok().out


_TALKER = """
import os
import threading
import time
from sparrow_mp import Message

def meanwhile(run):
    while not os.path.exists("talk"):
        time.sleep(0.01)
    run.emit(Message(role="assistant", text="meanwhile"))

def main(run):
    print("half a line", end="", flush=True)
    talk = threading.Thread(target=meanwhile, args=(run,))
    talk.start()
    first = run.permit("write a file", tool="write", risk="Mutating")
    talk.join()
    return [first, run.permit("write it again", tool="write", risk="Mutating"), run.permit("call", tool="x", risk="Network")]
"""


def test_a_key_answers_on_the_terminal_of_run_and_the_output_is_left_alone(shared: House) -> None:
    engine = shared.write("talker.py", _TALKER)
    with on_terminal(shared, "run", "--name", "keys", "-e", "python", f"{engine}:main") as terminal:
        eventually(lambda: "half a line\r\n" in terminal.screen, what="the line")
        eventually(lambda: "allow: write a file" in terminal.screen, what="the question")
        shared.write("talk", "")
        eventually(lambda: terminal.screen.count("allow: write a file") == 2, what="it again, after a message")
        terminal.type("x")
        terminal.type("s")
        eventually(lambda: "allow: call" in terminal.screen, what="the next question")
        terminal.type("n")
        assert terminal.wait() == 0
    assert "assistant" in terminal.screen
    assert "yes, for this session\r\n" in terminal.screen
    assert "allow: write it again" not in terminal.screen
    (record,) = [row for row in shared.ps() if row["name"] == "keys"]
    assert shared.outcome(record["run"])["result"] == ["AllowSession", "AllowSession", "Deny"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_ends_the_command_while_it_asks_has_the_terminal_as_it_was(shared: House, number: int) -> None:
    engine = shared.write("permits.py", _ENGINE)
    name = f"ended-{int(number)}"
    with on_terminal(shared, "run", "--name", name, "-e", "python", f"{engine}:once") as terminal:
        assert terminal.as_usual()
        eventually(lambda: "allow: try" in terminal.screen, what="the question")
        assert not terminal.as_usual()
        terminal.process.send_signal(number)
        assert terminal.wait() == -number
        assert terminal.as_usual()
    shared.sparrow("deny", name).ok()  # the run is left alone
    (record,) = [row for row in shared.ps() if row["name"] == name]
    assert shared.outcome(record["run"])["result"] == "Deny"


def test_a_line_answers_in_attach_and_any_other_is_injected(shared: House) -> None:
    code = "def main(run):\n    return [run.ask('go on?'), run.next_message(), run.next_message()]\n"
    run = shared.detach("-e", "python", f"{shared.write('attached.py', code)}:main")
    with on_terminal(shared, "attach", run) as terminal:
        eventually(lambda: "allow: go on?" in terminal.screen, what="the question")
        terminal.type("maybe\n")
        terminal.type("y\n")
        eventually(lambda: not asked(shared, run), what="the answer")
        terminal.type("y\n")
        assert terminal.wait() == 0
    assert shared.outcome(run)["result"] == ["Allow", "maybe", "y"]


def test_what_was_answered_elsewhere_is_asked_no_longer(shared: House) -> None:
    engine = shared.write("permits.py", _ENGINE)
    with on_terminal(shared, "run", "--name", "elsewhere", "-e", "python", f"{engine}:once") as terminal:
        eventually(lambda: "allow: try" in terminal.screen, what="the question")
        shared.sparrow("approve", "elsewhere").ok()
        assert terminal.wait() == 0
    assert "AllowOnce" not in terminal.screen


def test_a_pipe_is_not_asked(shared: House) -> None:
    engine = shared.write("permits.py", _ENGINE)
    with shared.begin("run", "--name", "piped", "-e", "python", f"{engine}:once") as going:
        eventually(lambda: "approval needed" in going.out, what="what it asks for")
        shared.sparrow("deny", "piped").ok()
        done = going.wait()
        assert done.code == 0
        assert "y(es)" not in done.out + done.err
