"""What a run sends is checked line by line: the bytes stay, a lie is caught, and what is no event becomes an Error."""

from __future__ import annotations

import itertools
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow_mp import events
from sparrow_mp.events import AnyEvent, Custom, Error, Message, Output, RunFinished, RunQueued, RunStarted, Unknown
from sparrow_supervisor.link import Group, ProtocolBroken, check

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"
OTHER = "2c1d8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"
TS = "2026-11-22T12:00:00.123456Z"


def line(kind: str = "Message", seq: int = 1, body: str = '"role":"assistant","text":"hi"', run: str = RUN) -> bytes:
    return f'{{"type":"{kind}","run":"{run}","seq":{seq},"ts":"{TS}",{body}}}\n'.encode()


def skill(seq: int) -> bytes:
    return line("SkillLearned", seq, '"name":"typing"')


def bytes_of(groups: list[Group]) -> bytes:
    return b"".join(group.lines for group in groups)


def numbers(groups: list[Group]) -> list[int]:
    return [event.seq for group in groups for event in group.events]


def only_error(groups: list[Group]) -> Error:
    """The one Error that the only line became."""
    assert numbers(groups) == [1]
    (group,) = groups
    (event,) = group.events
    assert isinstance(event, Error)
    assert group.kind == "Error"
    assert events.decode(group.lines) == event
    assert group.lines.count(b"\n") == 1
    return event


def test_nothing() -> None:
    assert check(b"", RUN, 1) == []


def test_what_is_alike_is_one_group_with_the_bytes_that_came() -> None:
    lines = line(seq=7) + line(seq=8) + line(seq=9)
    (group,) = check(lines, RUN, 7)
    assert group.kind == "Message"
    assert group.lines is lines
    assert [event.seq for event in group.events] == [7, 8, 9]
    assert all(isinstance(event, Message) for event in group.events)


def test_consecutive_ones_of_a_type_are_a_group() -> None:
    lines = [line(seq=1), line(seq=2), skill(3), line(seq=4), skill(5), skill(6)]
    groups = check(b"".join(lines), RUN, 1)
    assert [group.kind for group in groups] == ["Message", "SkillLearned", "Message", "SkillLearned"]
    assert [len(group.events) for group in groups] == [2, 1, 1, 2]
    assert [group.lines for group in groups] == [lines[0] + lines[1], lines[2], lines[3], lines[4] + lines[5]]


@pytest.mark.parametrize(
    "strange",
    [
        line("FromTheFuture", 2, '"what":[1,{"a":null}]'),
        line("Message", 2, '"role":"assistant","text":"hi","colour":"red"'),
        line("ToolOutput", 2, '"id":"1","blocks":[{"Text":"a","Lang":"de"}],"is_error":false'),
        line("Message", 2, '"text" : "spaces" ,\t"role":"a"'),
    ],
    ids=["type", "field", "nested field", "spaces"],
)
def test_what_is_new_to_us_passes_untouched(strange: bytes) -> None:
    lines = line(seq=1) + strange + line(seq=3)
    groups = check(lines, RUN, 1)
    assert bytes_of(groups) == lines
    assert numbers(groups) == [1, 2, 3]


@pytest.mark.parametrize("lies_at", [1, 2, 3])
@pytest.mark.parametrize("lie", ["run", "seq too high", "seq too low", "no seq", "no run"])
@pytest.mark.parametrize("kind", ["Message", "FromTheFuture"], ids=["known type", "unknown type"])
def test_a_lie_about_run_or_seq_is_told_with_what_was_good_before(lies_at: int, lie: str, kind: str) -> None:
    lines = [line(seq=5), line(seq=6), line(seq=7)]
    seq = 4 + lies_at
    lines[lies_at - 1] = {
        "run": line(kind, seq, run=OTHER),
        "seq too high": line(kind, seq + 1),
        "seq too low": line(kind, seq - 1),
        "no seq": line(kind, seq).replace(b'"seq":%d,' % seq, b""),
        "no run": line(kind, seq).replace(b'"run":"%b",' % RUN.encode(), b""),
    }[lie]
    with pytest.raises(ProtocolBroken, match="wrong run" if "run" in lie else "wrong seq") as caught:
        check(b"".join(lines), RUN, 5)
    assert caught.value.good == lies_at - 1


