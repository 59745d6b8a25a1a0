"""What a person meets who has just cloned it."""

from __future__ import annotations

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def test_hello_is_printed_and_the_run_is_listed_as_completed(house: House):
    done = house.sparrow("run", "--", "python3", "-c", 'print("hello")').ok()
    assert done.out == "hello\n"
    (row,) = house.ps()
    assert row["status"] == "completed"
    assert row["engine"] == "command"
    assert row["exit_code"] == 0
    assert row["cwd"] == str(house.work)
    assert "completed" in house.sparrow("ps", "-a").ok().out
    assert house.sparrow("ps", "--json").ok().out == ""


def test_the_first_command_starts_a_supervisor_and_says_so_on_stderr(house: House):
    first = house.sparrow("run", "--", "true").ok()
    assert first.out == ""
    assert "starting one in the background" in first.err
    assert str(house.state / "supervisor.log") in first.err
    second = house.sparrow("run", "--", "true").ok()
    assert second.err == ""
    told = house.status()
    assert told["runs"] == {"completed": 2}
    told = eventually(lambda: (now := house.status())["tcp"] and now, what="the adapters")  # no run waits long for them
    assert told["tcp"].startswith("127.0.0.1:")
    assert told["unix"] == str(house.state / "sparrow.sock")


@pytest.mark.parametrize(
    "args",
    [["run", "--no-start", "true"], ["ps", "--no-start"], ["inject", "--no-start", "x", "y"], ["kill", "--no-start", "x"],
     ["wait", "--no-start", "x"], ["attach", "--no-start", "x"], ["events", "--no-start"]],
)  # fmt: skip
def test_no_start_forbids_to_start_a_supervisor(house: House, args: list[str]):
    house.sparrow(*args).refused(69, "no supervisor")
    assert not house.supervised


def test_no_start_may_be_said_with_a_variable(house: House):
    house.sparrow("run", "true", env={"SPARROW_NO_START": "1"}).refused(69, "no supervisor")
    assert not house.supervised


def test_status_and_shutdown_never_start_a_supervisor(house: House):
    house.sparrow("status").refused(69, "no supervisor")
    house.sparrow("shutdown").refused(0)
    house.sparrow("doctor")
    assert not house.supervised


def test_a_bare_task_is_a_line_for_the_shell(house: House):
    done = house.sparrow("run", "echo one; echo $((1 + 1)) | cat").ok()
    assert done.out == "one\n2\n"
    assert [row["engine"] for row in house.ps()] == ["shell"]


def test_several_words_are_one_task(house: House):
    assert house.sparrow("run", "echo", "a", "b").ok().out == "a b\n"


def test_detached_it_prints_the_id_and_can_be_waited_for(house: House):
    run = house.detach("--name", "sleeper", "--", "sh", "-c", "read line; exit 3")
    assert len(run) == 36
    (row,) = house.ps("--status", "running") or house.ps()
    assert row["run"] == run
    assert row["name"] == "sleeper"
    house.sparrow("inject", "sleeper", "go").ok()
    assert house.sparrow("wait", "sleeper").code == 3


def test_what_the_record_of_a_run_says(house: House):
    run = house.detach("--name", "n1", "--label", "a", "--label", "b", "--agent", "me", "--", "true")
    house.outcome(run)
    row = house.record(run)
    assert row["name"] == "n1"
    assert row["labels"] == ["a", "b"]
    assert row["agent"] == "me"
    assert row["events"] == len(house.events(run))
    assert row["created"] <= row["started"] <= row["ended"]
    started = house.events(run)[0]
    assert (started["type"], started["task"], started["agent"]) == ("RunStarted", "true", "me")


def test_run_as_json_gives_the_events_as_they_are_recorded(house: House):
    done = house.sparrow("run", "--json", "--", "echo", "hi").ok()
    (row,) = house.ps()
    assert done.stdout == (house.places.transcript(row["run"]) / "events.jsonl").read_bytes()
    assert [event["type"] for event in done.rows()] == ["RunStarted", "Output", "RunFinished"]


def test_every_command_has_help_with_an_example(house: House):
    listing = house.sparrow("--help").ok().out
    for verb in ("run", "ps", "logs", "events", "attach", "inject", "kill", "wait", "approve", "deny", "replay", "rm",
                 "prune", "status", "doctor", "supervisor", "shutdown"):  # fmt: skip
        assert verb in listing
        text = house.sparrow(verb, "--help").ok().out
        assert "Example" in text, verb
        assert f"sparrow {verb}" in text, verb
