"""Any order of writing, waking, reading, stalling, sealing and resuming: every client gets its events once, in order."""

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sparrow_supervisor.adapters import session as session_module
from sparrow_supervisor.adapters.ledger import Ledger
from sparrow_supervisor.adapters.library import BEGIN, Library
from sparrow_supervisor.adapters.session import Session
from tests.support.records import Record, stamp

LATER = datetime(2026, 12, 31, tzinfo=UTC)
pick = st.integers(0, 1000)


class Sorted(Library):
    """With the runs in the same order each time, so that what fails can be repeated."""

    def names(self) -> Iterator[str]:
        yield from sorted(super().names())


class Client:
    """A session, what it got, and what it is to get: for each run, from after which event on."""

    def __init__(self, session: Session, starts: dict[str, int], later: int | None = 0):
        self.session = session
        self.starts = starts
        # A resumed client did not name these runs, and they had said nothing lately: they go on from about now, or, where
        # they spoke before it was served, come whole.
        self.vague: dict[str, int] = {}
        self.later = later  # where runs begin that are not in ``starts``; None: they are not for it
        self.data = b""
        self.got: dict[str, list[int]] = {}

    def take(self, size: int | None) -> None:
        data = b"".join(self.session.outgoing())[:size]
        self.session.sent(len(data))
        self.data += data
        *lines, self.data = self.data.split(b"\n")
        for line in lines:
            event = json.loads(line)
            assert event["type"] != "Error", event
            seen = self.got.setdefault(event["run"], [])
            assert event["run"] in self.starts or self.later is not None
            before = seen[-1] if seen else self.starts.get(event["run"], self.later or 0)
            if not seen and event["run"] in self.vague:
                assert event["seq"] == 1 or before < event["seq"] <= self.vague[event["run"]] + 1
                before = self.starts[event["run"]] = event["seq"] - 1
            assert event["seq"] == before + 1
            seen.append(event["seq"])


