"""What goes over the sockets: requests, frames, subscriptions. Whatever comes is read, or refused as a bad request."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow_mp import wire
from sparrow_mp.errors import BadRequest
from sparrow_mp.events import Tokens

OPS = {
    wire.Submit: b'{"op":"submit","task":"make test"}',
    wire.List: b'{"op":"list"}',
    wire.Get: b'{"op":"get","run":"1b0c"}',
    wire.Events: b'{"op":"events","run":"1b0c"}',
    wire.Inject: b'{"op":"inject","run":"1b0c","text":"use pytest"}',
    wire.Interrupt: b'{"op":"interrupt","run":"1b0c"}',
    wire.Approve: b'{"op":"approve","run":"1b0c","decision":"Allow"}',
    wire.GetStatus: b'{"op":"status"}',
    wire.Reload: b'{"op":"reload"}',
    wire.Prune: b'{"op":"prune","runs":[]}',
    wire.Shutdown: b'{"op":"shutdown"}',
    wire.ScheduleAdd: b'{"op":"schedule.add","task":"make test","job":"nightly","cron":"@daily"}',
    wire.ScheduleList: b'{"op":"schedule.list"}',
    wire.ScheduleRemove: b'{"op":"schedule.remove","job":"nightly"}',
    wire.SchedulePause: b'{"op":"schedule.pause","job":"nightly"}',
    wire.ScheduleResume: b'{"op":"schedule.resume","job":"nightly"}',
    wire.ScheduleFire: b'{"op":"schedule.fire","job":"nightly"}',
}


# ── control ──


@pytest.mark.parametrize(("kind", "body"), OPS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_each_op_in_its_shortest_form(kind: type, body: bytes) -> None:
    request = wire.decode_request(body)
    assert type(request) is kind
    # What a client of ours encodes is as short, and comes back the same.
    assert msgspec.json.decode(wire.encode(request)) == msgspec.json.decode(body)


def test_there_is_an_example_of_every_op() -> None:
    assert set(OPS) == set(get_args(wire.AnyRequest))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "truncated"),
        (b"nonsense", "not a request"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `op`"),
        (b'{"op":"sumbit"}', "Invalid value 'sumbit'"),
        (b'{"op":"submit","tsak":"x"}', "unknown field `tsak`"),
        (b'{"op":"get"}', "missing required field `run`"),
        (b'{"op":"get","run":3}', "Expected `str`, got `int` - at `$.run`"),
        (b'{"op":"submit","env":{"A":1}}', "$.env"),
        (b'{"op":"submit","autonomy":"wild"}', "$.autonomy"),
        (b'{"op":"approve","run":"1","decision":"Perhaps"}', "$.decision"),
        (b'{"op":"status","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", ""),
        (b'{"op":"get","run":"\xff"}', "utf-8"),
        (b'{"op":"get","run":"\\ud800"}', ""),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_what_is_no_request_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequest) as caught:
        wire.decode_request(body)
    assert caught.value.message.startswith("not a request: ")
    assert reason.lower() in caught.value.message.lower()


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    for read in (wire.decode_request, wire.parse_subscription, wire.split_events):
        try:
            read(body)
        except BadRequest:
            pass


def test_replies() -> None:
    assert msgspec.json.decode(wire.ok(run="1b0c")) == {"ok": True, "run": "1b0c"}
    reply = wire.refused("no_such_run", "No active run with id x")
    assert msgspec.json.decode(reply) == {
        "ok": False,
        "error": {"code": "no_such_run", "message": "No active run with id x"},
    }
    known = msgspec.json.decode(reply, type=wire.Reply)
    assert known.error == wire.Fault(code="no_such_run", message="No active run with id x")


def test_a_record_has_what_is_always_there_and_leaves_out_what_is_not() -> None:
    record = wire.RunRecord(
        run="1b0c", status="queued", engine="shell", agent="shell", task="t", cwd="/", labels=[],
        created="2026-11-22T12:00:00.000000Z", events=0, cost_usd=0.0, tokens=Tokens(),
    )  # fmt: skip
    assert msgspec.to_builtins(record) == {
        "run": "1b0c",
        "name": None,
        "status": "queued",
        "waiting": False,
        "engine": "shell",
        "agent": "shell",
        "task": "t",
        "cwd": "/",
        "labels": [],
        "created": "2026-11-22T12:00:00.000000Z",
        "events": 0,
        "cost_usd": 0.0,
        "tokens": {"input": 0, "output": 0},
    }


# ── PAIR ──


@given(st.integers(0, 1 << 62), st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line), min_size=1))
def test_a_frame_of_events_comes_apart_as_it_was_put_together(first: int, lines: list[bytes]) -> None:
    body = b"".join(line + b"\n" for line in lines)
    frame = wire.events_frame(first, body)
    assert frame[:1] == wire.EVENTS
    assert wire.split_events(frame) == (first, body)


@pytest.mark.parametrize(
    "body",
    [b"", b"\n", b"1", b"1\n", b"1\n{}", b"-1\n{}\n", b"1.5\n{}\n", b"x\n{}\n", b" 1\n{}\n", "\u0661\n{}\n".encode(),
     b"9" * 30 + b"\n{}\n", b"9" * 10_000 + b"\n{}\n"],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_what_is_no_frame_of_events_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        wire.split_events(wire.EVENTS + body)


def test_bytes_for_the_standard_input_survive_the_json() -> None:
    data = bytes(range(256))
    frame = wire.frame(wire.INJECT, wire.InjectFrame(id="1", data=data, eof=True))
    assert frame[:1] == wire.INJECT
    assert msgspec.json.decode(frame[1:], type=wire.InjectFrame) == wire.InjectFrame(id="1", data=data, eof=True)


def test_the_kinds_of_frames_are_one_byte_each_and_all_different() -> None:
    kinds = [
        wire.HELLO, wire.EVENTS, wire.RECEIPT, wire.ACK, wire.RESEND, wire.INJECT, wire.APPROVE, wire.INTERRUPT,
    ]  # fmt: skip
    assert len(set(kinds)) == len(kinds)
    assert {len(kind) for kind in kinds} == {1}


# ── NDJSON ──


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{}", wire.Subscription()),
        (b'{"run":"1b0c","since":0}', wire.Subscription(run="1b0c", since=0)),
        (b'{"since":"2026-11-22T11:00:00Z"}', wire.Subscription(since="2026-11-22T11:00:00Z")),
        (b'{"since":"2026-11-22T11:00:00.5+02:00"}', wire.Subscription(since="2026-11-22T11:00:00.5+02:00")),
        (b'{"types":["Message","RunFinished"]}', wire.Subscription(types=["Message", "RunFinished"])),
        (b'{"since":{"1b0c":7}}', wire.Subscription(since={"1b0c": 7})),
        (b' {"run" : "1b0c"}\r', wire.Subscription(run="1b0c")),
    ],
    ids=repr,
)
def test_a_subscription(line: bytes, expected: wire.Subscription) -> None:
    assert wire.parse_subscription(line) == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "truncated"),
        (b"GET / HTTP/1.1", "malformed"),
        (b'{"op":"shutdown"}', "unknown field `op`"),
        (b'{"run":1}', "$.run"),
        (b'{"since":3}', "goes with `run`"),
        (b'{"run":"1b0c","since":-1}', "from 0"),
        (b'{"since":1.5}', "$.since"),
        (b'{"since":"yesterday"}', "not an RFC 3339 time: yesterday"),
        (b'{"since":"2026-11-22T11:00:00"}', "no time zone"),
        (b'{"since":"2026-11-22"}', "no time zone"),
        (b'{"types":"Message"}', "$.types"),
        (b'{"since":{"1b0c":"7"}}', "$.since"),
    ],
    ids=repr,
)
def test_what_is_no_subscription_is_refused_with_its_reason(line: bytes, reason: str) -> None:
    with pytest.raises(BadRequest) as caught:
        wire.parse_subscription(line)
    assert caught.value.message.startswith("not a subscription: ")
    assert reason in caught.value.message
