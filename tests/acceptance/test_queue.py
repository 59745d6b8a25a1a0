"""Where only so many runs may live at once the others wait, in their order."""

from __future__ import annotations

import pytest

from tests.support.control import refusal
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

GATED = "echo start $0; until [ -e gate-$0 ]; do sleep 0.01; done; echo end $0"


@pytest.fixture
def narrow(house: House) -> House:
    house.env["SPARROW_SUPERVISOR_MAX_RUNS"] = "2"
    return house


def gated(house: House, name: str, *options: str) -> str:
    return house.detach("--name", name, *options, "--", "sh", "-c", GATED, name)


def release(house: House, name: str) -> None:
    (house.work / f"gate-{name}").touch()


def types(house: House, run: str) -> list[str]:
    return [event["type"] for event in house.events(run)]


def test_a_run_that_waits_says_so_first_and_starts_when_there_is_room(narrow: House):
    runs = {name: gated(narrow, name) for name in "abcd"}
    for name in "ab":
        narrow.says(runs[name], f"start {name}")
    assert types(narrow, runs["c"]) == ["RunQueued"]
    assert [narrow.events(runs[name])[0].get("position") for name in "cd"] == [1, 2]
    rows = {row["name"]: row for row in narrow.ps()}
    assert [rows[name]["status"] for name in "abcd"] == ["running", "running", "queued", "queued"]
    assert [rows[name].get("position") for name in "cd"] == [1, 2]
    assert narrow.status()["runs"] == {"running": 2, "queued": 2}
    assert "queued #1" in narrow.sparrow("ps").ok().out
    release(narrow, "b")
    narrow.says(runs["c"], "start c")
    assert narrow.record(runs["d"])["position"] == 1
    for name in "acd":
        release(narrow, name)
    for name, run in runs.items():
        assert narrow.outcome(run)["status"] == "completed"
        assert types(narrow, run)[: 1 + (name in "cd")] == (["RunQueued"] if name in "cd" else []) + ["RunStarted"]


def test_never_more_than_so_many_are_alive(narrow: House):
    script = "mkdir alive-$$; ls -d alive-* | wc -l; sleep 0.03; rmdir alive-$$"
    runs = [narrow.detach("--", "sh", "-c", script) for _ in range(12)]
    for run in runs:
        assert narrow.outcome(run)["status"] == "completed"
    assert {narrow.printed(run).strip() for run in runs} <= {"1", "2"}


def test_a_run_that_is_interrupted_while_it_waits_has_no_run_started(narrow: House):
    runs = {name: gated(narrow, name) for name in "abcd"}
    narrow.sparrow("kill", "c", "-m", "not needed").ok()
    outcome = narrow.outcome(runs["c"])
    assert (outcome["status"], outcome["reason"]) == ("interrupted", "not needed")
    assert types(narrow, runs["c"]) == ["RunQueued", "Error", "RunFinished"]
    assert narrow.sparrow("wait", "c").code == 130
    assert narrow.record(runs["d"])["position"] == 1
    for name in "abd":
        release(narrow, name)
    for name in "abd":
        assert narrow.outcome(runs[name])["status"] == "completed"


def test_a_higher_priority_leaves_first(narrow: House):
    for name in "ab":
        gated(narrow, name)
    runs = {
        name: gated(narrow, name, "--priority", priority) for name, priority in (("l", "-1"), ("m", "0"), ("h", "5"))
    }
    release(narrow, "a")
    narrow.says(runs["h"], "start h")
    release(narrow, "b")
    narrow.says(runs["m"], "start m")
    assert types(narrow, runs["l"]) == ["RunQueued"]
    for name in "hml":
        release(narrow, name)
    for run in runs.values():
        assert narrow.outcome(run)["status"] == "completed"


def test_the_queue_survives_the_supervisor(narrow: House):
    runs = {name: gated(narrow, name) for name in "abcd"}
    for name in "ab":
        narrow.says(runs[name], f"start {name}")
    narrow.kill_supervisor()
    narrow.start()
    assert [narrow.record(runs[name])["status"] for name in "abcd"] == ["running", "running", "queued", "queued"]
    release(narrow, "a")
    narrow.says(runs["c"], "start c")
    for name in "bcd":
        release(narrow, name)
    for run in runs.values():
        assert narrow.outcome(run)["status"] == "completed"
        assert types(narrow, run).count("RunStarted") == 1


def test_a_message_for_a_run_that_waits_is_kept_for_it(narrow: House):
    for name in "ab":
        gated(narrow, name)
    run = narrow.detach("--", "sh", "-c", "read line; echo got $line")
    narrow.sparrow("inject", run, "early").ok()
    release(narrow, "a")
    assert narrow.outcome(run)["status"] == "completed"
    assert "got early" in narrow.printed(run)
    release(narrow, "b")


def test_a_full_queue_refuses(narrow: House):
    narrow.env["SPARROW_SUPERVISOR_MAX_QUEUE"] = "1"
    runs = {name: gated(narrow, name) for name in "abc"}
    assert refusal(narrow, {"op": "submit", "task": "true"}) == "queue_full"
    narrow.sparrow("run", "true").refused(1, "wait already")
    assert len(narrow.ps()) == 3
    for name in runs:
        release(narrow, name)
    for run in runs.values():
        narrow.outcome(run)


def test_who_follows_a_run_that_waits_is_told_so(narrow: House):
    for name in "ab":
        gated(narrow, name)
    with narrow.begin("run", "--", "echo", "at last") as going:
        eventually(lambda: "waits for a free place" in going.err)
        release(narrow, "a")
        assert going.wait().out == "at last\n"
    release(narrow, "b")


def test_shutdown_ends_what_waits_as_well(narrow: House):
    runs = {name: gated(narrow, name) for name in "abcd"}
    narrow.sparrow("shutdown", "--now").ok()
    for name, run in runs.items():
        assert narrow.outcome(run)["status"] == "interrupted", name
    assert "RunStarted" not in types(narrow, runs["d"])


def test_what_was_injected_while_it_waited_and_cannot_be_delivered_is_told(narrow: House):
    for name in "ab":
        gated(narrow, name)
    run = gated(narrow, "c", "--stdin", "null")
    narrow.sparrow("inject", run, "hello").ok()
    for name in "ab":
        release(narrow, name)
    eventually(lambda: "Error" in types(narrow, run), what="the word about the message")
    release(narrow, "c")
    assert narrow.outcome(run)["status"] == "completed"
    told = [event["message"] for event in narrow.events(run) if event["type"] == "Error"]
    assert len(told) == 1
    assert "was not delivered: the run takes no input" in told[0]
