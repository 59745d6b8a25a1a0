"""Models that fail the engine `agent`: what is asked again, who is asked next, and what is told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

pytest.importorskip("pydantic_ai", reason="needs the extra agent")
pytest.importorskip("openai", reason="needs the extra agent")

from sparrow_mp.engines.agent_loop import Failed
from sparrow_mp.engines.agent_retry import Failure, wait_before
from sparrow_mp.events import (
    AgentStatus,
    Message,
    ModelSwitched,
    RouteSelected,
)
from tests.support.conversing import converse, hold
from tests.support.model_server import (
    Reply,
    breaks_off,
    calls,
    fails,
    garbage,
    hangs,
    model_server,
    says,
)
from tests.support.recording_run import RecordingRun

pytestmark = pytest.mark.unit


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (fails(429, "slow down", {"Retry-After": "0"}), "asked too often (HTTP 429: slow down)"),
        (fails(500), "it fails (HTTP 500"),
        (fails(503, "overloaded"), "it fails (HTTP 503"),
        (garbage(), "makes no sense"),
        (garbage("data: {x\n\n", "text/event-stream"), "makes no sense"),
        (garbage("data: 7\n\n", "text/event-stream"), "makes no sense"),
        (garbage('{"choices": 7}', "application/json"), "makes no sense"),
        (garbage(""), "makes no sense"),
        (says(""), "makes no sense"),
        (breaks_off(), "makes no sense"),
        (breaks_off("half an ans"), "broke off"),
    ],
)
def test_what_may_pass_is_tried_again(tmp_path: Path, reply: Reply, words: str) -> None:
    run = RecordingRun(tmp_path)
    server = converse(run, reply, says("at last"), retries=1)
    assert len(server.asked) == 2
    (status,) = run.told(AgentStatus)
    assert status.role == "m1"
    assert words in status.note
    assert run.told(Message)[-1].text == "at last"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (fails(401, "bad key"), "wants another key (HTTP 401: bad key)"),
        (fails(404, "no m here", code="model_not_found"), "does not know this model"),
        (fails(400, "what?"), "refuses the request (HTTP 400: what?)"),
        (fails(429, "pay first", code="insufficient_quota"), "account is used up"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(tmp_path: Path, reply: Reply, words: str) -> None:
    run = RecordingRun(tmp_path)
    with (
        model_server(reply, says("no")) as server,
        pytest.raises(Failed, match="the model `m1` does not answer") as failed,
    ):
        hold(run, server.base_url, retries=3)
    assert words in str(failed.value)
    assert len(server.asked) == 1


def test_the_next_model_is_asked_and_stays(tmp_path: Path) -> None:
    run = RecordingRun(tmp_path)
    with model_server(fails(500)) as bad, model_server(calls("list"), says("well")) as good:
        hold(run, closed_port(), bad.base_url, good.base_url, retries=1)
    assert len(bad.asked) == 2
    (route,) = run.told(RouteSelected)
    assert (route.chain, route.context_window) == (["m1", "m2", "m3"], 32768)
    switched = run.told(ModelSwitched)
    assert [(event.from_, event.to) for event in switched] == [("m1", "m2"), ("m2", "m3")]
    assert "cannot be reached" in switched[0].reason
    assert "HTTP 500" in switched[1].reason


def test_where_none_answers_each_reason_is_told(tmp_path: Path) -> None:
    run = RecordingRun(tmp_path)
    with model_server(fails(401, "bad key")) as bad, pytest.raises(Failed) as failed:
        hold(run, closed_port(), bad.base_url, "gopher://x")
    words = str(failed.value)
    assert words.startswith("no model answers: `m1`: it cannot be reached at 127.0.0.1:")
    assert "(Connection refused)" in words
    assert "`m2`: it wants another key" in words
    assert "`m3`: its address gopher://x is none" in words


def test_one_that_hangs_is_given_up(tmp_path: Path) -> None:
    run = RecordingRun(tmp_path)
    with model_server(hangs("a")) as bad, pytest.raises(Failed, match="it has not answered in time"):
        hold(run, bad.base_url, patience=0.2)


@pytest.mark.parametrize(
    ("failure", "attempt", "seconds"),
    [
        (Failure("x", again=True), 1, 0.5),
        (Failure("x", again=True), 3, 2.0),
        (Failure("x", again=True), 30, 60.0),
        (Failure("x", again=True, wait=7.0), 1, 7.0),
        (Failure("x", again=True, wait=9999.0), 1, 60.0),
        (Failure("x", again=True, wait=-1.0), 1, 0.0),
    ],
)
def test_how_long_it_waits(failure: Failure, attempt: int, seconds: float) -> None:
    assert wait_before(failure, attempt, 0.5) == seconds


def test_an_answer_that_is_cut_off_and_an_agent_that_does_not_stop(tmp_path: Path) -> None:
    run = RecordingRun(tmp_path)
    with model_server(says("half", finish="length")) as server, pytest.raises(Failed, match="cut off"):
        hold(run, server.base_url)
    with model_server(calls("list")) as server, pytest.raises(Failed, match="3 requests"):
        hold(run, server.base_url, max_turns=3)
    assert len(server.asked) == 3
