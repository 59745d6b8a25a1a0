"""The vocabulary: what a run can say, one tagged struct a type.

An event is one JSON object with no raw line break. ``type``, ``run``, ``seq`` and ``ts`` lead every event. The names and
shapes of the types are those of sparrow-cli (Rust, serde's internally tagged enums), so that each side reads the other.

Two laws keep old readers and new writers together, and both hold for a decode followed by an encode:

- a *type* that is not known here becomes :class:`Unknown` and keeps every field;
- a *field* that is not known here is ignored by the typed view and comes back when the event is encoded.

The structs forbid unknown fields, so that the fast path costs nothing; what it refuses takes the slow path below.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, Union, cast, get_args, get_origin

import msgspec

MAX_EVENT_BYTES = 1 << 20
"""The largest encoded event that a run may emit, in bytes."""

Risk = Literal["ReadOnly", "Mutating", "Exec", "Destructive", "Network"]
Decision = Literal["Allow", "AskUser", "Deny", "AllowOnce", "AllowSession", "AllowAlways"]
Autonomy = Literal["supervised", "trusted", "autonomous"]
AgentState = Literal["Idle", "Thinking", "Working", "WaitingForApproval", "Done", "Error"]
Stream = Literal["stdout", "stderr"]
Status = Literal[
    "completed", "failed", "interrupted", "timed_out", "over_budget", "out_of_memory", "over_limit", "crashed",
    "rejected", "lost",
]  # fmt: skip


class EventError(ValueError):
    """What was given is no event; the message says why."""


class Part(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A structure inside an event."""


class Tokens(Part, kw_only=True):
    """Token counts; both always present."""

    input: int = msgspec.field(default_factory=lambda: 0)
    output: int = msgspec.field(default_factory=lambda: 0)


class DiffStat(Part, kw_only=True):
    """How much one file changed, in lines."""

    file: str
    plus: int
    minus: int


class Usage(Part, kw_only=True):
    """What the kernel accounted to the run's process tree."""

    cpu_user_s: float
    cpu_system_s: float
    max_rss_bytes: int


class Image(Part, kw_only=True):
    """An image in a tool's output: its bytes as numbers 0 to 255, as serde writes a ``Vec<u8>``."""

    data: list[int]
    mime: str


class Patch(Part, kw_only=True):
    """A unified diff of one file in a tool's output."""

    file: str
    patch: str


class Block(Part, kw_only=True, rename="pascal"):
    """One block of a tool's output: exactly one of the four is given, as in an externally tagged enum."""

    text: str | msgspec.UnsetType = msgspec.UNSET
    json: Any = msgspec.UNSET
    image: Image | msgspec.UnsetType = msgspec.UNSET
    diff: Patch | msgspec.UnsetType = msgspec.UNSET


class Outcome(Part, kw_only=True):
    """How a run ended. ``status`` is one of :data:`Status`; a plain ``str`` here, since sparrow-cli has its own words."""

    status: str
    cost_usd: float = msgspec.field(default_factory=lambda: 0.0)
    tokens: Tokens = msgspec.field(default_factory=Tokens)
    diffs: list[DiffStat] = msgspec.field(default_factory=lambda: [])  # noqa: PIE807  `list` would be left out where empty
    duration_ms: int = msgspec.field(default_factory=lambda: 0)
    forced: bool = msgspec.field(default_factory=lambda: False)
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    result: Any = None
    usage: Usage | None = None


class Event(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, tag_field="type", tag=True):
    """What every event bears. An engine leaves these three alone: ``emit()`` fills them in.

    ``run`` is a UUIDv4 (36 characters), ``seq`` counts from 1 within the run, ``ts`` is RFC 3339 in UTC with microseconds.
    (Positional here and keyword-only below: that is the order in which msgspec encodes them.)
    """

    run: str = ""
    seq: int = 0
    ts: str = ""

    @property
    def time(self) -> datetime:
        """``ts`` as an aware datetime. Raises ValueError where the event has none (sparrow-cli's have none)."""
        return datetime.fromisoformat(self.ts)


class RunStarted(Event, kw_only=True):
    task: str
    agent: str


class RouteSelected(Event, kw_only=True):
    chain: list[str]
    context_window: int


class ModelSwitched(Event, kw_only=True):
    from_: str = msgspec.field(name="from")
    to: str
    reason: str


