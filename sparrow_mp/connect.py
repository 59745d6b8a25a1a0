"""What both clients do alike and without waiting: where the supervisor is, what a request and its reply are."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from sparrow_mp import wire
from sparrow_mp.errors import BadRequest, NoSupervisor, RateLimited, SparrowError, TimedOut, TooLarge, error_from_code
from sparrow_mp.events import Autonomy
from sparrow_mp.paths import Places, supervisor_alive
from sparrow_mp.regular import read_regular

READ_ONLY = frozenset({"list", "get", "events", "status", "schedule.list"})
"""The ops that change nothing: one that got no answer may be asked again."""

SLICE = 0.25
"""How often, in seconds, one that waits for a reply looks whether the supervisor is still there."""

_LAST_MOMENTS = 2.0

RequestLike = wire.Request | Mapping[str, Any]
PATIENCE_S = 60.0
"""How long a submission waits until it is not one too many any more."""

PAGE = 1000
"""Runs in a reply to ``list``."""

_T = TypeVar("_T")


class Addresses(NamedTuple):
    """Where a supervisor listens, as ZeroMQ endpoints."""

    control: str
    events: str


class RunsReply(msgspec.Struct):
    """The reply of ``list``."""

    runs: list[wire.RunRecord]


class Listing:
    """Asks for runs a page at a time, the newest first: a hundred thousand in one reply would be kept in memory, there and here."""

    def __init__(self, **which: Any) -> None:
        self._which = which
        self._left: int | None = which.pop("limit")
        self._pages: list[list[wire.RunRecord]] = []

    @property
    def next(self) -> wire.List | None:
        """What is to be asked next; None when all is there."""
        if self._pages and (len(self._pages[-1]) < PAGE or self._left == 0):
            return None
        limit = PAGE if self._left is None else min(self._left, PAGE)
        return wire.List(limit=limit, before=self._pages[-1][0].run if self._pages else None, **self._which)

    def take(self, page: list[wire.RunRecord]) -> None:
        """The answer, oldest first."""
        self._pages.append(page)
        if self._left is not None:
            self._left -= len(page)

    def begin_anew(self) -> bool:
        """The last run of a page was deleted before the next one was asked for. False where there was none."""
        there = bool(self._pages)
        if self._left is not None:
            self._left += sum(map(len, self._pages))
        self._pages.clear()
        return there

    @property
    def runs(self) -> list[wire.RunRecord]:
        """All of them, oldest first."""
        return [run for page in reversed(self._pages) for run in page]


class RunReply(msgspec.Struct):
    """The reply of ``get``."""

    run: wire.RunRecord


class SubmitReply(msgspec.Struct):
    """The reply of ``submit``."""

    run: str


class _AddressFile(msgspec.Struct):
    pid: int | None = None
    control: str | None = None
    events: str | None = None


def _told(places: Places) -> _AddressFile:
    """What the supervisor has written of itself, if it has (yet)."""
    try:
        return msgspec.json.decode(read_regular(places.address_file, 65536), type=_AddressFile)
    except (OSError, msgspec.DecodeError):
        return _AddressFile()


def addresses(places: Places) -> Addresses:
    """Where the supervisor listens; the default addresses where it has not said (yet)."""
    told = _told(places)
    return Addresses(told.control or places.control, told.events or places.events)


def start_forbidden() -> bool:
    """Whether the environment says that no supervisor is to be started."""
    return os.environ.get("SPARROW_NO_START", "") not in ("", "0")


def crashed(places: Places) -> bool:
    """Whether a supervisor that is not there has left its address file, as only one that did not end by itself does."""
    return places.address_file.exists()


def no_supervisor() -> NoSupervisor:
    """There is none, and none may be started here."""
    why = " (SPARROW_NO_START forbids starting one here)" if start_forbidden() else ""
    return NoSupervisor(
        f"no supervisor is running{why}; start one with `sparrow supervisor`, or in Python Client().start()"
    )


def died_within(op: str) -> NoSupervisor:
    """It went away between a request that changes something and the reply."""
    return NoSupervisor(
        f"the supervisor went away before it answered: it is unknown whether `{op}` was done; look with `sparrow ps -a`"
    )


def never_taken(op: str, places: Places) -> NoSupervisor:
    """Each that came went away again before it took the request."""
    return NoSupervisor(
        f"the supervisor goes away again and again before it takes `{op}`, which was not done; see `sparrow doctor` and"
        f" {places.log}"
    )


def no_answer(op: str, seconds: float, places: Places, *, sent: bool) -> TimedOut:
    """It is there and says nothing."""
    still = ", and may still do it" if sent and op not in READ_ONLY else ""
    return TimedOut(
        f"the supervisor is there but did not answer `{op}` within {seconds:g} s{still};"
        f" see `sparrow doctor` and {places.log}"
    )


def op_of(body: RequestLike) -> str:
    """The request's op."""
    if isinstance(body, wire.Request):
        return str(body.__struct_config__.tag)
    return str(body.get("op"))


def may_repeat(body: RequestLike) -> bool:
    """Whether it does no harm to ask again what may have been done: it changes nothing, or bears an id that says so."""
    return op_of(body) in READ_ONLY or (
        isinstance(body, wire.Submit | wire.Inject | wire.ScheduleFire) and body.id is not None
    )


def encode_request(body: RequestLike) -> bytes:
    """The request's bytes. Raises BadRequest for text that is not Unicode, TooLarge over wire.MAX_REQUEST_BYTES."""
    try:
        encoded = wire.encode(body)
    except UnicodeEncodeError as error:
        raise BadRequest(f"`{op_of(body)}` was given a text that is not Unicode: {error.object!r}") from None
    if len(encoded) > wire.MAX_REQUEST_BYTES:
        raise TooLarge(
            f"`{op_of(body)}` is a request of {len(encoded)} bytes; the most is {wire.MAX_REQUEST_BYTES}:"
            " hand large inputs over in a file"
        )
    return encoded


