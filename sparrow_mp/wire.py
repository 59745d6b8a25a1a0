"""What goes over the sockets: control requests and replies, PAIR frames, NDJSON requests. Bytes and structs, no I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Union

import msgspec

from sparrow_mp.errors import BadRequest
from sparrow_mp.events import Autonomy, Decision, Status, Tokens

PROTOCOL = 1
"""What a monitor and its supervisor speak. A run outlives an upgrade, so every version keeps these as they are: the frames
HELLO, EVENTS, ACK, RESEND and INTERRUPT, and the layout of the outbox. So the events of a run of any version are recorded
and it can be ended; messages and approvals are for runs of the supervisor's own protocol.
"""
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


RunId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
"""A UUIDv4 of 36 characters."""


class Submit(Request, kw_only=True, tag="submit"):
    """``env`` is the whole environment; ``interpreter`` is the caller's Python (for engine ``python``), ``umask``
    the caller's. ``id``, a UUIDv4 of the caller's choice, makes it safe to ask again: the second time answers the first's run.
    ``memory``, ``max_output`` and ``max_transcript`` are bytes, ``budget`` US dollars, ``timeout`` seconds; ``nice`` is added
    to the niceness; ``session`` is what an engine named in an earlier run, to go on with.
    """

    task: str = ""
    id: RunId | None = None
    engine: str | None = None
    argv: list[str] | None = None
    agent: str | None = None
    autonomy: Autonomy | None = None
    budget: float | None = None
    name: str | None = None
    cwd: str | None = None
    env: dict[str, str] | None = None
    timeout: float | None = None
    memory: Count | None = None
    max_output: Count | None = None
    max_transcript: Count | None = None
    max_processes: Count | None = None
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    labels: list[str] = []
    stdin: Literal["pipe", "null"] = "pipe"
    interpreter: str | None = None
    umask: Annotated[int, msgspec.Meta(ge=0, le=0o777)] | None = None
    session: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)] | None = None


class List(Request, kw_only=True, tag="list"):
    all: bool = False
    status: str | None = None
    label: str | None = None
    limit: Count | None = None
    before: str | None = None


class Get(Request, kw_only=True, tag="get"):
    run: str


class Events(Request, kw_only=True, tag="events"):
    run: str
    since: Count = 0
    limit: Count = 1000


class Inject(Request, kw_only=True, tag="inject"):
    """``text`` is one line; ``data`` (base64) is bytes for the standard input as they are; ``eof`` ends it afterwards.
    ``now`` has an agent end what it is doing first.

    ``id``, of the caller's choice and never used again, makes it safe to ask again: it is handed over once. What waits for a
    run is handed over in the order of the ids.
    """

    run: str
    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-z-]{1,80}$")] | None = None
    text: str | None = None
    data: bytes | None = None
    eof: bool = False
    now: bool = False


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


class ScheduleAdd(Submit, kw_only=True, tag="schedule.add"):
    """``job`` is the job's name; everything else but ``replace`` is what stands in jobs.toml, ``id`` means nothing here."""

    job: str
    replace: bool = False
    cron: str | None = None
    timezone: str | None = None
    missed: str | None = None
    overlap: str | None = None
    watch: list[str] = []
    paused: bool = False


class ScheduleList(Request, kw_only=True, tag="schedule.list"):
    pass


class ScheduleRemove(Request, kw_only=True, tag="schedule.remove"):
    job: str


class SchedulePause(Request, kw_only=True, tag="schedule.pause"):
    job: str


class ScheduleResume(Request, kw_only=True, tag="schedule.resume"):
    job: str


class ScheduleFire(Request, kw_only=True, tag="schedule.fire"):
    """``id``, a UUIDv4 of the caller's choice, makes it safe to ask again, as with ``submit``."""

    job: str
    id: RunId | None = None


