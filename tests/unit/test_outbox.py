"""The outbox: what an append has returned for is there, once and whole, whoever is killed when."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from sparrow_mp.events import (
    MAX_EVENT_BYTES,
    AnyEvent,
    Custom,
    Event,
    Message,
    Output,
    RunStarted,
    Unknown,
    decode,
    encode_lines,
)
from sparrow_mp.run import outbox as module
from sparrow_mp.run.layout import KEPT, PAGE
from sparrow_mp.run.outbox import Outbox
from sparrow_mp.run.stamp import timestamp

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"
CAPACITY = 2 << 20

Opener = Callable[..., Outbox]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Outbox]:
    """An outbox of the usual kind, empty."""
    Outbox.create(tmp_path / "outbox", CAPACITY)
    outbox = Outbox(tmp_path / "outbox", RUN)
    yield outbox
    outbox.close()


@pytest.fixture
def again(tmp_path: Path) -> Iterator[Opener]:
    """Opens the same outbox once more, as another process would."""
    opened: list[Outbox] = []

    def open_it(opening: RunStarted | None = None, wake_fd: int = -1) -> Outbox:
        opened.append(Outbox(tmp_path / "outbox", RUN, opening, wake_fd))
        return opened[-1]

    yield open_it
    for outbox in opened:
        outbox.close()


@pytest.mark.parametrize("left", [b"", b"\0" * 300, b"no line break", b"x" * 5000])
def test_a_ring_without_the_lines_that_it_should_have_is_empty(tmp_path: Path, again: Opener, left: bytes) -> None:
    """What a power cut, or a run, may leave: the end is written down and the lines are not there."""
    Outbox.create(tmp_path / "outbox", CAPACITY)
    with (tmp_path / "outbox").open("r+b") as file:
        file.seek(16)
        file.write((5).to_bytes(8, "little") + (300).to_bytes(8, "little"))
        file.seek(PAGE)
        file.write(left)
    assert again().unrecorded(0) == []


def test_a_state_that_is_in_no_slot_is_refused(tmp_path: Path) -> None:
    Outbox.create(tmp_path / "outbox", CAPACITY)
    with (tmp_path / "outbox").open("r+b") as file:
        file.seek(8)
        file.write(b"\x07")
    with pytest.raises(ValueError, match="no outbox"):
        Outbox(tmp_path / "outbox", RUN)


def message(text: str = "hi") -> Message:
    return Message(role="assistant", text=text)


def messages(count: int, text: str = "hi") -> list[AnyEvent]:
    return [message(text) for _ in range(count)]


def content(outbox: Outbox) -> bytes:
    """All that is committed and not acknowledged."""
    offset, data = outbox.acked, b""
    while offset + len(data) < outbox.state.end:
        data += outbox.read(offset + len(data))
    return data


def numbers(lines: Sequence[bytes]) -> list[int]:
    return [decode(line).seq for line in lines]


def lines_of(outbox: Outbox) -> list[bytes]:
    data = content(outbox)
    assert not data or data.endswith(b"\n")
    return data.split(b"\n")[:-1]


# ── appending and reading ──


def test_it_fills_in_what_every_event_bears(box: Outbox) -> None:
    before = timestamp(time.time_ns() // 1000)
    assert box.append([message("one"), message("two")]) == 2
    assert box.append([message("three")]) == 1
    after = timestamp(time.time_ns() // 1000)
    events = [decode(line) for line in lines_of(box)]
    assert [event.seq for event in events] == [1, 2, 3]
    assert {event.run for event in events} == {RUN}
    stamps = [event.ts for event in events]
    assert [before, *stamps, after] == sorted([before, *stamps, after])
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", stamp) for stamp in stamps)
    assert [event.text for event in events if isinstance(event, Message)] == ["one", "two", "three"]


def test_the_head_leads_every_kind_of_event(box: Outbox) -> None:
    came_from_elsewhere = decode('{"type":"Message","colour":"red","role":"user","text":"hi"}')
    unknown = Unknown(type="FromTheFuture", fields={"what": 1, "seq": 99, "run": "someone else's"})

    class Mine(Event, kw_only=True):
        word: str

    assert box.append([came_from_elsewhere, unknown, Mine(word="w"), message()]) == 4
    written = [json.loads(line) for line in lines_of(box)]
    for seq, fields in enumerate(written, 1):
        assert list(fields)[:4] == ["type", "run", "seq", "ts"]
        assert (fields["run"], fields["seq"]) == (RUN, seq)
    assert [fields["type"] for fields in written] == ["Message", "FromTheFuture", "Mine", "Message"]
    assert written[0]["colour"] == "red"
    assert written[1]["what"] == 1


def test_the_same_event_twice_has_two_numbers(box: Outbox) -> None:
    one = message()
    assert box.append([one, one, one]) == 3
    assert numbers(lines_of(box)) == [1, 2, 3]


@pytest.mark.parametrize("raw", [b'{\n"a":\n1}', b'{"a":\r1}', b"[\r\n]"], ids=repr)
def test_json_that_an_engine_encoded_itself_becomes_one_line(box: Outbox, raw: bytes) -> None:
    plain = message()
    for events in ([Custom(name="n", data=msgspec.Raw(raw))], [plain, Custom(name="n", data=msgspec.Raw(raw)), plain]):
        assert box.append(events) == len(events)
    lines = content(box).splitlines()
    assert numbers(lines) == [1, 2, 3, 4]
    assert json.loads(lines[0])["data"] == json.loads(raw)


@pytest.mark.parametrize("raw", [b"\n{", b'{"a":\n'], ids=repr)
def test_json_that_is_none_is_refused_where_it_would_break_the_lines(box: Outbox, raw: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        box.append([Custom(name="n", data=msgspec.Raw(raw))])
    assert box.append([message()]) == 1
    assert numbers(lines_of(box)) == [1]


def test_what_cannot_be_encoded_appends_nothing(box: Outbox) -> None:
    with pytest.raises(TypeError):
        box.append([message(), Custom(name="n", data=object())])
    with pytest.raises(UnicodeEncodeError):
        box.append([message("\ud800")])
    assert (box.state.seq, box.state.end) == (0, 0)
    assert box.append([message()]) == 1


def test_a_clock_that_is_set_back_stops_instead(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000_000_000_000
    for moment in (now, now - 3_600_000_000_000, now + 1000):
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
        box.append([message()])
    stamps = [decode(line).ts for line in lines_of(box)]
    assert stamps == ["2027-01-15T08:00:00.000000Z", "2027-01-15T08:00:00.000000Z", "2027-01-15T08:00:00.000001Z"]


@pytest.mark.parametrize("microseconds", [0, 1, 999_999, 1_000_000, 1_800_000_000_123_456, 253_402_300_799_999_999])
def test_times_are_written_in_utc_with_microseconds(microseconds: int) -> None:
    seconds, rest = divmod(microseconds, 1_000_000)
    expected = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:06}Z"
    assert timestamp(microseconds) == expected


def test_what_is_read_is_whole_lines_of_about_the_size_that_is_asked(box: Outbox) -> None:
    box.append(messages(10))
    length = len(lines_of(box)[0]) + 1
    assert box.read(0, 3 * length + 5) == content(box)[: 3 * length]
    assert box.read(0, 1).count(b"\n") >= 1  # a line that is longer than what is asked comes whole
    assert box.read(box.state.end) == b""


def test_a_line_that_is_far_longer_than_what_is_asked_comes_whole(box: Outbox) -> None:
    box.append([message("x" * 900_000), message()])
    data = box.read(0, 10)
    assert data.startswith(b'{"type":"Message"')
    assert numbers(data.split(b"\n")[:-1])[0] == 1


# ── limits ──


def sized(size: int) -> Message:
    """A message whose line has so many bytes, as number 1 to 9."""
    return message("x" * (size - LENGTH_OF_EMPTY))


LENGTH_OF_EMPTY = len(
    f'{{"type":"Message","run":"{RUN}","seq":1,"ts":"2026-11-22T12:00:00.123456Z","role":"assistant","text":""}}'
)


def test_the_largest_event_and_one_byte_more(box: Outbox) -> None:
    assert box.append([sized(MAX_EVENT_BYTES)]) == 1
    assert len(lines_of(box)[0]) == MAX_EVENT_BYTES
    with pytest.raises(ValueError, match="an event may have 1048576 bytes, this Message has 1048577"):
        box.append([sized(MAX_EVENT_BYTES + 1)])
    assert box.state.seq == 1


def test_what_comes_before_one_that_is_too_large_is_kept(box: Outbox) -> None:
    assert box.append([message(), sized(MAX_EVENT_BYTES + 1), message()]) == 1
    assert numbers(lines_of(box)) == [1]


def test_what_has_no_room_waits_until_there_is_some(box: Outbox) -> None:
    mega = [sized(1000 * 1000) for _ in range(4)]
    assert box.append(mega[:1]) == 1
    assert box.append(mega[:1]) == 1
    for _ in range(3):
        assert box.append(mega[2:]) == 0
    assert box.state.seq == 2
    first = box.read(0, 1)
    box.acknowledge(len(first))
    assert box.append(mega[2:]) == 1
    assert numbers(lines_of(box)) == [2, 3]


def test_as_many_as_have_room_are_taken(box: Outbox) -> None:
    """Nothing beyond the capacity, and not a line less."""
    events = messages(100_000, "x" * 100)
    taken = 0
    while done := box.append(events[taken:]):
        taken += done
    length = (LENGTH_OF_EMPTY + 100 + 1) + 3  # with numbers of four digits, mostly
    assert box.state.end <= CAPACITY
    assert CAPACITY - box.state.end < length + 2
    assert numbers(lines_of(box)) == list(range(1, taken + 1))


def test_the_room_is_used_to_the_last_byte(box: Outbox) -> None:
    for _ in range(2):
        box.append([sized(1000 * 1000)])
    room = CAPACITY - box.state.end
    assert box.append([sized(room)]) == 0
    assert box.append([sized(room), message()]) == 0
    assert box.append([sized(room - 1), message()]) == 1
    assert box.state.end == CAPACITY
    assert box.append([message()]) == 0
    assert numbers(lines_of(box)) == [1, 2, 3]


def test_many_at_once_are_all_taken_in_the_end(box: Outbox) -> None:
    left = messages(5000)
    while left:
        left = left[box.append(left) :]
    assert numbers(lines_of(box)) == list(range(1, 5001))


@pytest.mark.parametrize("size", [300, 3000, 30_000])
def test_large_ones_are_taken_together_too_and_hardly_one_is_encoded_for_nothing(
    box: Outbox, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    encoded: list[int] = []

    def together(events: Sequence[Event]) -> bytes:
        encoded.append(len(events))
        return encode_lines(events)

    def alone(_: AnyEvent) -> bytes:
        raise AssertionError("one by one takes three times as long")

    monkeypatch.setattr(module, "encode_lines", together)
    monkeypatch.setattr(module, "encode", alone)
    count = 20_000_000 // size
    left = messages(count, "x" * size)
    while left:
        left = left[box.append(left) :]
        box.acknowledge(box.state.end)
    assert box.state.seq == count
    assert sum(encoded) < 2.5 * count + 1000


# ── the ring ──


def test_around_the_corner_many_times(box: Outbox, again: Opener) -> None:
    other = again()
    chosen = random.Random(7)
    sent = received = 0
    writers = [box, other]
    while received < 30_000 or box.state.end < 4 * CAPACITY:
        batch = messages(chosen.randint(1, 400), "x" * chosen.choice([0, 10, 1000, 5000]))
        sent += chosen.choice(writers).append(batch)
        while box.state.end - box.acked > CAPACITY // 2 or chosen.random() < 0.3:
            data = other.read(box.acked, chosen.choice([1, 1000, 100_000]))
            if not data:
                break
            seqs = numbers(data.split(b"\n")[:-1])
            assert seqs == list(range(received + 1, received + 1 + len(seqs)))
            received = seqs[-1]
            box.acknowledge(box.acked + len(data))
    assert numbers(lines_of(box)) == list(range(received + 1, sent + 1))
    assert os.fstat(box.descriptor).st_size <= PAGE + CAPACITY


def test_the_disk_is_given_back_when_all_is_recorded(box: Outbox, again: Opener) -> None:
    other = again()
    for size in (1000, 900 * 1000, 900 * 1000):
        assert box.append([sized(size)]) == 1
    length = os.fstat(box.descriptor).st_size
    box.acknowledge(len(box.read(0, 1)))
    assert os.fstat(box.descriptor).st_size == length  # some is still to be read
    box.acknowledge(box.state.end)
    assert os.fstat(box.descriptor).st_size == PAGE + KEPT
    # The other one sees that the ring began anew, and all goes on: numbers, offsets, content.
    end = box.state.end
    assert other.state == box.state
    assert other.append(messages(2)) == 2
    assert numbers(box.read(end).split(b"\n")[:-1]) == [4, 5]
    assert numbers(lines_of(other)) == [4, 5]


def test_a_little_is_not_given_back(box: Outbox) -> None:
    box.append(messages(10))
    size = os.fstat(box.descriptor).st_size
    box.acknowledge(box.state.end)
    assert os.fstat(box.descriptor).st_size == size


# ── the beginning and the end ──


def test_the_opening_comes_first_whoever_writes_first(box: Outbox, again: Opener) -> None:
    engine, monitor = again(RunStarted(task="t", agent="a")), again(RunStarted(task="t", agent="a"))
    assert [monitor.started, engine.append([message()]), monitor.started] == [False, 1, True]
    assert monitor.append([Output(stream="stdout", text="x")]) == 1
    assert monitor.begin()
    assert [json.loads(line)["type"] for line in lines_of(box)] == ["RunStarted", "Message", "Output"]
    assert numbers(lines_of(box)) == [1, 2, 3]


def test_the_opening_alone(box: Outbox, again: Opener) -> None:
    monitor = again(RunStarted(task="t", agent="a"))
    assert monitor.begin()
    assert monitor.begin()
    assert [json.loads(line)["type"] for line in lines_of(box)] == ["RunStarted"]
    assert box.begin()  # who has none to write has begun


def test_an_opening_with_an_event_that_is_too_large(box: Outbox, again: Opener) -> None:
    engine = again(RunStarted(task="t", agent="a"))
    assert engine.append([sized(MAX_EVENT_BYTES + 1)]) == 0
    assert engine.started
    with pytest.raises(ValueError, match="may have"):
        engine.append([sized(MAX_EVENT_BYTES + 1)])
    assert numbers(lines_of(box)) == [1]


def test_numbers_and_times_go_on_after_what_was_there_before(tmp_path: Path) -> None:
    future = 4_000_000_000_000_000
    Outbox.create(tmp_path / "queued", CAPACITY, last_seq=1, last_ts=future)
    outbox = Outbox(tmp_path / "queued", RUN)
    outbox.append([message()])
    (event,) = map(decode, lines_of(outbox))
    assert (event.seq, event.ts) == (2, timestamp(future))
    outbox.close()


@pytest.mark.parametrize(("recorded", "left"), [(0, [1, 2, 3, 4, 5]), (2, [3, 4, 5]), (4, [5]), (5, []), (9, [])])
def test_what_is_not_recorded_is_what_comes_after_the_last_that_is(box: Outbox, recorded: int, left: list[int]) -> None:
    box.append(messages(5))
    assert numbers(box.unrecorded(recorded)) == left


def test_what_is_not_recorded_where_some_is_acknowledged(box: Outbox) -> None:
    box.append(messages(5))
    box.acknowledge(2 * (len(lines_of(box)[0]) + 1))
    assert numbers(box.unrecorded(0)) == [3, 4, 5]
    assert numbers(box.unrecorded(3)) == [4, 5]
    box.acknowledge(box.state.end)
    assert box.unrecorded(0) == []


def test_what_is_not_recorded_may_be_more_than_is_read_at_once(box: Outbox) -> None:
    left = messages(6000, "x" * 100)
    while left:
        left = left[box.append(left) :]
    assert numbers(box.unrecorded(5)) == list(range(6, 6001))


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"\0" * PAGE, b"SPRWOUT" + b"\0" * PAGE], ids=len)
def test_a_file_that_is_no_outbox_says_so(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "none"
    path.write_bytes(data)
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(ValueError, match="is no outbox"):
        Outbox(path, RUN)
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


def test_it_is_private_and_made_once(tmp_path: Path) -> None:
    Outbox.create(tmp_path / "outbox", CAPACITY)
    assert (tmp_path / "outbox").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Outbox.create(tmp_path / "outbox", CAPACITY)
    with pytest.raises(FileNotFoundError):
        Outbox(tmp_path / "nothing", RUN)


# ── waking the monitor ──


def test_only_a_monitor_that_sleeps_is_woken_and_only_once(box: Outbox, again: Opener) -> None:
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    engine = again(None, wake)
    engine.append([message()])
    assert not woken(wake)
    box.fall_asleep(True)
    engine.append([message()])
    engine.append([message()])
    assert woken(wake)
    assert os.eventfd_read(wake) == 1
    os.close(wake)


def woken(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


# ── several writers ──


@contextmanager
def forked(work: Callable[[], None]) -> Iterator[int]:
    """A process that does the work and ends; it is killed where the test leaves before."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def writer(path: Path, name: str, count: int, batch: int = 1) -> None:
    """Append ``count`` events, waiting for room, and say so."""
    outbox = Outbox(path, RUN)
    for start in range(0, count, batch):
        left: list[AnyEvent] = [Output(stream="stdout", text=f"{name} {n}") for n in range(start, start + batch)]
        while left:
            left = left[outbox.append(left) :]


