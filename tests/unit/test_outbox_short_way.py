"""The short way of an engine's single events into the outbox: what it leaves there is what the long way would have left."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sparrow_mp.events import (
    MAX_EVENT_BYTES,
    AnyEvent,
    CostUpdate,
    Custom,
    Output,
    RunStarted,
    Unknown,
    decode,
)
from sparrow_mp.run import quick
from sparrow_mp.run.layout import KEPT, OPEN, PAGE, WRITING
from sparrow_mp.run.outbox import Outbox
from sparrow_mp.run.stamp import timestamp
from tests.unit.test_outbox import CAPACITY, RUN, content, forked, lines_of, message, numbers

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="elsewhere nobody takes the short way")


class Engine:
    """An engine's end of an outbox."""

    def __init__(self, path: Path, *, is_open: bool = True) -> None:
        self.outbox = Outbox(path, RUN, engine=True)
        if is_open:
            while not self.say(message("so far")):
                pass

    def say(self, event: AnyEvent) -> bool:
        """Append an event; whether that went the short way."""
        if self.outbox.append_one(event):
            return True
        assert self.outbox.append([event]) == 1, "there is no room"
        return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Outbox.create(tmp_path / "outbox", CAPACITY)
    return tmp_path / "outbox"


@pytest.fixture
def monitor(path: Path) -> Iterator[Outbox]:
    outbox = Outbox(path, RUN)
    yield outbox
    outbox.close()


