"""What each control request means: one method an op."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sparrow_mp import __version__, transcript, wire
from sparrow_mp.errors import BadRequest, NotRunning, RateLimited, SparrowError, StateError, TooLarge, error_from_code
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.regular import remove_tree
from sparrow_mp.run.stamp import timestamp
from sparrow_mp.wire import RunRecord, RunSpec
from sparrow_supervisor import submit
from sparrow_supervisor.control import Answer
from sparrow_supervisor.core.bucket import Buckets
from sparrow_supervisor.core.effects import Refused
from sparrow_supervisor.core.inputs import About, InterruptAsked, ShutdownAsked, Submitted, Terms
from sparrow_supervisor.index import record_of
from sparrow_supervisor.member import Member
from sparrow_supervisor.usage import Use

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger(__name__)

_EVENTS_BYTES = 1 << 20
_ERASE_AGAIN_S = 1.0
_MAX_WORDS = 10_000
_MAX_TEXT_BYTES = 512 << 10


class Desk:
    """Answers requests, with what the reactor has in hand."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._buckets = Buckets()
        self._ops: dict[type, Callable[[Any, Answer], None]] = {
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

    def serve(self, ops: Mapping[type, Callable[[Any, Answer], None]]) -> None:
        """Answer further requests so."""
        self._ops.update(ops)

    def decide(self, asked: wire.AnyRequest, answer: Answer, client: Callable[[], str]) -> None:
        """Answer a request, now or later; ``client`` says whose it is. Raises SparrowError, which is an answer as well."""
        if type(asked) is wire.Submit:
            answer(wire.ok(run=self._submit(asked, client())))
        else:
            self._ops[type(asked)](asked, answer)

    # ── submitting ──

    def submit_job(self, asked: wire.Submit, job: str) -> str:
        """Have a run of a job that fires; its id. Raises SparrowError: then there is none."""
        return self._submit(asked, f"job {job}", job)

    def _submit(self, asked: wire.Submit, client: str, job: str | None = None) -> str:
        reactor = self._reactor
        if asked.id is not None:
            if reactor.index.row(asked.id) is not None:
                return asked.id  # it was asked before, and the answer did not arrive
            self._clear_attempt(asked.id)
        if job is None:
            self._take_token(client)
        spec = submit.specify(asked, reactor.config, reactor.places, os.environ, reactor.usual)
        terms = _terms(spec, asked, client)
        try:
            self._write_down(spec, asked, terms, job)
        except (OSError, sqlite3.Error) as error:
            self._erase(spec.run)
            raise StateError(f"the run cannot be recorded ({error}); is the disk full?") from None
        for effect in reactor.feed(Submitted(spec.run, terms)):
            if isinstance(effect, Refused):
                self._erase(spec.run)
                raise error_from_code(effect.code, effect.message)
        return spec.run

    def _take_token(self, client: str) -> None:
        """Raises RateLimited for a client that submits faster than it may."""
        allowed = self._reactor.config.supervisor
        seconds = self._buckets.take(client, time.monotonic(), allowed.submit_rate, allowed.submit_burst)
        if seconds:
            error = RateLimited(
                f"this client has submitted {allowed.submit_burst} runs at once, and may submit {allowed.submit_rate:g} a second;"
                f" try again in {seconds:.2g} s"
            )
            error.retry_after = seconds
            raise error

    def _clear_attempt(self, run: str) -> None:
        """Remove what a supervisor left that died while it wrote this submission down. Raises BadRequest for another run."""
        record = self._reactor.places.transcript(run)
        if transcript.last_event(record):
            raise BadRequest(f"there is a run {run} already; leave `id` out, or give a new UUID")
        remove_tree(record)
        remove_tree(self._reactor.places.run_folder(run))

    def _write_down(self, spec: RunSpec, asked: wire.Submit, terms: Terms, job: str | None) -> None:
        """Everything that is needed to start the run, so that an accepted run is one whatever crashes next."""
        reactor = self._reactor
        now = time.time()
        created = timestamp(int(now * 1e6))
        member = Member(spec.run, reactor.places.run_folder(spec.run), spec.endpoint, spec.engine)
        member.folder.mkdir(mode=0o700)
        _write_private(member.folder / "spec.json", wire.encode(spec))
        if ARMED:
            reach("submit.specified")
        record = reactor.places.transcript(spec.run)
        record.mkdir(mode=0o700)
        inputs = submit.inputs_of(spec, asked, reactor.config.snapshot(spec.engine), created, job)
        _write_private(record / transcript.INPUTS, wire.encode(inputs))
        reactor.recorder.open(spec.run)
        reactor.recorder.settle(
            record / transcript.INPUTS, member.folder / "spec.json", member.folder, member.folder.parent
        )
        if ARMED:
            reach("submit.recorded")
        reactor.index.insert(
            run=spec.run,
            name=spec.name,
            status="queued",
            engine=spec.engine,
            agent=spec.agent,
            task=spec.task,
            cwd=spec.cwd,
            labels=wire.encode(asked.labels).decode(),
            terms=wire.encode(terms).decode(),
            created=created,
            created_at=now,
            job=job,
        )
        if ARMED:
            reach("submit.indexed")
        reactor.members[spec.run] = member
        _log.info("run %s: accepted, engine %s, task %.80r", spec.run, spec.engine, spec.task)

    def _erase(self, run: str) -> None:
        """It never was a run."""
        reactor = self._reactor
        reactor.members.pop(run, None)
        reactor.recorder.close(run)
        try:
            reactor.index.save(run, ended="")
            reactor.index.delete(run)
        except sqlite3.Error as error:
            _log.error("run %s was refused, and cannot be taken out of the index yet: %s", run, error)
            reactor.loop.later(_ERASE_AGAIN_S, partial(self._erase, run))
        remove_tree(reactor.places.run_folder(run))
        remove_tree(reactor.places.transcript(run))

    # ── looking ──

    def _list(self, asked: wire.List, answer: Answer) -> None:
        """Built in steps: there may be a hundred thousand, and nobody else is to wait for it."""
        reactor = self._reactor
        pages = reactor.index.pages(
            everything=asked.all, status=asked.status, label=asked.label, limit=asked.limit, before=asked.before
        )
        positions = reactor.house.positions()
        encoded: list[bytes] = []

        def step(uses: Mapping[str, Use]) -> None:
            try:
                page = next(pages, None)
            except sqlite3.Error as error:
                answer(wire.refused("internal", f"the index cannot be read: {error}"))
                return
            if page is None:
                answer(b'{"ok":true,"runs":[%b]}' % b",".join(reversed(encoded)))
                return
            for row in page:
                record = self._record(row, positions)
                if (use := uses.get(record.run)) is not None:
                    record.cpu_percent, record.memory_bytes = use
                encoded.append(wire.encode(record))
            reactor.loop.again(partial(step, uses))

        if reactor.members and asked.status in (None, *wire.LIVE_STATUSES):
            reactor.usage.ask(step)
        else:
            step({})

    def _get(self, asked: wire.Get, answer: Answer) -> None:
        row = self._reactor.index.resolve(asked.run)
        position = self._reactor.house.position(row["run"]) if row["status"] == "queued" else None
        record = self._record(row, {} if position is None else {row["run"]: position})

        def fill(uses: Mapping[str, Use]) -> None:
            if (use := uses.get(record.run)) is not None:
                record.cpu_percent, record.memory_bytes = use
            answer(wire.ok(run=record))

        if record.run in self._reactor.members:
            self._reactor.usage.ask(fill)
        else:
            fill({})

    def look_up(self, run: str) -> RunRecord | None:
        """A run's record by its whole id, for the supervisor itself."""
        row = self._reactor.index.row(run)
        return self._record(row, {}) if row is not None else None

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
                zygote_pid=reactor.zygotes.young.pid,
                warm_zygotes=[{"pid": warm.pid, "modules": warm.preloaded} for warm in reactor.zygotes.warm],
                adapters_pid=reactor.adapters.pid,
                problems=reactor.problems(),
                most_runs=reactor.most_runs,
                waiting=sum(bool(member.totals.waiting) for member in reactor.members.values()),
                clients=reactor.adapters.clients,
                to_tell=reactor.notices.waiting,
                late_s=round(reactor.pulse.late_s, 6),
                total=self._total(),
                config=str(reactor.places.config),
                needs_restart=reactor.settings.needs_restart,
            )
        )

    def _total(self) -> dict[str, Any]:
        """What all runs add up to, of all supervisors, those included whose records were deleted; bytes since the start."""
        reactor = self._reactor
        past = reactor.index.past()
        live = [member.totals for member in reactor.members.values()]
        return {
            "ended": {status: sums.runs for status, sums in past.items()},
            "events": sum(sums.events for sums in past.values()) + sum(map(reactor.recorder.seq, reactor.members)),
            "cost_usd": sum(sums.cost_usd for sums in past.values()) + sum(totals.cost_usd for totals in live),
            "tokens": {
                "input": sum(sums.input for sums in past.values()) + sum(totals.tokens.input for totals in live),
                "output": sum(sums.output for sums in past.values()) + sum(totals.tokens.output for totals in live),
            },
            "bytes_since_start": reactor.recorder.bytes,
        }

    # ── steering ──

    def _live(self, ref: str) -> Member:
        """The run, which has not ended. Raises NoSuchRun, AmbiguousRun, NotRunning."""
        row = self._reactor.index.resolve(ref)
        member = self._reactor.members.get(row["run"])
        life = self._reactor.house.lives.get(row["run"])
        if row["run"] in self._reactor.left_alone:
            raise NotRunning(self._reactor.why_left_alone(row["run"]))
        if member is None or life is None or life.phase == "draining":
            raise NotRunning(f"run {row['run'][:8]} has ended ({row['status']})")
        return member

    def _steerable(self, ref: str) -> Member:
        """The same, where it takes messages. Raises NotRunning for a run of another protocol as well."""
        member = self._live(ref)
        if member.protocol != wire.PROTOCOL:
            raise NotRunning(wire.foreign(member.run, member.protocol))
        return member

    def _inject(self, asked: wire.Inject, answer: Answer) -> None:
        member = self._steerable(asked.run)
        if asked.text is None and asked.data is None and not asked.eof:
            raise BadRequest("nothing to inject; give a text")
        text = (asked.text or "") + (asked.data or b"").decode("utf-8", "replace")
        size = len(wire.encode(text))  # as it is in an event, where a control character takes six bytes
        if size > _MAX_TEXT_BYTES:
            raise TooLarge(
                f"the message has {size} bytes, the limit is {_MAX_TEXT_BYTES}; put it into a file and name that"
            )
        request = asked.id or self._reactor.delivery.new_id()
        early = member.link is None
        body = wire.InjectFrame(
            id=request, text=asked.text, data=asked.data, eof=asked.eof, now=asked.now, answered=early
        )
        self._reactor.delivery.post(member, request, wire.frame(wire.INJECT, body), answer)

    def _approve(self, asked: wire.Approve, answer: Answer) -> None:
        member = self._steerable(asked.run)
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
        settings = self._reactor.settings
        names = settings.reload("told to reload")
        answer(wire.ok(changed=names, needs_restart=settings.needs_restart))

    def _prune(self, asked: wire.Prune, answer: Answer) -> None:
        """Delete ended runs, all or none of those that are named."""
        rows = [self._reactor.index.resolve(ref) for ref in asked.runs]
        for row in rows:
            if row["run"] in self._reactor.members:
                raise SparrowError(f"run {row['run'][:8]} is still alive; end it first: sparrow kill {row['run'][:8]}")
        for row in rows:
            remove_tree(self._reactor.places.transcript(row["run"]))
            self._reactor.index.delete(row["run"])
        answer(wire.ok(pruned=[row["run"] for row in rows]))

    def _shutdown(self, asked: wire.Shutdown, answer: Answer) -> None:
        answer(wire.ok(pid=os.getpid()))
        _log.info("told to shut down%s", ", leaving the runs alone" if asked.keep_runs else "")
        self._reactor.feed(ShutdownAsked(asked.now, asked.keep_runs))


def _terms(spec: RunSpec, asked: wire.Submit, client: str) -> Terms:
    return Terms(grace=spec.grace, timeout=spec.timeout, budget=spec.budget, priority=asked.priority, client=client)


def _write_private(path: Any, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