class ThinkingDelta(Event, kw_only=True):
    text: str


class ReasoningDelta(Event, kw_only=True):
    """The one type that is not public: adapters never send it."""

    text: str


class Message(Event, kw_only=True):
    role: str
    text: str


class ToolUseProposed(Event, kw_only=True):
    id: str
    name: str
    args: Any
    risk: Risk


class ApprovalRequested(Event, kw_only=True):
    """``refused``: nobody is asked, since policy refuses it; the ApprovalResolved behind it says why. sparrow-cli has it not."""

    id: str
    summary: str
    tool: str | None = None
    risk: Risk | None = None
    refused: bool = False


class ApprovalResolved(Event, kw_only=True):
    """``by``: who decided: ``user``, ``policy`` (nobody was asked), ``timeout`` (nobody answered in time), ``run`` (it asks no
    longer). ``reason``: why, where there is one to tell. sparrow-cli has neither.
    """

    id: str
    decision: Decision
    by: str | None = None
    reason: str | None = None


class ToolUseStarted(Event, kw_only=True):
    id: str


class ToolOutput(Event, kw_only=True):
    id: str
    blocks: list[Block]
    is_error: bool


class DiffProposed(Event, kw_only=True):
    file: str
    patch: str
    plus: int
    minus: int


class DiffApplied(Event, kw_only=True):
    file: str


class TestResult(Event, kw_only=True):
    __test__ = False  # pytest would take the name for a class of tests
    passed: int
    failed: int
    detail: str


class AgentSpawned(Event, kw_only=True):
    role: str
    model: str


class AgentStatus(Event, kw_only=True):
    role: str
    status: AgentState
    note: str


class CheckpointCreated(Event, kw_only=True):
    id: str
    label: str


class SkillLearned(Event, kw_only=True):
    name: str


class CostUpdate(Event, kw_only=True):
    """The run's total cost so far, in US dollars."""

    usd: float


class TokenUsage(Event, kw_only=True):
    """The run's token totals so far."""

    input: int
    output: int


class TokenUsageEstimated(Event, kw_only=True):
    input: int
    output: int
    reason: str


class AutonomyChanged(Event, kw_only=True):
    level: Autonomy


class Compacted(Event, kw_only=True):
    before_chars: int
    after_chars: int
    handoff_path: str | None = None


class Error(Event, kw_only=True):
    message: str


class RunFinished(Event, kw_only=True):
    """A run's last event."""

    outcome: Outcome


class RunQueued(Event, kw_only=True):
    """The run waits for a free place; ``position`` counts from 1."""

    task: str
    agent: str
    position: int


class Output(Event, kw_only=True):
    """One line that the run wrote, without its line break; all parts of a split line but the last are ``partial``."""

    stream: Stream
    text: str
    partial: bool = False


class Progress(Event, kw_only=True):
    done: float
    total: float | None = None
    unit: str | None = None
    note: str | None = None


class Custom(Event, kw_only=True):
    """An engine's own event."""

    name: str
    data: Any


class Unknown(msgspec.Struct, kw_only=True):
    """An event of a type that this version does not know; ``fields`` holds all of it and is what is encoded."""

    type: str
    fields: dict[str, Any]

    @property
    def run(self) -> str:
        """The run's id, empty where the event has none."""
        return str(self.fields.get("run", ""))

    @property
    def seq(self) -> int:
        """The event's number in its run, 0 where it has none."""
        seq = self.fields.get("seq", 0)
        return seq if type(seq) is int else 0

    @property
    def ts(self) -> str:
        """The event's time as it is written, empty where it has none."""
        return str(self.fields.get("ts", ""))


AnyEvent = Union[Event, Unknown]

EVENT_TYPES: dict[str, type[Event]] = {cls.__name__: cls for cls in Event.__subclasses__()}
"""Every known type by its name on the wire."""

PLAIN_TYPES = frozenset(EVENT_TYPES.values())
"""The types whose instances hold nothing but what their fields say: all but those of events with unknown fields."""

_Known = Union[tuple(EVENT_TYPES.values())]  # type: ignore[valid-type]  # built at run time from the classes above
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Known)
_encoder = msgspec.json.Encoder()
_NOT_PUBLIC = frozenset({"ReasoningDelta"})