@pytest.mark.parametrize(
    ("malformed", "reason"),
    [
        (b"\n", "not JSON"),
        (b"gibberish\n", "not JSON"),
        (b"[1]\n", "not an object with a type"),
        (b"null\n", "not an object with a type"),
        (b'{"run":"%b","seq":1}\n' % RUN.encode(), "not an object with a type"),
        (b'{"type":3}\n', "not an object with a type"),
        (line(body='"role":"assistant"'), "missing required field `text`"),
        (line(body='"role":"assistant","text":3'), "Expected `str`, got `int`"),
        (line("ToolUseProposed", body='"id":"1","name":"n","args":1,"risk":"Terrible"'), "Invalid enum value"),
        (line(body='"role":"assistant","text":"\\ud800"'), "not JSON"),
        (line(body='"role":"assistant","text":"').replace(b'"text":"', b'"text":"\xff"'), "not JSON"),
        (line("FromTheFuture", body='"text":"').replace(b'"text":"', b'"text":"\xff"'), "not JSON"),
        (line("Custom", body='"name":"deep","data":' + "[" * 100_000 + "]" * 100_000), "not JSON"),
        (line("FromTheFuture", body='"data":' + "[" * 100_000 + "]" * 100_000), "not JSON"),
        (line("FromTheFuture", body='"data":' + "1" * 5000), "not JSON"),
        (b"\0" * 100 + b"\n", "not JSON"),
        (line().replace(TS.encode(), b"yesterday"), "`ts` is 'yesterday'"),
        (line("FromTheFuture").replace(TS.encode(), b"yesterday"), "`ts` is 'yesterday'"),
        (line().replace(b'"ts":"%b",' % TS.encode(), b""), "`ts` is ''"),
        (line("RunFinished", body='"outcome":{"status":"completed"}'), "RunFinished is the supervisor's to say"),
        (
            line("RunFinished", body='"outcome":{"status":"completed"},"new":1'),
            "RunFinished is the supervisor's to say",
        ),
        (line("RunQueued", body='"task":"t","agent":"a","position":1'), "RunQueued is the supervisor's to say"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else value[:24],
)
def test_what_is_no_event_becomes_an_error_with_its_number(malformed: bytes, reason: str) -> None:
    error = only_error(check(malformed, RUN, 1, TS))
    assert error.message.startswith("malformed event: ")
    assert reason in error.message
    assert (error.run, error.seq, error.ts) == (RUN, 1, TS)
    assert len(error.message) < 1000
    groups = check(line(seq=1) + malformed.replace(b'"seq":1,', b'"seq":2,') + skill(3), RUN, 1)
    assert numbers(groups) == [1, 2, 3]
    assert [group.kind for group in groups] == ["Message", "Error", "SkillLearned"]
    assert bytes_of(groups).startswith(line(seq=1))
    assert bytes_of(groups).endswith(skill(3))


def test_an_error_in_place_of_an_event_never_puts_the_clock_back_or_forward() -> None:
    earlier = "2026-11-22T11:59:59.000000Z"
    groups = check(b"gibberish\n" + line(seq=2), RUN, 1, earlier)
    assert [event.ts for group in groups for event in group.events] == [earlier, TS]
    groups = check(line(seq=1) + b"gibberish\n", RUN, 1, earlier)
    assert [event.ts for group in groups for event in group.events] == [TS, TS]


def test_run_started_is_the_runs_own_to_say_once() -> None:
    started = line("RunStarted", 1, '"task":"t","agent":"a"')
    assert bytes_of(check(started + line(seq=2), RUN, 1)) == started + line(seq=2)
    after_queue = line("RunStarted", 2, '"task":"t","agent":"a"')
    assert bytes_of(check(after_queue, RUN, 2)) == after_queue
    late = line("RunStarted", 3, '"task":"t","agent":"a"')
    assert isinstance(check(late, RUN, 3)[0].events[0], Error)


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (line(seq=1).rstrip() + line(seq=2), 1),
        (line(seq=1).rstrip() + b" " + line(seq=2), 1),
        (b"\n" + line(seq=2), 2),
        (line(seq=1) + b"\n", 2),
        (line(seq=1) + b"\n" + line(seq=3), 3),
        # As many line breaks as events, but not where they belong.
        (line(seq=1).rstrip() + line(seq=2) + b"\n", 2),
        (b"\n" + line(seq=1).rstrip() + line(seq=2), 2),
        (line(seq=1).rstrip() + line(seq=2).replace(b',"role"', b',\n"role"'), 2),
        (line(seq=1).rstrip() + line("Custom", 2, '"name":"n","data":\n{"type":"x"}'), 2),
        (line(seq=1).rstrip() + line(seq=2) + b"\n" + skill(3), 3),
    ],
    ids=repr,
)
def test_a_line_is_an_event_and_an_event_a_line(lines: bytes, count: int) -> None:
    """Whatever came: what is recorded is one event a line, numbered without a hole, so that every reader can read it."""
    assert lines.count(b"\n") == count
    try:
        groups = check(lines, RUN, 1)
    except ProtocolBroken as broken:
        groups = check(b"".join(lines.splitlines(keepends=True)[: broken.good]), RUN, 1)
    recorded = bytes_of(groups).split(b"\n")[:-1]
    assert [json.loads(each)["seq"] for each in recorded] == list(range(1, len(recorded) + 1))
    assert [events.decode(each) for each in recorded] == [event for group in groups for event in group.events]


