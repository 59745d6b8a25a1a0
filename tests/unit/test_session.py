import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sparrow_supervisor.adapters import session as session_module
from sparrow_supervisor.adapters.ledger import Ledger
from sparrow_supervisor.adapters.library import BEGIN, Library
from sparrow_supervisor.adapters.session import Session
from tests.support.records import T0, Record, stamp


class House:
    """A library, a ledger and sessions, and what stands between them in the adapters."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.library = Library(folder)
        self.ledger = Ledger()
        self.got: dict[Session, bytearray] = {}

    def session(self, *, now: datetime = T0, ask: object = None) -> Session:
        session = Session(self.library, self.ledger, lambda: now)
        self.got[session] = bytearray()
        if ask is not None:
            session.receive(json.dumps(ask).encode() + b"\n")
        session.release()
        return session

    def record(self, *, known: bool = True) -> Record:
        record = Record(self.folder)
        if known:
            self.ledger.appear(record.run, BEGIN, False, 0.0)
        return record

    def grow(self, record: Record) -> None:
        """The wake-up came."""
        tail = self.ledger.tails[record.run]
        found = self.library.end(record.run, tail.spot)
        if found is not None:
            self.ledger.grow(record.run, *found, 0.0)

    def turn(self, session: Session, take: int | None = None) -> None:
        if session.wants_turn and (session.choosing or not session.pending):
            session.fill()
        data = b"".join(session.outgoing())
        if session.pending:
            data = data[:take]
            self.got[session] += data
            session.sent(len(data))

    def lines(self, session: Session) -> list[bytes]:
        """All that the session has to say now, and said before."""
        for _ in range(10_000):
            if not (session.pending or session.wants_turn):
                break
            self.turn(session)
        else:
            pytest.fail("the session never has enough")
        if not session.closing:
            session.rest()
        return bytes(self.got[session]).splitlines()

    def events(self, session: Session) -> list[dict]:
        return [json.loads(line) for line in self.lines(session)]

    def seqs(self, session: Session) -> list[int]:
        return [event["seq"] for event in self.events(session)]


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def test_a_client_that_says_nothing_gets_what_is_recorded_from_then_on(house):
    record = house.record()
    record.add(count=3)
    house.grow(record)
    session = house.session()
    assert house.lines(session) == []
    record.add(count=2)
    house.grow(record)
    assert house.lines(session) == record.lines[3:]


def test_a_run_that_begins_later_comes_whole(house):
    session = house.session()
    assert house.lines(session) == []
    record = house.record()
    record.add(count=3)
    house.grow(record)
    assert house.lines(session) == record.lines


def test_what_is_sent_are_the_bytes_that_were_recorded(house):
    session = house.session()
    record = house.record()
    record.write(
        b'{"type":"Newer", "run":"%s" ,"seq":1,"ts":"2026-01-01T00:00:00.000000Z","x":{"y":[1, 2]}}\n'
        % record.run.encode()
    )
    house.grow(record)
    assert house.lines(session) == record.file.read_bytes().splitlines()


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ReasoningDelta","run":"%s","seq":1,"ts":"t","text":"x"}',
        b'{"run":"%s","type":"ReasoningDelta","seq":1,"ts":"t","text":"x"}',
        b'{"type":"\\u0052easoningDelta","run":"%s","seq":1,"ts":"t","text":"x"}',
        b'{"\\u0074ype":"ReasoningDelta","run":"%s","seq":1,"ts":"t","text":"x"}',
        b'{"type":"Message","run":"%s","seq":1,"ts":"t","text":"x","type":"ReasoningDelta"}',
        b'{ "type" : "ReasoningDelta", "run":"%s","seq":1,"ts":"t","text":"x"}',
    ],
)
@pytest.mark.parametrize("ask", [{}, {"types": ["ReasoningDelta", "Message"]}])
def test_what_is_not_public_stays_in_however_it_is_written(house, line, ask):
    session = house.session(ask=ask)
    house.lines(session)
    record = house.record()
    record.write(line % record.run.encode() + b"\n")
    record.seq = 1
    record.add(text="this speaks of a ReasoningDelta")
    house.grow(record)
    assert house.seqs(session) == [2]


def test_one_run_from_a_seq_and_then_live(house):
    record, other = house.record(), house.record()
    record.add(count=10)
    other.add(count=10)
    house.grow(record)
    house.grow(other)
    session = house.session(ask={"run": record.run[:8], "since": 4})
    assert house.seqs(session) == [5, 6, 7, 8, 9, 10]
    record.add(count=2)
    other.add(count=2)
    house.grow(record)
    house.grow(other)
    assert house.lines(session) == record.lines[4:]


def test_a_seq_that_has_not_come_yet_is_waited_for(house):
    record = house.record()
    record.add(count=3)
    house.grow(record)
    for ask in ({"run": record.run, "since": 5}, {"since": {record.run: 5}}):
        session = house.session(ask=ask)
        assert house.lines(session) == []
        later = house.session(ask=ask)
        house.lines(later)
    sessions = list(house.got)
    for _ in range(4):
        record.add()
        house.grow(record)
        for session in sessions:
            house.lines(session)
    for session in sessions:
        assert house.seqs(session) == [6, 7]


def test_a_run_without_since_goes_on_from_the_connection(house):
    record, other = house.record(), house.record()
    record.add(count=3)
    house.grow(record)
    session = house.session()
    house.lines(session)
    record.add(count=2)
    other.add(count=2)
    house.grow(record)
    house.grow(other)
    session.receive(b'{"run":"%s"}\n' % record.run.encode())
    assert house.seqs(session) == [4, 5]
    record.add()
    house.grow(record)
    assert house.seqs(session) == [4, 5, 6]


def test_an_ended_run_is_sent_and_the_connection_stays_open_for_another_question(house):
    record = house.record(known=False)
    record.add(count=2)
    record.finish()
    session = house.session(ask={"run": record.run, "since": 0})
    assert house.lines(session) == record.lines
    assert not session.closing
    session.receive(b'{"run":"%s","since":2}\n' % record.run.encode())
    assert house.lines(session) == [*record.lines, record.lines[2]]


@pytest.mark.parametrize("known", [True, False])
def test_a_client_that_can_ask_no_more_is_done_at_the_end_of_its_run(house, known):
    record = house.record(known=known)
    record.add(count=2)
    if known:
        house.grow(record)
    session = house.session(ask={"run": record.run, "since": 0})
    session.end_of_input()
    assert house.lines(session) == record.lines
    assert not session.closing
    record.finish()
    if known:
        house.grow(record)
    else:
        house.ledger.appear(record.run, BEGIN, False, 0.0)
        house.grow(record)
    assert house.lines(session) == record.lines
    assert session.closing


def test_types(house):
    record = house.record()
    session = house.session(ask={"types": ["Progress", "RunFinished", "No such type"]})
    record.add(count=2)
    record.add("Progress", done=1)
    record.add("Output", stream="stdout", text="a \u001b[1mred\u001b[0m word")
    record.finish()
    house.grow(record)
    assert house.lines(session) == [record.lines[2], record.lines[4]]


def test_types_chosen_later_lose_nothing(house):
    record = house.record()
    session = house.session()
    house.lines(session)
    record.add("Progress", count=3, done=1)
    house.grow(record)
    session.receive(b'{"types":["Progress"]}\n')
    record.add("Message")
    record.add("Progress", done=1)
    house.grow(record)
    assert house.seqs(session) == [1, 2, 3, 5]


def test_since_a_time_takes_every_run_and_goes_on_live(house):
    old, ended, live, late = (house.record(known=known) for known in (False, False, True, False))
    old.add(count=3)
    ended.add(count=8)
    live.add(count=6)
    house.grow(live)
    session = house.session(now=T0.replace(hour=20), ask={"since": stamp(5)})
    first = house.events(session)
    assert {(event["run"], event["seq"]) for event in first} == {
        *((ended.run, seq) for seq in (5, 6, 7, 8)),
        *((live.run, seq) for seq in (5, 6)),
    }
    assert len(first) == 6
    live.add()
    late.add()
    house.ledger.appear(late.run, BEGIN, False, 0.0)
    house.grow(live)
    house.grow(late)
    assert [(event["run"], event["seq"]) for event in house.events(session)[6:]] == [(late.run, 1), (live.run, 7)] or [
        (event["run"], event["seq"]) for event in house.events(session)[6:]
    ] == [(live.run, 7), (late.run, 1)]
    assert house.ledger.pins == 0


def test_since_a_time_in_another_zone_and_of_one_run(house):
    record = house.record(known=False)
    record.add(count=9)
    session = house.session(now=T0.replace(hour=20), ask={"run": record.run, "since": "2026-11-22T14:00:07+02:00"})
    assert house.seqs(session) == [7, 8, 9]


def test_a_time_to_come_is_waited_for(house):
    record = house.record()
    record.add(count=3)
    house.grow(record)
    sessions = [house.session(ask={"since": stamp(6)}), house.session(ask={"run": record.run, "since": stamp(6)})]
    for _ in range(5):
        record.add()
        house.grow(record)
        for session in sessions:
            house.lines(session)
    fresh = house.record()
    fresh.add(count=7)
    house.grow(fresh)
    assert house.seqs(sessions[0]) == [6, 7, 8, 6, 7]
    assert house.seqs(sessions[1]) == [6, 7, 8]


def test_a_map_resumes_where_it_says_and_brings_what_began_since(house):
    seen, ended, ancient, began = (house.record(known=known) for known in (True, False, False, False))
    seen.add(count=20)
    house.grow(seen)
    ended.add(count=12)
    ancient.add(count=3)
    began.add(ts=stamp(14), count=2)
    session = house.session(now=T0.replace(hour=20), ask={"since": {seen.run: 15, ended.run: 10}})
    got = {(event["run"], event["seq"]) for event in house.events(session)}
    assert got == {
        *((seen.run, seq) for seq in range(16, 21)),
        *((ended.run, seq) for seq in (11, 12)),
        *((began.run, seq) for seq in (1, 2)),
    }
    assert len(house.lines(session)) == len(got)
    seen.add()
    house.grow(seen)
    assert house.lines(session)[-1] == seen.lines[-1]


def test_an_empty_map_is_from_now_on(house):
    record = house.record()
    record.add(count=3)
    house.grow(record)
    session = house.session(now=T0.replace(hour=20), ask={"since": {}})
    assert house.lines(session) == []
    record.add(ts=stamp(30_000))
    house.grow(record)
    assert house.seqs(session) == [4]


def test_what_was_pruned_is_told_with_the_first_that_there_is(house):
    record = house.record()
    record.add(count=5)
    record.seal()
    record.add(count=5)
    record.seal()
    record.add(count=2)
    house.grow(record)
    (record.folder / "events.1.jsonl").unlink()
    for ask in ({"run": record.run, "since": 2}, {"since": {record.run: 2}}, {"since": stamp(3)}, {"since": stamp(6)}):
        session = house.session(now=T0.replace(hour=20), ask=ask)
        error, *rest = house.events(session)
        assert error["type"] == "Error"
        assert error["message"].startswith("gone: ")
        assert " 6 " in error["message"]
        assert [event["seq"] for event in rest] == [6, 7, 8, 9, 10, 11, 12]
    session = house.session(ask={"run": record.run, "since": 5})
    assert house.seqs(session) == [6, 7, 8, 9, 10, 11, 12]
    session = house.session(now=T0.replace(hour=20), ask={"since": stamp(9)})
    assert house.seqs(session) == [9, 10, 11, 12]


def test_a_record_that_was_removed_is_told(house):
    gone = "0b3a4d1c-0000-4000-8000-000000000000"
    session = house.session(now=T0, ask={"since": {gone: 3}})
    (error,) = house.events(session)
    assert error["message"].startswith(f"gone: there is no record of run {gone}")


def test_a_record_that_is_sealed_while_it_is_read(house):
    record = house.record()
    session = house.session()
    house.lines(session)
    for _ in range(5):
        record.add(count=7)
        house.grow(record)
        house.turn(session, take=30)
        record.add(count=2)
        record.seal()
        record.add()
        house.grow(record)
        house.turn(session, take=30)
        record.seal()
    record.finish()
    house.grow(record)
    assert house.lines(session) == record.lines
    assert house.lines(house.session(ask={"run": record.run, "since": 0})) == record.lines
    for since in range(record.seq + 1):
        assert house.lines(house.session(ask={"run": record.run, "since": since})) == record.lines[since:]


def test_a_torn_last_line_is_not_there_yet(house):
    record = house.record()
    session = house.session()
    replay = house.session(ask={"run": record.run, "since": 0})
    record.add(count=2)
    half = record.line()
    record.write(half[:20])
    house.grow(record)
    assert house.lines(session) == record.lines[:2]
    assert house.lines(replay) == record.lines[:2]
    record.write(half[20:] + b"\n")
    house.grow(record)
    assert house.lines(session) == record.lines
    assert house.lines(replay) == record.lines


def test_a_record_that_was_cut_back_and_written_again(house):
    record = house.record()
    session = house.session()
    record.add(count=4)
    house.grow(record)
    size = record.file.stat().st_size
    record.add(count=2)
    house.grow(record)
    whole = record.file.read_bytes()
    house.turn(session, take=10)
    with record.file.open("r+b") as file:
        file.truncate(size)
    house.turn(session)
    for _ in range(3):
        house.turn(session)
    record.file.write_bytes(whole)
    record.add()
    house.grow(record)
    assert house.lines(session) == record.lines


def test_damage_at_the_end_ends_the_record(house):
    record = house.record(known=False)
    record.add(count=3)
    record.write(b"\0" * 100 + b"\n" + b"\0" * 50)
    session = house.session(ask={"run": record.run, "since": 1})
    assert house.lines(session) == record.lines[1:]


@pytest.mark.parametrize("size", [1, 400, 256 << 10])
@pytest.mark.parametrize(
    ("order", "sent"),
    [
        ("123 23 45", "12345"),
        ("1234 1234 1234 5", "12345"),
        ("12 45", "12!45"),
        ("12 4 34", "12!4"),
        ("1 ?? 23", "123"),
        ("12 ? 45", "12!45"),
        ("123 ?", "123"),
        ("? 123", "123"),
    ],
)
def test_only_what_follows_is_sent_of_a_damaged_record(house, monkeypatch, order, sent, size):
    """Digits are events, ? is a line that is no event, and ! stands for the word that something is gone."""
    monkeypatch.setattr(session_module, "TURN", size)
    record = house.record(known=False)
    for char in order.replace(" ", ""):
        if char == "?":
            record.write(b"\0" * 20 + b"\n")
        else:
            record.seq = int(char) - 1
            record.add()
    for ask in ({"run": record.run, "since": 0}, {"since": {record.run: 0}}):
        events = house.events(house.session(ask=ask))
        assert "".join(str(event.get("seq", "!")) for event in events) == sent


@pytest.mark.parametrize("known", [True, False])
def test_a_record_that_cannot_be_read_keeps_nobody_from_the_others(house, known, caplog):
    record, other = house.record(known=known), house.record()
    live = house.session()
    for each in (record, other):
        each.add(count=3)
        if each.run in house.ledger.tails:
            house.grow(each)
    kept = record.file.with_suffix(".kept")
    record.file.rename(kept)
    record.file.symlink_to("nowhere")
    sessions = [live, *(house.session(ask={"since": since}) for since in (stamp(0), {record.run: 1, other.run: 1}))]
    for session in sessions:
        assert set(house.lines(session)) <= set(other.lines)
    other.add()
    house.grow(other)
    for session in sessions:
        session.look_again()
        assert house.lines(session)[-1] == other.lines[-1]
    kept.replace(record.file)
    if known:
        record.add()
        house.grow(record)
    for session, begin in zip(sessions, (0, 0, 1), strict=True):
        session.look_again()
        lines = house.lines(session)
        assert [line for line in lines if line in other.lines] == other.lines[begin:]
        assert [line for line in lines if line not in other.lines] == (
            record.lines[begin:] if known or session is not live else []
        )
    assert len([message for message in caplog.messages if record.run in message]) == 1


def test_a_record_of_sparrow_cli_is_numbered(house):
    record = house.record(known=False)
    record.write(
        b"".join(
            b'{"type":"Message","run":"%s","role":"user","text":"%d"}\n' % (record.run.encode(), n) for n in range(5)
        )
    )
    session = house.session(ask={"run": record.run, "since": 2})
    assert house.seqs(session) == [3, 4, 5]
    assert [event["text"] for event in house.events(session)] == ["2", "3", "4"]


def test_an_event_longer_than_a_turn(house):
    record = house.record()
    session = house.session()
    record.add(text="x" * (3 * session_module.TURN))
    record.add(count=2)
    house.grow(record)
    assert house.lines(session) == record.lines
    assert house.lines(house.session(ask={"run": record.run, "since": 0})) == record.lines


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (b"hello", "not a subscription"),
        (b"", "not a subscription"),
        (b"[]", "not a subscription"),
        (b"\xff\xfe", "not a subscription"),
        (b'{"run":', "not a subscription"),
        (b'{"since":5}', "not a subscription"),
        (b'{"since":"yesterday"}', "not a subscription"),
        (b'{"since":{"../x":5}}', "not a subscription"),
        (b'{"run":"1b0c","sinc":0}', "not a subscription"),
        (b'{"run":"1b0c"}', "No active run with id 1b0c"),
        (b'{"run":""}', "No active run"),
        (b'{"run":"../../etc"}', "No active run"),
        (b'{"run":"\\u0000"}', "No active run"),
        (b'{"run":"\\ud800"}', ""),
        (b'{"types":"Message"}', "not a subscription"),
        (b'{"run":"' + b"x" * (session_module.LONGEST_LINE + 1) + b'"}', "longer than"),
        (b"[" * 100_000, "not a subscription"),
    ],
)
def test_a_line_that_is_no_request_gets_an_error_and_the_end(house, ask, words):
    session = house.session()
    session.receive(ask + b"\n")
    (error,) = house.events(session)
    assert error["type"] == "Error"
    assert set(error) == {"type", "message"}
    assert words in error["message"]
    assert session.closing
    assert house.ledger.pins == 0


def test_an_ambiguous_prefix(house):
    Record(house.folder, "aa000000-0000-4000-8000-000000000000")
    Record(house.folder, "aa100000-0000-4000-8000-000000000000")
    (error,) = house.events(house.session(ask={"run": "aa"}))
    assert "several runs" in error["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + b'{"since":0}\n',
        b"G",
        b"OPT",
        b"GET\r\n",
        b"brew /pot HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
@pytest.mark.parametrize("held", [True, False])
def test_a_browser_is_closed_without_a_word(house, data, held):
    session = Session(house.library, house.ledger, lambda: datetime.now(UTC))
    if not held:
        session.release()
    session.receive(data)
    assert session.refused
    assert not session.pending


def test_nothing_is_sent_while_a_client_is_held_and_nothing_is_lost_by_it(house):
    record = house.record()
    session = Session(house.library, house.ledger, lambda: T0)
    house.got[session] = bytearray()
    assert session.held
    record.add(count=3)
    house.grow(record)
    session.release()
    assert house.lines(session) == record.lines


def test_a_stream_is_replaced_at_the_end_of_a_line(house):
    record, other = house.record(), house.record()
    session = house.session()
    record.add(count=50)
    other.add(count=3)
    house.grow(record)
    house.grow(other)
    house.turn(session, take=150)
    session.spill()
    session.receive(b'{"run":"%s","since":0}\n' % other.run.encode())
    assert house.lines(session) == record.lines[:2] + other.lines


def test_two_requests_at_once_are_taken_one_after_the_other(house):
    record, other = house.record(), house.record()
    record.add(count=2)
    other.add(count=2)
    session = house.session()
    session.receive(b'{"run":"%s","since":0}\n{"run":"%s","since":1}\n' % (record.run.encode(), other.run.encode()))
    for each in (record, other):
        house.grow(each)
    assert house.lines(session)[-1:] == other.lines[1:]


def test_thousands_of_requests_in_one_packet(house):
    session = house.session()
    session.receive(b"{}\n" * 5_000)
    assert house.lines(session) == []


def test_the_last_line_counts_without_its_line_break(house):
    record = house.record()
    record.add(count=3)
    house.grow(record)
    session = house.session()
    session.receive(b'{"run":"%s","since":0}' % record.run.encode())
    session.end_of_input()
    assert house.lines(session) == record.lines


def test_a_client_that_takes_nothing_keeps_no_bytes(house):
    record = house.record()
    session = house.session()
    record.add(count=5000)
    house.grow(record)
    house.turn(session, take=1000)
    session.spill()
    assert all(piece.data is None for piece in session._pending)
    for _ in range(50):
        record.add(count=100)
        house.grow(record)
    assert len(session.behind) == 1
    assert house.lines(session) == record.lines


def test_an_event_costs_nothing_for_those_who_lag(house):
    records = [house.record() for _ in range(20)]
    sessions = [house.session() for _ in range(20)]
    for record in records:
        record.add()
        house.grow(record)
    looked = 0

    class Counting(dict):
        def setdefault(self, *words):
            nonlocal looked
            looked += 1
            return super().setdefault(*words)

    for session in sessions:
        session.behind = Counting(session.behind)
    for _ in range(10):
        for record in records:
            record.add()
            house.grow(record)
    assert looked == 0
    for _ in range(100):
        new = house.record()
        new.add()
        house.grow(new)
    assert looked == 0
    assert all(len(session.behind) == 20 for session in sessions)
    for session in sessions:
        assert len(house.lines(session)) == 20 * 11 + 100


def test_those_who_have_caught_up_share_one_read(house, monkeypatch):
    record = house.record()
    sessions = [house.session() for _ in range(50)]
    reads = 0
    read = house.library._read

    def counted(*words):
        nonlocal reads
        reads += 1
        return read(*words)

    monkeypatch.setattr(house.library, "_read", counted)
    record.add(count=10)
    house.grow(record)
    for session in sessions:
        assert house.lines(session) == record.lines
    assert reads == 1


def test_ended_runs_are_forgotten_when_everybody_has_met_them(house):
    session = house.session()
    record = house.record()
    record.finish()
    house.grow(record)
    house.ledger.forget(1000.0)
    assert record.run in house.ledger.tails
    house.lines(session)
    house.ledger.forget(1000.0)
    assert record.run not in house.ledger.tails
    assert house.lines(session) == record.lines
