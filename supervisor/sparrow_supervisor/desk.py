"""What each control request means: one method an op."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from sparrow_mp import __version__, transcript, wire
from sparrow_mp.config import load_config
from sparrow_mp.errors import BadRequest, NotRunning, SparrowError, StateError, TooLarge, error_from_code
from sparrow_mp.run.outbox import timestamp
from sparrow_mp.wire import RunRecord, RunSpec
from sparrow_supervisor import submit
from sparrow_supervisor.control import Answer
from sparrow_supervisor.core.effects import Refused
from sparrow_supervisor.core.inputs import About, InterruptAsked, RoomChanged, ShutdownAsked, Submitted, Terms
from sparrow_supervisor.index import record_of
from sparrow_supervisor.member import Member
from sparrow_supervisor.usage import Use

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger(__name__)

_EVENTS_BYTES = 1 << 20
_MAX_WORDS = 10_000
_MAX_TEXT_BYTES = 512 << 10


class Desk:
    """Answers requests, with what the reactor has in hand."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._ops: dict[type, Callable[[Any, Answer], None]] = {
            wire.Submit: self._submit,
            wire.List: self._list,
            wire.Get: self._get,
            wire.Events: self._events,
            wire.Inject: self._inject,
            wire.Interrupt: self._interrupt,
            wire.Approve: self._approve,
            wire.GetStatus: self._status,
            wire.Reload: self._reload,
            wire.Prune: self._prune,
            wire.Shutdown: self._shutdown,
        }

    def decide(self, asked: wire.AnyRequest, answer: Answer) -> None:
        """Answer a request, now or later. Raises SparrowError, which is an answer as well."""
        self._ops[type(asked)](asked, answer)

    # ── submitting ──

    def _submit(self, asked: wire.Submit, answer: Answer) -> None:
        reactor = self._reactor
        spec = submit.specify(asked, reactor.config, reactor.places, os.environ, reactor.usual)
        try:
            self._write_down(spec, asked)
        except (OSError, sqlite3.Error) as error:
            self._erase(spec.run)
            raise StateError(f"the run cannot be recorded ({error}); is the disk full?") from None
        terms = _terms(spec, asked)
        for effect in reactor.feed(Submitted(spec.run, terms)):
            if isinstance(effect, Refused):
                self._erase(spec.run)
                raise error_from_code(effect.code, effect.message)
        answer(wire.ok(run=spec.run))

    def _write_down(self, spec: RunSpec, asked: wire.Submit) -> None:
        """Everything that is needed to start the run, so that an accepted run is one whatever crashes next."""
        reactor = self._reactor
        now = time.time()
        created = timestamp(int(now * 1e6))
        member = Member(spec.run, reactor.places.run_folder(spec.run), spec.endpoint)
        member.folder.mkdir(mode=0o700)
        _write_private(member.folder / "spec.json", wire.encode(spec))
        record = reactor.places.transcript(spec.run)
        record.mkdir(mode=0o700)
        inputs = submit.inputs_of(spec, asked, msgspec.to_builtins(reactor.config), created)
        _write_private(record / transcript.INPUTS, wire.encode(inputs))
        reactor.recorder.open(spec.run)
        reactor.index.insert(
            run=spec.run,
            name=spec.name,
            status="queued",
            engine=spec.engine,
            agent=spec.agent,
            task=spec.task,
            cwd=spec.cwd,
            labels=wire.encode(asked.labels).decode(),
            terms=wire.encode(_terms(spec, asked)).decode(),
            created=created,
            created_at=now,
        )
        reactor.members[spec.run] = member
        _log.info("run %s: accepted, engine %s, task %.80r", spec.run, spec.engine, spec.task)

    def _erase(self, run: str) -> None:
        """It never was a run."""
        reactor = self._reactor
        reactor.members.pop(run, None)
        reactor.recorder.close(run)
        reactor.index.save(run, ended="")
        reactor.index.delete(run)
        shutil.rmtree(reactor.places.run_folder(run), ignore_errors=True)
        shutil.rmtree(reactor.places.transcript(run), ignore_errors=True)

    # ── looking ──

    def _list(self, asked: wire.List, answer: Answer) -> None:
        rows = self._reactor.index.rows(everything=asked.all, status=asked.status, label=asked.label, limit=asked.limit)
        positions = self._reactor.house.positions()
        records = [self._record(row, positions) for row in rows]
        self._with_use(records, lambda: answer(wire.ok(runs=records)))

    def _get(self, asked: wire.Get, answer: Answer) -> None:
        record = self._record(self._reactor.index.resolve(asked.run), self._reactor.house.positions())
        self._with_use([record], lambda: answer(wire.ok(run=record)))

    def _with_use(self, records: list[RunRecord], then: Callable[[], None]) -> None:
        """Fill in what the live ones use, and go on; at once where none is alive."""
        monitors: dict[str, int] = {}
        for record in records:
            member = self._reactor.members.get(record.run)
            if member is not None and member.monitor_pid is not None:
                monitors[record.run] = member.monitor_pid
        if not monitors:
            then()
            return

        def fill(uses: dict[str, Use]) -> None:
            for record in records:
                use = uses.get(record.run)
                if use is not None:
                    record.cpu_percent, record.memory_bytes = use
            then()

        self._reactor.usage.ask(monitors, fill)

    def _record(self, row: sqlite3.Row, positions: Mapping[str, int]) -> RunRecord:
        record = record_of(row)
        reactor = self._reactor
        member = reactor.members.get(record.run)
        if member is not None:
            record.events = reactor.recorder.seq(record.run)
            record.cost_usd = member.totals.cost_usd
            record.tokens = member.totals.tokens
            record.waiting = bool(member.totals.waiting)
            if record.status == "queued":
                record.position = positions.get(record.run)
        return record

    def _events(self, asked: wire.Events, answer: Answer) -> None:
        row = self._reactor.index.resolve(asked.run)
        folder = self._reactor.places.transcript(row["run"])
        first = transcript.first_seq(folder)
        if asked.since + 1 < first:
            raise error_from_code(
                "gone", f"events up to {first - 1} have been pruned; the first there is has seq {first}"
            )
        lines: list[bytes] = []
        size = 0
        limit = max(1, min(asked.limit, 10_000))
        with transcript.TranscriptReader(folder, since=asked.since) as reader:
            while len(lines) < limit and size < _EVENTS_BYTES and (more := reader.read()):
                lines += more
                size += sum(map(len, more))
        lines = lines[:limit]
        answer(b'{"ok":true,"events":[%b],"next":%d}' % (b",".join(lines), asked.since + len(lines)))

    def _status(self, _: wire.GetStatus, answer: Answer) -> None:
        reactor = self._reactor
        addresses = reactor.adapters.addresses
        answer(
            wire.ok(
                version=__version__,
                pid=os.getpid(),
                started=reactor.started_at,
                tcp=addresses.tcp if addresses else None,
                unix=addresses.unix if addresses else None,
                control=reactor.places.control,
                events=reactor.places.events,
                runs=reactor.index.counts(),
                state=str(reactor.places.state),
                runtime=str(reactor.places.runtime),
                zygote_pid=reactor.zygote.pid,
                adapters_pid=reactor.adapters.pid,
                problems=reactor.problems,
            )
        )

    # ── steering ──

    def _live(self, ref: str) -> Member:
        """The run, which has not ended. Raises NoSuchRun, AmbiguousRun, NotRunning."""
        row = self._reactor.index.resolve(ref)
        member = self._reactor.members.get(row["run"])
        life = self._reactor.house.lives.get(row["run"])
        if member is None or life is None or life.phase == "draining":
            raise NotRunning(f"run {row['run'][:8]} has ended ({row['status']})")
        return member

    def _inject(self, asked: wire.Inject, answer: Answer) -> None:
        member = self._live(asked.run)
        if asked.text is None and asked.data is None and not asked.eof:
            raise BadRequest("nothing to inject; give a text")
        text = (asked.text or "") + (asked.data or b"").decode("utf-8", "replace")
        size = len(wire.encode(text))  # as it is in an event, where a control character takes six bytes
        if size > _MAX_TEXT_BYTES:
            raise TooLarge(
                f"the message has {size} bytes, the limit is {_MAX_TEXT_BYTES}; put it into a file and name that"
            )
        request = self._reactor.delivery.new_id()
        body = wire.InjectFrame(id=request, text=asked.text, data=asked.data, eof=asked.eof)
        self._reactor.delivery.post(member, request, wire.frame(wire.INJECT, body), answer)

    def _approve(self, asked: wire.Approve, answer: Answer) -> None:
        member = self._live(asked.run)
        if asked.id is None and not member.totals.waiting:
            raise BadRequest(f"run {member.run[:8]} does not wait for an approval")
        if asked.id is not None and asked.id not in member.totals.waiting:
            raise BadRequest(f"run {member.run[:8]} does not ask for an approval {asked.id}")
        request = self._reactor.delivery.new_id()
        body = wire.ApproveFrame(id=request, decision=asked.decision, request=asked.id)
        self._reactor.delivery.post(member, request, wire.frame(wire.APPROVE, body), answer)

    def _interrupt(self, asked: wire.Interrupt, answer: Answer) -> None:
        member = self._live(asked.run)
        if asked.grace is not None and not 0 <= asked.grace < 1e9:
            raise BadRequest(f"`grace` is {asked.grace}; it is a number of seconds from 0")
        if len(asked.message) > _MAX_WORDS:
            raise TooLarge(f"the words have {len(asked.message)} characters, the limit is {_MAX_WORDS}; be brief")
        grace = 0.0 if asked.now else asked.grace
        self._reactor.feed(About(member.run, InterruptAsked(asked.message, grace)))
        answer(wire.ok())

    # ── the supervisor ──

    def _reload(self, _: wire.Reload, answer: Answer) -> None:
        reactor = self._reactor
        new = load_config(reactor.places.config, os.environ)
        old, reactor.config = reactor.config, new
        logging.getLogger().setLevel(new.supervisor.log_level.upper())
        reactor.feed(RoomChanged(new.supervisor.max_runs, new.supervisor.max_queue))
        unchanged = []
        if new.ndjson != old.ndjson:
            unchanged.append("ndjson")
        if new.supervisor.fsync != old.supervisor.fsync:
            unchanged.append("supervisor.fsync")
        answer(wire.ok(needs_restart=unchanged))

    def _prune(self, asked: wire.Prune, answer: Answer) -> None:
        """Delete ended runs, all or none of those that are named."""
        rows = [self._reactor.index.resolve(ref) for ref in asked.runs]
        for row in rows:
            if row["run"] in self._reactor.members:
                raise SparrowError(f"run {row['run'][:8]} is still alive; end it first: sparrow kill {row['run'][:8]}")
        for row in rows:
            shutil.rmtree(self._reactor.places.transcript(row["run"]), ignore_errors=True)
            self._reactor.index.delete(row["run"])
        answer(wire.ok(pruned=[row["run"] for row in rows]))

    def _shutdown(self, asked: wire.Shutdown, answer: Answer) -> None:
        answer(wire.ok(pid=os.getpid()))
        _log.info("told to shut down%s", ", leaving the runs alone" if asked.keep_runs else "")
        self._reactor.feed(ShutdownAsked(asked.now, asked.keep_runs))


def _terms(spec: RunSpec, asked: wire.Submit) -> Terms:
    return Terms(grace=spec.grace, timeout=spec.timeout, budget=spec.budget, priority=asked.priority)


def _write_private(path: Any, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