def by_writer(lines: Sequence[bytes]) -> dict[str, list[int]]:
    """Each writer's own numbers in the order in which they are there."""
    order: dict[str, list[int]] = {}
    for line in lines:
        event = decode(line)
        assert isinstance(event, Output)
        name, number = event.text.split()
        order.setdefault(name, []).append(int(number))
    return order


def test_two_processes_of_several_threads_each(box: Outbox, tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    count = 300

    def threads(process: str) -> None:
        outbox = Outbox(path, RUN)

        def write(name: str) -> None:
            for number in range(count):
                while not outbox.append([Output(stream="stdout", text=f"{name} {number}")]):
                    pass

        workers = [threading.Thread(target=write, args=(f"{process}{n}",)) for n in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    with forked(lambda: threads("a")) as other:
        threads("b")
        os.waitid(os.P_PID, other, os.WEXITED | os.WNOWAIT)
    lines = lines_of(box)
    assert numbers(lines) == list(range(1, 6 * count + 1))
    assert by_writer(lines) == {f"{process}{n}": list(range(count)) for process in "ab" for n in range(3)}
    stamps = [decode(line).ts for line in lines]
    assert stamps == sorted(stamps)


def test_a_reader_beside_a_writer_never_sees_half_a_line(box: Outbox, tmp_path: Path) -> None:
    """Without the lock, as the monitor reads; and around the ring's corner."""
    total = 12_000
    seen = 0
    with forked(lambda: writer(tmp_path / "outbox", "a", total, batch=40)):
        while seen < total:
            data = box.read(box.acked, 50_000)
            if not data:
                continue
            seqs = numbers(data.split(b"\n")[:-1])
            assert data.endswith(b"\n")
            assert seqs == list(range(seen + 1, seen + 1 + len(seqs)))
            seen = seqs[-1]
            box.acknowledge(box.acked + len(data))


def test_the_monitor_never_waits_for_an_engine_that_was_stopped(box: Outbox, tmp_path: Path) -> None:
    ready, done = os.pipe()

    def hold() -> None:
        fd = os.open(tmp_path / "outbox", os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.write(done, b"!")
        signal.pause()

    with forked(hold):
        assert os.read(ready, 1) == b"!"
        assert box.append([message()], wait=False) == 0
        assert box.state.seq == 0
    # Its lock went with it.
    assert box.append([message()], wait=False) == 1
    os.close(ready)
    os.close(done)


def test_writers_that_are_killed_at_any_moment_leave_no_torn_line_and_no_hole(tmp_path: Path) -> None:
    """For longer: tests/stress/test_outbox_for_long.py."""
    kill_writers(tmp_path / "outbox", trial=0, lives=12)


def kill_writers(path: Path, trial: int, lives: int) -> int:
    """Two writers and a reader; the writers are killed so many times, and others take their places. How many lines."""
    Outbox.create(path, CAPACITY)
    box = Outbox(path, RUN)
    chosen = random.Random(trial)
    lines: list[bytes] = []
    confirmed: dict[str, int] = {}

    def take() -> None:
        while data := box.read(box.acked, chosen.choice([1, 5000, 500_000])):
            lines.extend(data.split(b"\n")[:-1])
            assert data.endswith(b"\n")
            box.acknowledge(box.acked + len(data))

    def say(name: str, pipe: int) -> None:
        outbox = Outbox(path, RUN, engine=name.endswith("a"))
        number = 0
        while name.endswith("a"):  # the engine, one by one
            event = Output(stream="stdout", text=f"{name} {number}")
            number += outbox.append_one(event) or outbox.append([event])
            os.write(pipe, number.to_bytes(8, "little"))
        while True:
            batch: list[AnyEvent] = [
                Output(stream="stdout", text=f"{name} {n}")
                for n in range(number, number + chosen.choice([1, 1, 50, 3000]))
            ]
            done = outbox.append(batch)
            number += done
            os.write(pipe, number.to_bytes(8, "little"))

    for life in range(lives):
        with forked_writers([f"{life}a", f"{life}b"], say) as pipes:
            if life == 0:  # on a busy machine each of them may be killed before it has begun; this time one has
                assert select.select(list(pipes.values()), [], [], 30)[0]
            deadline = time.monotonic() + chosen.uniform(0.0, 0.02)
            while time.monotonic() < deadline:
                take()
        for name, pipe in pipes.items():
            told = b""
            while data := os.read(pipe, 1 << 16):
                told += data
            os.close(pipe)
            confirmed[name] = int.from_bytes(told[-8:], "little") if len(told) >= 8 and len(told) % 8 == 0 else 0
        take()
        assert box.append([Output(stream="stderr", text=f"watcher {life}")]) == 1  # the lock is free at once
    take()
    assert numbers(lines) == list(range(1, len(lines) + 1))
    assert box.state.seq == len(lines)
    order = by_writer(lines)
    assert order.pop("watcher") == list(range(lives))
    for name, said in confirmed.items():
        assert order.get(name, []) == list(range(len(order.get(name, []))))
        assert len(order.get(name, [])) >= said  # what append had returned for is there
    assert sum(confirmed.values()) > 0
    box.close()
    return len(lines)


@contextmanager
def forked_writers(names: Sequence[str], say: Callable[[str, int], None]) -> Iterator[dict[str, int]]:
    """Processes that write until they are killed at the end; the pipes in which they confirm how far they are."""
    pipes: dict[str, int] = {}
    pids = []
    for name in names:
        ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(ours, True)
        pid = os.fork()
        if pid == 0:
            try:
                say(name, theirs)
            finally:
                os._exit(1)
        os.close(theirs)
        fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 1 << 20)
        pipes[name] = ours
        pids.append(pid)
    try:
        yield pipes
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# ── a full disk ──


def test_a_full_disk_appends_nothing_and_goes_on_when_there_is_space(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(b"x" * 64_000)
    Outbox.create(small_disk / "outbox", CAPACITY)
    box = Outbox(small_disk / "outbox", RUN)
    taken = 0
    while done := box.append([message("x" * 10_000)]):
        taken += done
    assert taken > 10
    for _ in range(3):
        assert box.append([message("x" * 10_000)]) == 0
    assert box.state.seq == taken
    assert numbers(lines_of(box)) == list(range(1, taken + 1))
    assert not box.append([message("x" * 10_000), message("small")])
    (small_disk / "other").unlink()
    assert box.append([message("x" * 10_000), message("small")]) == 2
    assert numbers(lines_of(box)) == list(range(1, taken + 3))
    box.close()


def test_a_disk_that_is_full_from_the_beginning(small_disk: Path) -> None:
    with open(small_disk / "filler", "wb", buffering=0) as file:
        while file.write(b"x" * 100_000) == 100_000:
            pass
    with pytest.raises(OSError, match="No space left"):
        Outbox.create(small_disk / "outbox", CAPACITY)