class Adapters(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        # Small turns: so that a client is behind in several runs for long.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(session_module, "TURN", 700)
        self.patch.setattr(session_module, "_STEPS", 2)
        self.patch.setattr(session_module, "_BEHIND", 3)
        self.folder = Path(tempfile.mkdtemp())
        self.library = Sorted(self.folder)
        self.ledger = Ledger()
        self.records: list[Record] = []
        self.ended: set[str] = set()
        self.clients: list[Client] = []
        self.moment = 0.0

    def teardown(self):
        for record in self.records:
            self.wake(record)
        for client in self.clients:
            while client.session.pending or client.session.wants_turn:
                self.turn(client, None)
            for record in self.records:
                start = client.starts.get(record.run, client.later)
                if start is not None and (record.run in client.got or record.seq > client.vague.get(record.run, 0)):
                    assert client.got.get(record.run, []) == list(range(start + 1, record.seq + 1))
        self.patch.undo()
        shutil.rmtree(self.folder)

    def clock(self, _: int) -> str:
        self.moment += 1
        return stamp(self.moment)

    def wake(self, record: Record) -> None:
        if record.seq and record.run not in self.ledger.tails and record.run not in self.ended:
            self.ledger.appear(record.run, BEGIN, False, self.moment)
        tail = self.ledger.tails.get(record.run)
        found = self.library.end(record.run, tail.spot) if tail is not None else None
        if found is not None:
            self.ledger.grow(record.run, *found, self.moment)
            if found[1]:
                self.ended.add(record.run)

    def turn(self, client: Client, size: int | None) -> None:
        session = client.session
        if session.wants_turn and (session.choosing or not session.pending):
            session.fill()
        client.take(size)
        if not session.pending and not session.wants_turn:
            session.rest()

    def known(self) -> dict[str, int]:
        """How far the ledger knows each run; an ended run that it has forgotten is known to its end."""
        return {
            record.run: self.ledger.tails[record.run].spot.seq if record.run in self.ledger.tails else record.seq
            for record in self.records
            if record.run in self.ledger.tails or record.run in self.ended
        }

    @rule()
    def begin(self):
        run = str(uuid.UUID(int=len(self.records) + 1))
        self.records.append(Record(self.folder, run, clock=self.clock))

    @precondition(lambda self: self.records)
    @rule(which=pick, count=st.integers(1, 6), text=st.integers(0, 400), wake=st.booleans())
    def write(self, which, count, text, wake):
        record = self.records[which % len(self.records)]
        if record.run in self.ended or b"RunFinished" in (record.lines or [b""])[-1]:
            return
        record.add(count=count, text="x" * text)
        if wake:
            self.wake(record)

    @precondition(lambda self: self.records)
    @rule(which=pick)
    def write_the_end(self, which):
        record = self.records[which % len(self.records)]
        if b"RunFinished" not in (record.lines or [b""])[-1]:
            record.finish()

    @precondition(lambda self: self.records)
    @rule(which=pick)
    def seal(self, which):
        record = self.records[which % len(self.records)]
        # The supervisor seals only what it has published, and nothing of a run that has ended.
        self.wake(record)
        if record.file.exists() and record.file.stat().st_size and record.run not in self.ended:
            record.seal()

    @precondition(lambda self: self.records)
    @rule(which=pick)
    def hear(self, which):
        self.wake(self.records[which % len(self.records)])

    @rule(seconds=st.floats(0, 300))
    def forget(self, seconds):
        self.moment += seconds
        self.ledger.forget(self.moment)

    @rule()
    def connect(self):
        session = Session(self.library, self.ledger, lambda: LATER)
        self.clients.append(Client(session, self.known()))
        session.release()

    @precondition(lambda self: self.records)
    @rule(which=pick, since=st.integers(0, 12))
    def connect_to_one(self, which, since):
        record = self.records[which % len(self.records)]
        session = Session(self.library, self.ledger, lambda: LATER)
        session.receive(json.dumps({"run": record.run, "since": since}).encode() + b"\n")
        self.clients.append(Client(session, {record.run: since}, None))

    @precondition(lambda self: self.clients)
    @rule(which=pick, size=st.one_of(st.none(), st.integers(0, 700)))
    def serve(self, which, size):
        self.turn(self.clients[which % len(self.clients)], size)

    @precondition(lambda self: self.clients)
    @rule(which=pick)
    def stall(self, which):
        self.clients[which % len(self.clients)].session.spill()

    @precondition(lambda self: self.clients)
    @rule(which=pick)
    def resume(self, which):
        client = self.clients[which % len(self.clients)]
        named = {run: seqs[-1] for run, seqs in client.got.items()}
        client.session.close()
        if client.later is None or not named:
            self.clients.remove(client)
            return
        session = client.session = Session(self.library, self.ledger, lambda: LATER)
        session.receive(json.dumps({"since": named}).encode() + b"\n")
        client.data = b""
        known = self.known()
        oldest = min(self.library.time_of(run, seq) for run, seq in named.items())
        # A run that it has seen nothing of comes whole if it spoke since; else from now on.
        for record in self.records:
            if record.run not in named:
                client.starts.pop(record.run, None)
                client.vague.pop(record.run, None)
                if record.seq and record.run in known and json.loads(record.lines[-1])["ts"] < oldest:
                    client.starts[record.run] = known[record.run]
                    client.vague[record.run] = record.seq
        for _ in range(100):
            if not session.choosing:
                break
            session.fill()

    @invariant()
    def no_pin_is_left(self):
        walking = sum(client.session._scan is not None for client in self.clients)
        assert self.ledger.pins == walking


def run_machine(examples: int) -> None:
    """Let Hypothesis try that many orders."""
    run_state_machine_as_test(
        Adapters,
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


def test_every_client_gets_its_events_once_and_in_order() -> None:
    """For longer: tests/stress/test_sessions_for_long.py."""
    run_machine(25)