def read_reply(reply: bytes, kind: type[_T]) -> _T:
    """What the reply says. Raises the error that it stands for where it says no."""
    try:
        verdict = msgspec.json.decode(reply, type=wire.Reply)
        if verdict.ok:
            return msgspec.json.decode(reply, type=kind)
    except msgspec.DecodeError as error:
        raise SparrowError(
            f"the supervisor's reply makes no sense here ({error}); it may be of another version: see `sparrow status`"
        ) from None
    fault = verdict.error or wire.Fault(code="internal", message="the supervisor refused, and did not say why")
    refusal = error_from_code(fault.code, fault.message)
    refusal.retry_after = fault.retry_after
    raise refusal


def pause_before(error: RateLimited, until: float) -> float:
    """How many seconds to wait before the same is asked again; raises the error where that is after ``until`` (monotonic)."""
    if error.retry_after is None or time.monotonic() + error.retry_after > until:
        raise error
    return error.retry_after


def submission(
    task: str,
    *,
    engine: str | None,
    argv: Sequence[str] | None,
    agent: str | None,
    autonomy: Autonomy | None,
    budget: float | None,
    name: str | None,
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str] | None,
    timeout: float | None,
    memory: int | None,
    max_output: int | None,
    max_transcript: int | None,
    max_processes: int | None,
    nice: int | None,
    priority: int | None,
    labels: Sequence[str] | None,
    stdin: Literal["pipe", "null"],
    interpreter: str | None,
    session: str | None,
) -> wire.Submit:
    """The request for a new run, with the caller's folder, environment and interpreter where none are given."""
    import sys
    import uuid

    if isinstance(argv, str):
        raise BadRequest('argv is a list of words, such as ["make", "test"]; a shell command is a task')
    for limit, number in (("budget", budget), ("timeout", timeout)):
        if number is not None and not math.isfinite(number):
            raise BadRequest(f"`{limit}` is {number}; give a number")  # JSON has none for it, but a null
    return wire.Submit(
        task=task,
        engine=engine,
        argv=None if argv is None else list(argv),
        agent=agent,
        autonomy=autonomy,
        budget=budget,
        name=name,
        cwd=_here() if cwd is None else str(Path(cwd).absolute()),
        env=_own_environment() if env is None else dict(env),
        timeout=timeout,
        memory=memory,
        max_output=max_output,
        max_transcript=max_transcript,
        max_processes=max_processes,
        nice=nice,
        priority=priority or 0,
        labels=list(labels or ()),
        stdin=stdin,
        interpreter=interpreter or sys.executable or None,
        session=session,
        umask=_umask(),
        id=str(uuid.uuid4()),
    )


def injection(ref: str, text: str | None, data: bytes | None, eof: bool, now: bool) -> wire.Inject:
    """The request that hands a run something, with an id that sorts by time."""
    import uuid

    return wire.Inject(run=ref, id=f"{time.time_ns():020d}-{uuid.uuid4().hex}", text=text, data=data, eof=eof, now=now)


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise BadRequest("the current folder has been deleted; go to another one, or give cwd") from None


def _own_environment() -> dict[str, str]:
    """The environment less what is not UTF-8, which JSON cannot carry."""
    env = dict(os.environ)
    try:
        "".join(env.values()).encode()
        "".join(env).encode()
    except UnicodeEncodeError:
        return {name: value for name, value in env.items() if _is_unicode(name + value)}
    return env


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Departure:
    """A supervisor that is to end, seen by its pid and by its lock."""

    def __init__(self, places: Places, pid: int) -> None:
        self.pid = pid
        self.fd = -1
        self._places = places
        self._free_since: float | None = None
        try:
            self.fd = os.pidfd_open(pid)
        except OSError:
            pass  # no such process here (it has just gone, or is in another pid namespace): the lock tells

    def is_over(self) -> bool:
        """Whether it is gone."""
        if self.fd >= 0 and _is_readable(self.fd, 0):
            return True
        if supervisor_alive(self._places):
            self._free_since = None
            return False
        # The lock is dropped some moments before the process is gone; but the pid may be none that can be seen here.
        self._free_since = self._free_since or time.monotonic()
        return self.fd < 0 or time.monotonic() - self._free_since > _LAST_MOMENTS

    def wait(self, seconds: float) -> None:
        """Wait until is_over() is worth asking again."""
        if self.fd >= 0:
            _is_readable(self.fd, seconds)
        else:
            time.sleep(0.02)  # no pidfd to wait for: look again soon

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def too_slow(self, seconds: float | None) -> TimedOut:
        """It has not gone in time."""
        return TimedOut(
            f"the supervisor (pid {self.pid}) is still ending after {seconds:g} s;"
            " `sparrow shutdown --now` kills what it waits for"
        )


def departure(places: Places) -> Departure | None:
    """The supervisor that is there now, to be seen off; None where there is none."""
    end = time.monotonic() + _LAST_MOMENTS
    while supervisor_alive(places):
        pid = _told(places).pid
        if pid is not None and supervisor_alive(places):
            return Departure(places, pid)
        if time.monotonic() >= end:  # it has not told yet, or does not any more: it begins or ends
            return Departure(places, 0)
        time.sleep(0.02)
    return None


def _is_readable(fd: int, seconds: float) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))


def _umask() -> int | None:
    """This process's umask, read where the kernel tells it: asking with umask(2) would change it for a moment."""
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass
    return None