@pytest.fixture(params=["mapped", "written"])
def engine(path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine whose short way is open, on a file system of each kind."""
    monkeypatch.setattr(quick, "_writes_in_place", lambda _: request.param == "mapped")
    engine = Engine(path)
    yield engine
    engine.outbox.close()


def checked(outbox: Outbox) -> list[bytes]:
    """The lines, in which no number is missing and no time goes back."""
    lines = lines_of(outbox)
    assert numbers(lines) == list(range(1, outbox.state.seq + 1))
    stamps = [decode(line).ts for line in lines]
    assert stamps == sorted(stamps)
    return lines


def test_it_writes_what_the_long_way_writes(engine: Engine, monitor: Outbox) -> None:
    events: list[AnyEvent] = [
        message('ü\n"x"'),
        Custom(name="n", data={"a": [1, None]}),
        Output(stream="stderr", text=""),
    ]
    first = monitor.state.seq + 1
    before = timestamp(time.time_ns() // 1000)
    for event in events:
        assert engine.say(event)
    after = timestamp(time.time_ns() // 1000)
    lines = checked(monitor)[first - 1 :]
    assert [json.loads(line)["type"] for line in lines] == ["Message", "Custom", "Output"]
    for line, event in zip(lines, events, strict=True):
        assert decode(line) == event
        assert list(json.loads(line))[:4] == ["type", "run", "seq", "ts"]
        assert (event.run, before <= event.ts <= after) == (RUN, True)


def test_whoever_else_writes_closes_it_and_the_engine_opens_it_again(engine: Engine, monitor: Outbox) -> None:
    for number in range(5):
        assert monitor.append([Output(stream="stdout", text=f"printed {number}")], wait=False) == 1
        assert [engine.say(message(f"said {number}")) for _ in range(3)] == [False, True, True]
    assert len(checked(monitor)) == monitor.state.seq


def test_many_events_at_once_go_the_long_way_in_between(engine: Engine, monitor: Outbox) -> None:
    for _ in range(3):
        assert engine.say(message())
        assert engine.outbox.append([message(), message()]) == 2
        assert not engine.say(message())
    checked(monitor)


@pytest.mark.parametrize(
    "event",
    [
        CostUpdate(usd=1.0),
        Unknown(type="FromTheFuture", fields={}),
        RunStarted(task="t", agent="a"),
        decode('{"type":"Message","colour":"red","role":"user","text":"hi"}'),
        Custom(name="n", data=msgspec.Raw(b'{"a":\n1}')),
        Custom(name="n", data=msgspec.Raw(b'{"a":\r1}')),
        message("x" * MAX_EVENT_BYTES),
        "no event",
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_is_unusual_is_left_to_the_long_way(engine: Engine, monitor: Outbox, event: AnyEvent) -> None:
    before = monitor.state
    assert not engine.outbox.append_one(event)
    assert monitor.state == before
    assert engine.say(message())
    checked(monitor)


def test_what_cannot_be_encoded_appends_nothing(engine: Engine, monitor: Outbox) -> None:
    before = monitor.state
    with pytest.raises(TypeError):
        engine.outbox.append_one(Custom(name="n", data=object()))
    assert monitor.state == before
    assert [engine.say(message()) for _ in range(2)] == [False, True]
    checked(monitor)


def test_around_the_corner_many_times(engine: Engine, monitor: Outbox) -> None:
    """What is not acknowledged is never written over, and what is given back is not stored to."""
    chosen = random.Random(3)
    received = short = 0
    while monitor.state.end < 6 * CAPACITY:
        for _ in range(chosen.randint(1, 60)):
            event = message("x" * chosen.choice([0, 100, 5000, 60_000]))
            if engine.outbox.append_one(event):
                short += 1
            elif not engine.outbox.append([event]):
                break
        while chosen.random() < 0.7 or monitor.state.end - monitor.acked > CAPACITY - 100_000:
            data = monitor.read(monitor.acked, chosen.choice([1, 100_000, CAPACITY]))
            if not data:
                break
            seqs = numbers(data.splitlines())
            assert seqs == list(range(received + 1, received + 1 + len(seqs)))
            received = seqs[-1]
            monitor.acknowledge(monitor.acked + len(data))
    assert short > 500
    assert numbers(lines_of(monitor)) == list(range(received + 1, monitor.state.seq + 1))
    monitor.acknowledge(monitor.state.end)
    for _ in range(3):
        monitor.append([message("x" * (KEPT // 2))])
    monitor.acknowledge(monitor.state.end)
    assert os.fstat(monitor.descriptor).st_size <= PAGE + KEPT


def test_there_is_as_much_room_as_on_the_long_way(engine: Engine, monitor: Outbox) -> None:
    while engine.outbox.append_one(message("x" * 300)) or engine.outbox.append([message("x" * 300)]):
        pass
    assert CAPACITY - 500 < monitor.state.end <= CAPACITY
    checked(monitor)
    monitor.acknowledge(len(monitor.read(0, 100_000)))
    assert True in [engine.say(message()) for _ in range(5)]
    assert content(monitor).endswith(b"\n")


def test_a_clock_that_is_set_back_stops_instead(
    engine: Engine, monitor: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 4_000_000_000_000_000_000
    for moment in (now, now - 3_600_000_000_000, now + 1000):
        monkeypatch.setattr(quick, "time_ns", lambda moment=moment: moment)
        assert engine.say(message())
    checked(monitor)
    assert decode(lines_of(monitor)[-2]).ts == timestamp(now // 1000)


def test_it_wakes_a_monitor_that_sleeps_once(path: Path, monitor: Outbox) -> None:
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    engine = Engine(path, is_open=False)
    engine.outbox.close()
    engine.outbox = Outbox(path, RUN, wake_fd=wake, engine=True)
    while not engine.say(message()):
        pass
    monitor.fall_asleep(True)
    assert engine.say(message())
    assert engine.say(message())
    assert os.eventfd_read(wake) == 1
    os.close(wake)
    engine.outbox.close()


def test_a_child_that_the_engine_forked_does_not_take_it(engine: Engine, monitor: Outbox) -> None:
    def try_it() -> None:
        if not engine.outbox.append_one(message()):
            os._exit(7)

    before = monitor.state
    pid = os.fork()
    if pid == 0:
        try_it()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert monitor.state == before
    assert engine.say(message())


@pytest.mark.parametrize("end", ["it goes on", "it is killed"])
def test_a_monitor_does_not_wait_for_an_engine_that_was_stopped_while_it_wrote(
    path: Path, monitor: Outbox, end: str
) -> None:
    ready, done = os.pipe()

    def be_stopped() -> None:
        engine = Engine(path)
        page = engine.outbox._map
        page[WRITING] = 1
        os.write(done, b"!")
        signal.pause()

    with forked(be_stopped) as pid:
        assert os.read(ready, 1) == b"!"
        before = monitor.state
        assert monitor.append([message()], wait=False) == 0
        assert monitor.state == before
        assert monitor._map[OPEN] == 0  # what it says next goes the long way
        if end == "it goes on":
            monitor._map[WRITING] = 0
            assert monitor.append([message()], wait=False) == 1
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert monitor.append([message()], wait=False) == 1
    checked(monitor)
    os.close(ready)
    os.close(done)


def test_threads_of_the_engine_beside_another_process(path: Path, monitor: Outbox) -> None:
    count = 2000

    def be_engine() -> None:
        engine = Engine(path)

        def write(name: str) -> None:
            for number in range(count):
                engine.say(Output(stream="stdout", text=f"{name} {number}"))

        workers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    # The first before there is an engine, which may have done its work before we are on again.
    said = monitor.append([Output(stream="stderr", text="m 0")], wait=False)
    assert said == 1
    with forked(be_engine) as pid:
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            said += monitor.append([Output(stream="stderr", text=f"m {said}")], wait=False)
            time.sleep(0.0005)
    order: dict[str, list[int]] = {}
    for line in checked(monitor):
        event = decode(line)
        if isinstance(event, Output):
            name, number = event.text.split()
            order.setdefault(name, []).append(int(number))
    assert order.pop("m") == list(range(said))
    assert order == {name: list(range(count)) for name in "abc"}


def test_a_disk_that_fills_up_ends_nobody(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store into a mapping for which the disk has no room would (SIGBUS)."""
    monkeypatch.setattr(quick, "_AHEAD", 8192)
    monkeypatch.setattr(quick, "_NEAR", 2048)
    Outbox.create(small_disk / "outbox", 8 << 20)
    (small_disk / "other").write_bytes(b"x" * 20_000)
    monitor = Outbox(small_disk / "outbox", RUN)

    def fill() -> None:
        engine = Engine(small_disk / "outbox")
        short = 0
        while (done := engine.outbox.append_one(message("x" * 1000))) or engine.outbox.append([message("x" * 1000)]):
            short += done
        (small_disk / "other").unlink()
        engine.say(message("there is room again"))
        os._exit(8 if short > 10 else 9)

    pid = os.fork()
    if pid == 0:
        try:
            fill()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 8
    assert b"there is room again" in checked(monitor)[-1]
    monitor.close()
