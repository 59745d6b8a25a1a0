"""The vocabulary: the names and shapes that sparrow-cli has, ours beside them, and what nobody here knows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sparrow_mp
from sparrow_mp import events
from sparrow_mp.events import (
    EVENT_TYPES,
    Block,
    Event,
    EventError,
    Image,
    Message,
    Outcome,
    Patch,
    RunFinished,
    Tokens,
    ToolOutput,
    Unknown,
)

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"
TS = "2026-11-22T12:00:00.123456Z"
HEAD = f'"run":"{RUN}","seq":7,"ts":"{TS}"'

# The contract's table, as JSON: all that a type always has, then each of its further fields. {} is the head.
ALWAYS: dict[str, str] = {
    "RunStarted": '"task":"make test","agent":"shell"',
    "RouteSelected": '"chain":["a/b","c"],"context_window":200000',
    "ModelSwitched": '"from":"a","to":"b","reason":"a is overloaded"',
    "ThinkingDelta": '"text":"hm"',
    "ReasoningDelta": '"text":"hm"',
    "Message": '"role":"assistant","text":"na\u00efve \U0001f426 \\n\\"quoted\\""',
    "ToolUseProposed": '"id":"t1","name":"bash","args":{"cmd":["ls",1,null,true]},"risk":"Exec"',
    "ApprovalRequested": '"id":"a1","summary":"run ls"',
    "ApprovalResolved": '"id":"a1","decision":"AllowSession"',
    "ToolUseStarted": '"id":"t1"',
    "ToolOutput": (
        '"id":"t1","blocks":[{"Text":"a"},{"Json":{"b":[1]}},{"Image":{"data":[137,80,255],"mime":"image/png"}},'
        '{"Diff":{"file":"f","patch":"@@"}}],"is_error":false'
    ),
    "DiffProposed": '"file":"f","patch":"@@","plus":3,"minus":0',
    "DiffApplied": '"file":"f"',
    "TestResult": '"passed":10,"failed":1,"detail":"test_x"',
    "AgentSpawned": '"role":"reviewer","model":"m"',
    "AgentStatus": '"role":"reviewer","status":"WaitingForApproval","note":""',
    "CheckpointCreated": '"id":"c1","label":"before"',
    "SkillLearned": '"name":"typing"',
    "CostUpdate": '"usd":0.25',
    "TokenUsage": '"input":10,"output":0',
    "TokenUsageEstimated": '"input":10,"output":3,"reason":"no usage was sent"',
    "AutonomyChanged": '"level":"trusted"',
    "Compacted": '"before_chars":100,"after_chars":10',
    "Error": '"message":"interrupted"',
    "RunFinished": (
        '"outcome":{"status":"completed","cost_usd":0.0,"tokens":{"input":0,"output":0},"diffs":[],"duration_ms":0,'
        '"forced":false}'
    ),
    "RunQueued": '"task":"make test","agent":"shell","position":1',
    "Output": '"stream":"stderr","text":"warning"',
    "Progress": '"done":1.0',
    "Custom": '"name":"mine","data":[{"any":null}]',
}
SOMETIMES: dict[str, str] = {
    "ApprovalRequested": ',"tool":"bash","risk":"Destructive","refused":true',
    "Compacted": ',"handoff_path":"/tmp/handoff.md"',
    "Output": ',"partial":true',
    "Progress": ',"total":10.0,"unit":"files","note":"nearly"',
}
FULL_OUTCOME = (
    '"outcome":{"status":"interrupted","cost_usd":0.5,"tokens":{"input":10,"output":3},'
    '"diffs":[{"file":"f","plus":0,"minus":2}],"duration_ms":1500,"forced":true,"exit_code":0,"signal":15,'
    '"reason":"enough","result":{"ok":false},"usage":{"cpu_user_s":0.5,"cpu_system_s":0.25,"max_rss_bytes":4096}}'
)
SHAPES = [
    *(f'{{"type":"{name}",{HEAD},{fields}}}' for name, fields in ALWAYS.items()),
    *(f'{{"type":"{name}",{HEAD},{ALWAYS[name]}{fields}}}' for name, fields in SOMETIMES.items()),
    f'{{"type":"RunFinished",{HEAD},{FULL_OUTCOME}}}',
]


def name_of(shape: str) -> str:
    return str(json.loads(shape)["type"])


# ── shapes ──


def test_the_table_has_every_type() -> None:
    assert set(ALWAYS) == set(EVENT_TYPES)


def test_every_type_is_to_be_had_from_the_package() -> None:
    for name, kind in EVENT_TYPES.items():
        assert getattr(sparrow_mp, name) is kind


@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
def test_a_shape_is_exactly_the_contracts(shape: str) -> None:
    event = events.decode(shape)
    assert type(event) is EVENT_TYPES[name_of(shape)]
    assert events.encode(event).decode() == shape
    assert events.decode(shape.encode()) == event
    assert events.type_name(event) == name_of(shape)
    assert (event.run, event.seq, event.ts) == (RUN, 7, TS)


@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
def test_each_field_is_needed_unless_the_contract_says_otherwise(shape: str) -> None:
    fields = json.loads(shape)
    optional = set(json.loads("{" + SOMETIMES.get(name_of(shape), "")[1:] + "}"))
    for field in set(fields) - {"type", "run", "seq", "ts"}:
        without = json.dumps({name: value for name, value in fields.items() if name != field})
        if field in optional:
            assert getattr(events.decode(without), field) in (None, False)
        else:
            with pytest.raises(EventError, match=field):
                events.decode(without)


def test_what_an_engine_builds_looks_the_same() -> None:
    output = ToolOutput(
        id="t1",
        blocks=[
            Block(text="a"),
            Block(json={"b": [1]}),
            Block(image=Image(data=[137, 80, 255], mime="image/png")),
            Block(diff=Patch(file="f", patch="@@")),
        ],
        is_error=False,
    )
    output.run, output.seq, output.ts = RUN, 7, TS
    assert events.encode(output).decode() == f'{{"type":"ToolOutput",{HEAD},{ALWAYS["ToolOutput"]}}}'
    finished = RunFinished(RUN, 7, TS, outcome=Outcome(status="completed"))
    assert events.encode(finished).decode() == f'{{"type":"RunFinished",{HEAD},{ALWAYS["RunFinished"]}}}'
    assert Outcome(status="completed").tokens is not Outcome(status="completed").tokens


def test_only_the_private_thoughts_are_not_public() -> None:
    private = {name for name in ALWAYS if not events.is_public_type(name)}
    assert private == {"ReasoningDelta"}
    assert not events.is_public(events.decode(f'{{"type":"ReasoningDelta",{HEAD},"text":"hm"}}'))
    assert events.is_public(Message(role="assistant", text="hm"))
    assert events.is_public(Unknown(type="New", fields={"type": "New"}))


def test_the_time_of_an_event() -> None:
    event = Message(RUN, 1, TS, role="user", text="")
    assert event.time == datetime(2026, 11, 22, 12, 0, 0, 123456, UTC)
    with pytest.raises(ValueError, match="isoformat"):
        _ = Message(role="user", text="").time


# ── what nobody here knows ──


def at_every_depth(value: Any) -> list[Any]:
    """The value once for each object in it, with a field that nobody knows in that object."""
    found: list[Any] = []
    if isinstance(value, dict):
        found.append({**value, "unknown": {"x": [1, None]}})
        for name, item in value.items():
            found += [{**value, name: changed} for changed in at_every_depth(item)]
    if isinstance(value, list):
        for place, item in enumerate(value):
            found += [[*value[:place], changed, *value[place + 1 :]] for changed in at_every_depth(item)]
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=name_of)
def test_an_unknown_field_survives_at_every_depth(shape: str) -> None:
    known = events.decode(shape)
    for fields in at_every_depth(json.loads(shape)):
        event = events.decode(json.dumps(fields))
        assert isinstance(event, type(known)), fields
        assert events.type_name(event) == name_of(shape)
        if name_of(shape) not in ("ToolUseProposed", "ToolOutput", "Custom", "RunFinished"):
            # The others have fields that hold anything.
            assert isinstance(known, Event)
            assert msgspec.structs.asdict(event) == msgspec.structs.asdict(known)
        assert json.loads(events.encode(event)) == fields


def test_a_change_and_what_is_unknown_are_both_kept() -> None:
    shape = '{"type":"Message","colour":"red","role":"assistant","text":"hi","run":"x"}'
    event = events.decode(shape)
    assert isinstance(event, Message)
    event.text = "bye"
    event.run, event.seq, event.ts = RUN, 7, TS
    encoded = events.encode(event)
    assert json.loads(encoded) == {
        "type": "Message", "run": RUN, "seq": 7, "ts": TS, "role": "assistant", "text": "bye", "colour": "red",
    }  # fmt: skip
    assert list(json.loads(encoded))[:4] == ["type", "run", "seq", "ts"]


def test_an_unknown_type_survives() -> None:
    shape = f'{{"type":"FromTheFuture",{HEAD},"what":{{"a":[1,null,"\u00ef"]}},"role":3}}'
    event = events.decode(shape)
    assert isinstance(event, Unknown)
    assert (event.type, event.run, event.seq, event.ts) == ("FromTheFuture", RUN, 7, TS)
    assert events.type_name(event) == "FromTheFuture"
    assert events.encode(event).decode() == shape


@pytest.mark.parametrize(
    ("head", "run", "seq", "ts"),
    [("", "", 0, ""), (',"seq":"7"', "", 0, ""), (',"seq":true', "", 0, ""), (',"seq":1.0', "", 0, "")],
)
def test_an_unknown_type_with_a_strange_head(head: str, run: str, seq: int, ts: str) -> None:
    event = events.decode(f'{{"type":"FromTheFuture"{head}}}')
    assert (event.run, event.seq, event.ts) == (run, seq, ts)
    assert event.seq is seq


# ── sparrow-cli's ──

SPARROW_CLI = [
    '{"type":"RunStarted","run":"RUN","task":"add a test","agent":"coder"}',
    '{"type":"RouteSelected","run":"RUN","chain":["anthropic/x"],"context_window":200000}',
    '{"type":"ApprovalRequested","run":"RUN","id":"1","summary":"write f"}',
    '{"type":"ToolOutput","run":"RUN","id":"1","blocks":[{"Text":"ok"}],"is_error":false}',
    '{"type":"Compacted","run":"RUN","before_chars":9,"after_chars":1,"handoff_path":null}',
    (
        '{"type":"RunFinished","run":"RUN","outcome":{"status":"Success","diffs":[{"file":"f","plus":1,"minus":0}],'
        '"cost_usd":0.1,"tokens":{"input":5,"output":6}}}'
    ),
]


@pytest.mark.parametrize("line", SPARROW_CLI, ids=name_of)
def test_a_line_of_sparrow_cli_is_read(line: str) -> None:
    line = line.replace("RUN", RUN)
    event = events.decode(line)
    assert type(event) is EVENT_TYPES[name_of(line)]
    assert (event.run, event.seq, event.ts) == (RUN, 0, "")
    header = events.decode_header(line)
    assert (header.type, header.run, header.seq, header.ts) == (name_of(line), RUN, 0, "")


def test_the_outcome_of_sparrow_cli_keeps_its_word() -> None:
    event = events.decode(SPARROW_CLI[-1])
    assert isinstance(event, RunFinished)
    assert (event.outcome.status, event.outcome.tokens) == ("Success", Tokens(input=5, output=6))
    assert event.outcome.duration_ms == 0


# ── an engine's own ──


def test_a_type_that_an_engine_made_itself_is_encoded_like_ours() -> None:
    class Lookup(Event, kw_only=True):
        word: str

    line = events.encode(Lookup(RUN, 7, TS, word="sparrow"))
    assert line.decode() == f'{{"type":"Lookup",{HEAD},"word":"sparrow"}}'
    assert isinstance(events.decode(line), Unknown)


# ── no events ──


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"type":"Message"} x', "not JSON"),
        ("nonsense", "not JSON"),
        (b'{"type":"Message","role":"a","text":"\xff"}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"type":"New","x":' + "[" * 100_000 + "]" * 100_000 + "}", "not JSON"),
        ("3", "not an object with a type"),
        ('["type"]', "not an object with a type"),
        ('{"run":"x"}', "not an object with a type"),
        ('{"type":null}', "not an object with a type"),
        ('{"type":"Message","role":"a"}', "not a Message: Object missing required field `text`"),
        ('{"type":"Message","role":"a","text":1}', "not a Message: Expected `str`, got `int` - at `$.text`"),
        ('{"type":"Message","role":"a","text":1,"new":1}', "not a Message: Expected `str`, got `int` - at `$.text`"),
        ('{"type":"Message","seq":"1","role":"a","text":""}', "not a Message: Expected `int`"),
        ('{"type":"Output","stream":"stdin","text":""}', "not a Output: Invalid enum value 'stdin'"),
        ('{"type":"ApprovalResolved","id":"1","decision":"Maybe"}', "not a ApprovalResolved: Invalid enum value"),
        ('{"type":"RunFinished","outcome":{}}', "not a RunFinished: Object missing required field `status`"),
        ('{"type":"RunFinished","outcome":{"status":"x","new":1,"signal":"9"}}', "at `$.outcome.signal`"),
    ],
    ids=lambda value: str(value[:30]),
)
def test_what_is_no_event_says_why(line: str | bytes, reason: str) -> None:
    with pytest.raises(EventError) as caught:
        events.decode(line)
    assert reason in str(caught.value)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_nothing_raises_anything_else(line: bytes | str) -> None:
    try:
        events.decode(line)
    except EventError:
        pass


def test_many_at_once_are_all_known_or_none() -> None:
    lines = "\n".join(SHAPES).encode() + b"\n"
    assert events.decode_lines(lines) == [events.decode(shape) for shape in SHAPES]
    for strange in (b'{"type":"New"}', b'{"type":"DiffApplied","file":"f","new":1}', b"nonsense"):
        with pytest.raises(msgspec.DecodeError):
            events.decode_lines(lines + strange + b"\n")


# ── any event ──

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
BLOCK = st.one_of(
    st.builds(Block, text=TEXT),
    st.builds(Block, json=JSON),
    st.builds(Block, image=st.builds(Image, data=st.lists(st.integers(0, 255), max_size=4), mime=TEXT)),
    st.builds(Block, diff=st.builds(Patch, file=TEXT, patch=TEXT)),
)


def field_strategy(kind: Any) -> st.SearchStrategy[Any]:
    if kind is Any:
        return JSON
    if kind == list[Block]:
        return st.lists(BLOCK, max_size=3)
    return st.from_type(kind)


st.register_type_strategy(str, TEXT)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(
    Outcome,
    st.builds(Outcome, status=TEXT, exit_code=st.none() | st.integers(0, 255), reason=st.none() | TEXT, result=JSON),
)


@st.composite
def any_event(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(list(EVENT_TYPES.values())))
    fields = msgspec.structs.fields(kind)
    return kind(**{field.name: draw(field_strategy(field.type)) for field in fields})


@given(any_event())
def test_any_event_comes_back_from_one_line_as_it_went(event: Event) -> None:
    line = events.encode(event)
    assert b"\n" not in line
    assert b"\r" not in line
    assert events.decode(line) == event
    assert events.encode(events.decode(line)) == line
    assert json.loads(line)["type"] == type(event).__name__


@given(st.dictionaries(TEXT, JSON, max_size=5), st.sampled_from(["New", "Message", "RunFinished", "Output"]))
def test_any_object_is_kept_or_refused(fields: dict[str, Any], kind: str) -> None:
    whole = {"type": kind, **fields, **({"role": "a", "text": "b"} if kind == "Message" else {})}
    line = msgspec.json.encode(whole)
    try:
        event = events.decode(line)
    except EventError:
        assert kind != "New"
        return
    assert msgspec.json.decode(events.encode(event)) == whole


@pytest.mark.parametrize("line", [b'{"type":"\xea"}', b"\xff", b'{"type":"x","y":' + b"[" * 5000, b"", b"[]"])
def test_a_header_that_cannot_be_read_is_always_the_same_error(line: bytes) -> None:
    """Readers catch one; another would end the adapters, which read what a power cut left."""
    with pytest.raises(msgspec.DecodeError):
        events.decode_header(line)
