"""What is asked again, because its answer was lost, is done once."""

from __future__ import annotations

import uuid

import pytest

from tests.support.control import ask, refusal
from tests.support.failpoints import Failpoints
from tests.support.house import House

pytestmark = pytest.mark.acceptance

LISTENER = "echo up; while read line; do echo got $line; [ $line != over ] || exit 0; done"


def words(house: House, run: str) -> list[str]:
    return [event["text"] for event in house.events(run) if event["type"] == "Message"]


def test_a_submission_with_the_same_id_is_one_run(house: House):
    house.start()
    request = {"op": "submit", "task": "echo once >> ran", "cwd": str(house.work), "id": str(uuid.uuid4())}
    replies = [ask(house, request) for _ in range(3)]
    assert replies == [{"ok": True, "run": request["id"]}] * 3
    house.outcome(request["id"])
    assert ask(house, request) == replies[0], "after its end too"
    assert (house.work / "ran").read_text() == "once\n"


@pytest.mark.parametrize("id_", ["", "x", "../../../etc", "0" * 36, 7])
def test_an_id_that_is_none_makes_no_run(shared: House, id_: object):
    shared.start()
    assert refusal(shared, {"op": "submit", "task": "true", "id": id_}) == "bad_request"


def test_an_injection_with_the_same_id_is_handed_over_once(house: House):
    run = house.detach("--", "sh", "-c", LISTENER)
    house.says(run, "up")
    request = {"op": "inject", "run": run, "text": "one", "id": "an-id-0"}
    assert [ask(house, request)["ok"] for _ in range(3)] == [True] * 3
    house.kill_supervisor()
    house.start()
    assert ask(house, request)["ok"], "the next supervisor need not have heard of it"
    house.sparrow("inject", run, "over").ok()
    house.outcome(run)
    assert words(house, run) == ["one", "over"]
    assert house.printed(run) == "up\ngot one\ngot over\n"


@pytest.mark.parametrize("point", ["delivery.kept", "delivery.sent", "delivery.confirmed"])
def test_who_injects_does_not_notice_a_supervisor_that_dies_meanwhile(house: House, point: str):
    struck = Failpoints(house)
    run = house.detach("--", "sh", "-c", LISTENER)
    house.says(run, "up")
    struck.arm(point)
    house.sparrow("inject", run, "one").ok()
    assert struck.struck(point)
    house.sparrow("inject", run, "over").ok()
    house.outcome(run)
    assert words(house, run) == ["one", "over"]
    house.env["SPARROW_SUPERVISOR_RESTART"] = "false"