class Header(msgspec.Struct):
    """What every event has, for readers that need no more; sparrow-cli's events have no ``seq`` and no ``ts``."""

    type: str
    run: str = ""
    seq: int = 0
    ts: str = ""


_decode_header = msgspec.json.Decoder(Header).decode


def decode_header(line: bytes | str) -> Header:
    """Read what every event has. Raises msgspec.DecodeError, and nothing else, where the line is no event."""
    try:
        return _decode_header(line)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def decode(line: bytes | str) -> AnyEvent:
    """Read one event. Raises EventError where the line is none."""
    try:
        return cast(Event, _decoder.decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as refused:
        return _decode_slowly(line, refused)


def decode_lines(lines: bytes) -> list[Event]:
    """Read many events at once, one a line, all of known types and without unknown fields.

    Raises msgspec.DecodeError where any is not so: decode those lines one by one to know which.
    """
    return cast("list[Event]", _decoder.decode_lines(lines))


def encode(event: AnyEvent) -> bytes:
    """The event as JSON without a line break; what an unknown field held is still there."""
    if type(event) in PLAIN_TYPES:
        return _encoder.encode(event)
    if isinstance(event, Unknown):
        return _encoder.encode(event.fields)
    original = getattr(event, "__dict__", {}).get("original")
    if original is None:
        return _encoder.encode(event)  # a type of an engine's own
    merged = _merged(original, msgspec.to_builtins(event))
    head = {name: merged[name] for name in ("type", "run", "seq", "ts") if name in merged}
    return _encoder.encode({**head, **merged})


encode_plain = cast("Callable[[Event], bytes]", _encoder.encode)
"""The same for an event of a plain type, without looking whether it is one."""


def encode_lines(events: Sequence[Event]) -> bytes:
    """Many events of plain types, each with a line break."""
    return _encoder.encode_lines(events)


def type_name(event: AnyEvent) -> str:
    """The event's type as it is on the wire."""
    return event.type if isinstance(event, Unknown) else type(event).__name__


def is_public_type(name: str) -> bool:
    """Whether adapters may send events of this type."""
    return name not in _NOT_PUBLIC


def is_public(event: AnyEvent) -> bool:
    """Whether adapters may send this event."""
    return is_public_type(type_name(event))


def _decode_slowly(line: bytes | str, refused: Exception) -> AnyEvent:
    """An unknown type, an unknown field, or no event at all."""
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"not JSON: {error}") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise EventError("not an object with a type")
    known = EVENT_TYPES.get(fields["type"])
    if known is None:
        return Unknown(type=fields["type"], fields=fields)
    bare = _without_unknown(fields, known)
    if bare == fields:
        raise EventError(f"not a {fields['type']}: {refused}")
    try:
        event = msgspec.convert(bare, _keeping(known))
    except msgspec.ValidationError as error:
        raise EventError(f"not a {fields['type']}: {error}") from None
    vars(event)["original"] = fields
    return event


@functools.cache
def _keeping(known: type[Event]) -> type[Event]:
    """The same type, with a place for what an event came with. Apart, so that usual events need no such place."""
    kind = msgspec.defstruct(known.__name__, [], bases=(known,), tag=known.__name__, dict=True, kw_only=True)
    return cast("type[Event]", kind)


def _without_unknown(value: Any, kind: Any) -> Any:
    """The value less the fields that its struct type does not know, at every depth."""
    if get_origin(kind) is list and isinstance(value, list):
        return [_without_unknown(item, get_args(kind)[0]) for item in value]
    if get_origin(kind) in (Union, types.UnionType):
        kind = next((arm for arm in get_args(kind) if isinstance(arm, type) and issubclass(arm, msgspec.Struct)), None)
    if not (isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return value
    known = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    if issubclass(kind, Event):
        known["type"] = str
    return {name: _without_unknown(item, known[name]) for name, item in value.items() if name in known}


def _merged(original: Any, typed: Any) -> Any:
    """The original with what the typed view says laid over it, so that a change is kept and so is the unknown."""
    if isinstance(original, dict) and isinstance(typed, dict):
        return {**original, **{name: _merged(original.get(name), value) for name, value in typed.items()}}
    if isinstance(original, list) and isinstance(typed, list) and len(original) == len(typed):
        return [_merged(before, now) for before, now in zip(original, typed, strict=True)]
    return typed
