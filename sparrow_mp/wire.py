"""What goes over the sockets: control requests and replies, PAIR frames, NDJSON requests. Bytes and structs, no I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Union

import msgspec

from sparrow_mp.errors import BadRequest
from sparrow_mp.events import Autonomy, Decision, Tokens

PROTOCOL = 1
"""The version of everything here; a run and a supervisor that differ in it say so."""

MAX_REQUEST_BYTES = 4 << 20
MAX_FRAME_BYTES = 64 << 20
MAX_TASK_BYTES = 256 << 10


class Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A struct that leaves out what is not given."""


# ── Control: requests ────────────────────────────────────────────────────────────────────────────────────────────────


class Request(Body, kw_only=True, tag_field="op", forbid_unknown_fields=True):
    """One request; the op is its tag. An unknown field is refused, since it is a misspelt one."""


Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
"""A number that JSON's readers in every language hold exactly."""


class Submit(Request, kw_only=True, tag="submit"):
    """``env`` is the whole environment; ``interpreter`` is the caller's Python (for engine ``python``), ``umask``
    the caller's.
    """

    task: str = ""
    engine: str | None = None
    argv: list[str] | None = None
    agent: str | None = None
    autonomy: Autonomy | None = None
    budget: float | None = None
    name: str | None = None
    cwd: str | None = None
    env: dict[str, str] | None = None
    timeout: float | None = None
    memory: int | None = None
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    labels: list[str] = []
    stdin: Literal["pipe", "null"] = "pipe"
    interpreter: str | None = None
    umask: Annotated[int, msgspec.Meta(ge=0, le=0o777)] | None = None


class List(Request, kw_only=True, tag="list"):
    all: bool = False
    status: str | None = None
    label: str | None = None
    limit: Count | None = None


class Get(Request, kw_only=True, tag="get"):
    run: str


class Events(Request, kw_only=True, tag="events"):
    run: str
    since: Count = 0
    limit: Count = 1000


class Inject(Request, kw_only=True, tag="inject"):
    """``text`` is one line; ``data`` (base64) is bytes for the standard input as they are; ``eof`` ends it afterwards."""

    run: str
    text: str | None = None
    data: bytes | None = None
    eof: bool = False


class Interrupt(Request, kw_only=True, tag="interrupt"):
    run: str
    message: str = ""
    grace: float | None = None
    now: bool = False


class Approve(Request, kw_only=True, tag="approve"):
    run: str
    decision: Decision
    id: str | None = None


class GetStatus(Request, kw_only=True, tag="status"):
    pass


class Reload(Request, kw_only=True, tag="reload"):
    pass


class Prune(Request, kw_only=True, tag="prune"):
    """Forget ended runs: the transcripts are deleted by the supervisor, which alone owns the index."""

    runs: list[str]


class Shutdown(Request, kw_only=True, tag="shutdown"):
    now: bool = False
    keep_runs: bool = False


AnyRequest = Union[
    Submit, List, Get, Events, Inject, Interrupt, Approve, GetStatus, Reload, Prune, Shutdown
]  # fmt: skip
_request_decoder: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
_encoder = msgspec.json.Encoder()


def decode_request(body: bytes) -> AnyRequest:
    """Read a control request. Raises BadRequest where it is none."""
    try:
        return _request_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not a request: {error}") from None


def encode(body: Any) -> bytes:
    """Any struct or plain value as JSON."""
    return _encoder.encode(body)


# ── Control: replies ─────────────────────────────────────────────────────────────────────────────────────────────────


class Fault(Body, kw_only=True):
    code: str
    message: str


class Reply(msgspec.Struct):
    """The part that every reply has; the rest depends on the op."""

    ok: bool
    error: Fault | None = None


class RunRecord(Body, kw_only=True):
    """A row of ``list``. Times are RFC 3339; ``events`` is the last seq."""

    run: str
    name: str | None = msgspec.field(default_factory=lambda: None)
    status: str
    waiting: bool = msgspec.field(default_factory=lambda: False)
    engine: str
    agent: str
    task: str
    cwd: str
    labels: list[str]
    pid: int | None = None
    created: str
    started: str | None = None
    ended: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    events: int
    cost_usd: float
    tokens: Tokens
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    position: int | None = None
    job: str | None = None


LIVE_STATUSES = frozenset({"queued", "starting", "running", "stopping"})


def ok(**fields: Any) -> bytes:
    """A reply that says yes."""
    return _encoder.encode({"ok": True, **fields})


def refused(code: str, message: str) -> bytes:
    """A reply that says no, and why."""
    return _encoder.encode({"ok": False, "error": {"code": code, "message": message}})


# ── What a run is told when it is spawned ────────────────────────────────────────────────────────────────────────────