AnyRequest = Union[
    Submit, List, Get, Events, Inject, Interrupt, Approve, GetStatus, Reload, Prune, Shutdown,
    ScheduleAdd, ScheduleList, ScheduleRemove, SchedulePause, ScheduleResume, ScheduleFire,
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
    """``retry_after``: the seconds after which to ask again (``rate_limited``)."""

    code: str
    message: str
    retry_after: float | None = None


class Reply(msgspec.Struct):
    """The part that every reply has; the rest depends on the op."""

    ok: bool
    error: Fault | None = None


class Reloaded(msgspec.Struct):
    """The reply to ``reload``: the settings that it has changed, and those that count from the supervisor's next start on."""

    changed: list[str] = []
    needs_restart: list[str] = []


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


class NotFiredRow(Body, kw_only=True):
    """Why a job did not fire, the last time that it did not: ``due`` is the moment that was meant, ``at`` when that was decided."""

    at: str
    due: str
    reason: str


class JobRow(Body, kw_only=True):
    """A row of ``schedule.list``. Times are RFC 3339; ``waiting`` is the id of the run that a firing which waits will become."""

    job: str
    task: str
    engine: str | None = None
    cron: str | None = None
    timezone: str | None = None
    watch: list[str] = []
    missed: str
    overlap: str
    paused: bool
    next: str | None = None
    last_run: str | None = None
    last_fired: str | None = None
    last_why: str | None = None
    last_status: str | None = None
    waiting: str | None = None
    not_fired: NotFiredRow | None = None


LIVE_STATUSES = frozenset({"queued", "starting", "running", "stopping"})


def ok(**fields: Any) -> bytes:
    """A reply that says yes."""
    return _encoder.encode({"ok": True, **fields})


def refused(code: str, message: str, retry_after: float | None = None) -> bytes:
    """A reply that says no, why, and when to ask again where that helps."""
    return _encoder.encode({"ok": False, "error": Fault(code=code, message=message, retry_after=retry_after)})


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
    memory: int | None = None
    max_output: int | None = None
    max_transcript: int | None = None
    max_processes: int | None = None
    nice: int | None = None
    stdin: Literal["pipe", "null"] = "pipe"
    interpreter: str | None = None
    session: str | None = None
    umask: int | None = None
    open_files: int | None = None
    outbox_bytes: int = 8 << 20
    grace: float = 10.0
    approval_timeout: float = 3600.0
    allowed: str | None = None
    config: str | None = None


class ExitReport(Body, kw_only=True):
    """What the monitor knows at a run's end; ``wait_status`` is what wait4 gave for the engine.

    ``told`` says whether the run was asked to end before it did; ``limit`` is how it has to end and why, where it had reached a
    limit before anybody asked; ``left`` are the pids that could not be ended; ``taken`` are the injections and approvals that it recorded last: their receipts may have died with its socket.
    """

    wait_status: int | None = None
    rejected: str | None = None
    rejected_code: int | None = None
    reason: str | None = None
    result: Any = None
    interrupted: str | None = None
    limit: tuple[Status, str] | None = None
    told: bool = False
    forced: bool = False
    left: list[int] = []
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
    """A run says that it is there: after it was spawned, after each reconnection of its own doing, and when its monitor ends
    it since it has reached a limit (``limit``: how it will end, and why).
    """

    protocol: int
    run: str
    last: int
    pid: int | None = None
    limit: tuple[Status, str] | None = None
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
    now: bool = False
    answered: bool = False
    """The client was told ok before there was a run to ask: what becomes of it has to be told in the transcript."""


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


def split_events(data: bytes) -> tuple[int, bytes]:
    """The first seq and the lines of a frame of events. Raises BadRequest where it is none."""
    end = data.find(b"\n")
    head = data[1 : max(1, end)]
    if not head.isdigit() or len(head) > _MAX_DIGITS or not data.endswith(b"\n", end + 1):
        raise BadRequest("not a frame of events")
    return int(head), data[end + 1 :]


def foreign(run: str, protocol: int) -> str:
    """What becomes of a run that speaks another protocol."""
    return (
        f"run {run[:8]} was started by another version of sparrow (it speaks protocol {protocol}, this one {PROTOCOL}):"
        f" its events are recorded and `sparrow kill {run[:8]}` ends it, but it takes no messages and no approvals"
    )


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