@pytest.mark.parametrize("place", [b',\r"role"', b'\r,"role"', b',\r\r"role"'], ids=repr)
@pytest.mark.parametrize("kind", ["Message", "SkillLearned", "FromTheFuture"])
def test_a_carriage_return_is_a_line_break_to_many(place: bytes, kind: str) -> None:
    """``payload.splitlines()`` gives the events, says the contract; it breaks at a carriage return as well."""
    broken = line(seq=2).replace(b',"role"', place)
    last = line("FromTheFuture", 3) if kind == "FromTheFuture" else skill(3) if kind == "SkillLearned" else line(seq=3)
    groups = check(line(seq=1) + broken + last, RUN, 1)
    assert numbers(groups) == [1, 2, 3]
    assert [json.loads(each)["seq"] for each in bytes_of(groups).splitlines()] == [1, 2, 3]


EVENTS = st.one_of(
    st.builds(Message, role=st.just("assistant"), text=st.text(max_size=8)),
    st.builds(Output, stream=st.sampled_from(["stdout", "stderr"]), text=st.text(max_size=8), partial=st.booleans()),
    st.builds(Custom, name=st.just("n"), data=st.recursive(st.none() | st.text(max_size=3), st.lists, max_leaves=4)),
    st.builds(
        lambda text: Unknown(type="FromTheFuture", fields={"type": "FromTheFuture", "text": text}), st.text(max_size=8)
    ),
)
GARBAGE = st.binary(max_size=12).map(lambda data: re.sub(rb"\n", b"", data))


def numbered(event: AnyEvent, seq: int) -> bytes:
    fields = msgspec.json.decode(events.encode(event))
    head = {"type": fields.pop("type"), "run": RUN, "seq": seq, "ts": TS}
    return msgspec.json.encode({**head, **fields}) + b"\n"


@given(st.lists(EVENTS | GARBAGE, min_size=1, max_size=12), st.integers(1, 1_000_000))
def test_any_mixture_keeps_its_order_its_numbers_and_its_bytes(said: list[AnyEvent | bytes], first: int) -> None:
    lines = [each + b"\n" if isinstance(each, bytes) else numbered(each, seq) for seq, each in enumerate(said, first)]
    groups = check(b"".join(lines), RUN, first)
    assert numbers(groups) == list(range(first, first + len(said)))
    assert all(before.kind != after.kind for before, after in itertools.pairwise(groups))
    recorded = bytes_of(groups).splitlines(keepends=True)
    for sent, kept, each in zip(lines, recorded, said, strict=True):
        if isinstance(each, bytes):
            assert isinstance(events.decode(kept), Error)
        else:
            assert kept == sent


def test_the_supervisors_own_words_are_known_here() -> None:
    """The reserved types exist under these names."""
    for kind in (RunQueued, RunStarted, RunFinished):
        assert kind.__name__ in events.EVENT_TYPES