class RunSpec(Body, kw_only=True):
    """Everything that a run needs to begin. It holds the environment: it lives in a 0600 file until the run has read it."""

    run: str
    task: str
    engine: str
    agent: str
    endpoint: str
    name: str | None = None
    cwd: str
    env: dict[str, str]
    argv: list[str] | None = None
    autonomy: Autonomy = "supervised"
    budget: float | None = None
    timeout: float | None = None
    stdin: Literal["pipe", "null"] = "pipe"
    interpreter: str | None = None
    umask: int | None = None
    open_files: int | None = None
    outbox_bytes: int = 8 << 20
    grace: float = 10.0


class ExitReport(Body, kw_only=True):
    """What the monitor knows at a run's end; ``wait_status`` is what wait4 gave for the engine.

    ``told`` says whether the run was asked to end before it did; ``taken`` are the injections and approvals that it recorded last: their receipts may have died with its socket.
    """

    wait_status: int | None = None
    rejected: str | None = None
    rejected_code: int | None = None
    reason: str | None = None
    result: Any = None
    interrupted: str | None = None
    told: bool = False
    forced: bool = False
    leftovers: int = 0
    taken: list[str] = []
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    max_rss_bytes: int = 0


# ── PAIR frames: one byte of kind, then the body ─────────────────────────────────────────────────────────────────────
#
# run → supervisor   HELLO JSON   EVENTS lines   RECEIPT JSON
# supervisor → run   ACK seq      RESEND seq     INJECT JSON   APPROVE JSON   INTERRUPT JSON
#
# EVENTS is followed by the seq of its first line, a line break, and the lines. The supervisor acknowledges what it has
# recorded. A frame that does not follow the last recorded seq is answered with RESEND, and the run goes back to there in
# its outbox; what is known already is skipped.

HELLO = b"H"
EVENTS = b"E"
RECEIPT = b"R"
ACK = b"A"
RESEND = b"N"
INJECT = b"I"
APPROVE = b"P"
INTERRUPT = b"T"

_MAX_DIGITS = 19
"""Those of a 64-bit seq; Python refuses to read very long numbers, and with another error."""


class Hello(Body, kw_only=True):
    """A run says that it is there: after it was spawned, and after each reconnection of its own doing."""

    protocol: int
    run: str
    last: int
    pid: int | None = None
    rejected: bool = False


class Receipt(Body, kw_only=True):
    """What became of an injection or an approval: in the outbox, or refused."""

    id: str
    code: str | None = None
    message: str | None = None


class InjectFrame(Body, kw_only=True):
    id: str
    text: str | None = None
    data: bytes | None = None
    eof: bool = False


class ApproveFrame(Body, kw_only=True):
    id: str
    decision: Decision
    request: str | None = None


class InterruptFrame(Body, kw_only=True):
    message: str = ""
    grace: float = 10.0


def events_frame(first: int, lines: bytes) -> bytes:
    """A frame of events; ``lines`` ends with a line break."""
    return b"%b%d\n%b" % (EVENTS, first, lines)


def split_events(body: bytes) -> tuple[int, bytes]:
    """The first seq and the lines of a frame of events, less its kind. Raises BadRequest where it is none."""
    head, found, lines = body.partition(b"\n")
    if not found or not head.isdigit() or len(head) > _MAX_DIGITS or not lines.endswith(b"\n"):
        raise BadRequest("not a frame of events")
    return int(head), lines


def frame(kind: bytes, body: Any) -> bytes:
    """One PAIR message."""
    return kind + _encoder.encode(body)


# ── NDJSON: what a client may ask for ────────────────────────────────────────────────────────────────────────────────


class Subscription(Body, kw_only=True, forbid_unknown_fields=True):
    """``since`` is a seq (with ``run``), a time, or ``{run: seq}``."""

    run: str | None = None
    since: int | str | dict[str, int] | None = None
    types: list[str] | None = None


_subscription_decoder = msgspec.json.Decoder(Subscription)


def parse_subscription(line: bytes) -> Subscription:
    """Read an NDJSON client's request. Raises BadRequest where it is none."""
    try:
        asked = _subscription_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not a subscription: {error}") from None
    if isinstance(asked.since, str):
        try:
            moment = datetime.fromisoformat(asked.since)
        except ValueError:
            raise BadRequest(f"not a subscription: `since` is not an RFC 3339 time: {asked.since}") from None
        if moment.tzinfo is None:
            raise BadRequest(f"not a subscription: `since` has no time zone: {asked.since}")
    if isinstance(asked.since, int) and (asked.run is None or asked.since < 0):
        raise BadRequest("not a subscription: a number in `since` is a seq, from 0, and goes with `run`")
    return asked
