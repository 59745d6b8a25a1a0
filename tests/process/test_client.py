from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparrow_mp import (
    AmbiguousRun,
    AsyncClient,
    BadRequest,
    Client,
    Gone,
    NoSuchRun,
    NoSupervisor,
    Places,
    Run,
    SparrowError,
    TimedOut,
    TooLarge,
    aclient,
)
from sparrow_mp.asking import Asker, Lost
from sparrow_mp.follow import find_run, read_run
from sparrow_mp.paths import find_places, supervisor_alive
from tests.support import processes

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
FINISH = {"type": "RunFinished", "outcome": {"status": "completed"}}


def message(text: str) -> dict[str, Any]:
    return {"type": "Message", "role": "assistant", "text": text}


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """A state folder with a short path, in which a stand-in is what would be started as the supervisor."""
    top = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))  # a socket's address must be short
    package = top / "py" / "sparrow_supervisor"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    script = Path(__file__).with_name("stand_in.py")
    (package / "__main__.py").write_text(f"import runpy\nrunpy.run_path({str(script)!r}, run_name='__main__')\n")
    (top / "s").mkdir(mode=0o700)
    for name in [name for name in os.environ if name.startswith("SPARROW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SPARROW_STATE_DIR", str(top / "s"))
    monkeypatch.setenv("SPARROW_RUNTIME_DIR", str(top / "r"))
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{ROOT}")
    places = find_places()
    yield places

    def nothing_is_left() -> bool:
        """A stream may just be starting another stand-in, which is not in the list of those that have started."""
        left = [pid for pid in processes.pids() if pid != os.getpid() and processes.belongs(pid, marker, top)]
        for pid in left:
            processes.kill(pid, signal.SIGKILL)
        return not left

    marker = f"SPARROW_STATE_DIR={top / 's'}"
    eventually(nothing_is_left)
    shutil.rmtree(top)


@pytest.fixture
def sparrow(places: Places) -> Iterator[Client]:
    with Client() as client:
        yield client


def started(places: Places) -> list[int]:
    try:
        return [int(line) for line in (places.state / "starts").read_text().split()]
    except FileNotFoundError:
        return []


def eventually(holds: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def kill_supervisor(places: Places) -> None:
    os.kill(started(places)[-1], signal.SIGKILL)
    eventually(lambda: not supervisor_alive(places))


def emit(client: Client, run: Run | str, *events: dict[str, Any], **how: Any) -> None:
    run = run if isinstance(run, str) else run.id
    client.request({"op": "x.emit", "run": run, "events": list(events), **how})


def later(seconds: float, do: Any) -> threading.Timer:
    timer = threading.Timer(seconds, do)
    timer.start()
    return timer


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_submit_sends_the_callers_folder_environment_and_python(sparrow, monkeypatch):
    monkeypatch.setenv("ONE", "two")
    os.environb[b"NOT_UTF8"] = b"\xff"
    try:
        run = sparrow.submit("make test", name="n", labels=["a"])
    finally:
        del os.environb[b"NOT_UTF8"]
    assert uuid.UUID(run.id).version == 4
    with pytest.raises(BadRequest, match="argv"):
        sparrow.submit(argv="make test")
    with pytest.raises(BadRequest, match="not Unicode"):
        sparrow.submit("t", env={"A": "\udcff"})
    sent = sparrow.request({"op": "submit", "task": "t"})["request"]
    assert sent == {"op": "submit", "task": "t"}


def test_a_reply_that_says_no_raises_its_error(sparrow):
    with pytest.raises(NoSuchRun, match="No active run with id nope"):
        sparrow.get("nope")
    with pytest.raises(BadRequest) as caught:
        sparrow.request({"op": "x.unknown"})
    assert caught.value.exit_code == 2
    with pytest.raises(SparrowError, match="makes no sense"):
        sparrow.request({"op": "x.nonsense"})
    with pytest.raises(TooLarge):
        sparrow.submit("t", env={"A": "x" * (5 << 20)})
    assert sparrow.status()["pid"]  # and goes on


def test_records_are_typed(sparrow):
    run = sparrow.submit("t")
    (record,) = sparrow.list()
    assert record.run == run.id == sparrow.run(run.id[:8]).id
    assert record.tokens.input == 0


def test_threads_share_a_client(sparrow):
    runs: list[str] = []
    threads = [threading.Thread(target=lambda: runs.append(sparrow.submit("t").id)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {record.run for record in sparrow.list()} == set(runs)
    assert len(runs) == 20


def test_a_forked_child_asks_on_a_connection_of_its_own(sparrow):
    run = sparrow.submit("t")
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            os._exit(0 if sparrow.get(run.id).run == run.id else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert sparrow.get(run.id).run == run.id


# ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_supervisor_is_started_where_none_runs_and_told(places):
    told: list[str] = []
    with Client(on_start=told.append) as sparrow:
        assert not sparrow.is_running()
        sparrow.list()
        assert sparrow.is_running()
        sparrow.start()  # nothing to do
    assert len(started(places)) == len(told) == 1
    assert "starting one" in told[0]
    assert str(places.log) in told[0]
    assert places.log.stat().st_mode & 0o777 == 0o600
    parent = Path(f"/proc/{started(places)[0]}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) != os.getpid()  # nobody's child here, so nobody's zombie


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_none_is_started_where_that_is_forbidden(places, monkeypatch, way):
    if way == "variable":
        monkeypatch.setenv("SPARROW_NO_START", "1")
    with Client(start=way == "variable") as sparrow, pytest.raises(NoSupervisor, match="sparrow supervisor") as caught:
        sparrow.list()
    assert caught.value.exit_code == 69
    assert not started(places)


def test_status_shutdown_and_reload_never_start_one(places, sparrow):
    for ask in (sparrow.status, sparrow.reload):
        with pytest.raises(NoSupervisor):
            ask()
    assert sparrow.shutdown() is False
    assert not started(places)


def test_of_many_starters_one_wins_and_all_are_served(places):
    failed: list[BaseException] = []

    def one() -> None:
        try:
            with Client() as sparrow:
                sparrow.list()
        except BaseException as error:  # it is looked at below
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(started(places)) == 1


@pytest.mark.parametrize(("fault", "words"), [("dies", "the roof fell in"), ("refuses", "the config is wrong")])
def test_a_supervisor_that_does_not_start_says_why(places, monkeypatch, fault, words):
    monkeypatch.setenv("STAND_IN", fault)
    with Client() as sparrow, pytest.raises(NoSupervisor, match=words):
        sparrow.list()


def test_places_that_are_given_are_those_of_the_supervisor_started(places, monkeypatch):
    other = Places(places.state / "o", places.state / "o" / "run", places.config)
    with Client(places=other) as sparrow:
        sparrow.list()
        assert supervisor_alive(other)
        assert not supervisor_alive(places)
        sparrow.shutdown()


def test_a_state_folder_that_is_open_to_others_is_refused(places):
    places.state.chmod(0o755)
    with Client() as sparrow, pytest.raises(NoSupervisor, match="open to other users"):
        sparrow.list()


# ── The supervisor goes away ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_request_after_a_restart_goes_to_the_new_supervisor(places, sparrow):
    sparrow.submit("t")
    kill_supervisor(places)
    sparrow.submit("t")
    assert len(sparrow.list()) == 2
    assert len(started(places)) == 2


def test_a_request_that_may_have_been_done_is_not_sent_again(places, sparrow):
    sparrow.start()
    later(0.3, lambda: kill_supervisor(places))
    began = time.monotonic()
    with pytest.raises(NoSupervisor, match="unknown whether"):
        sparrow.request({"op": "x.hang"})
    assert time.monotonic() - began < 8  # not only when the request's time is over
    assert len(started(places)) == 1


def test_a_request_that_only_reads_is_asked_again(places, sparrow):
    sparrow.start()

    def replace() -> None:
        (places.state / "answer").touch()
        kill_supervisor(places)

    later(0.3, replace)
    assert sparrow.request({"op": "events", "run": "r"})["next"] == 0
    assert len(started(places)) == 2


def test_a_swift_restart_is_noticed_too(places, sparrow):
    sparrow.start()

    def swap() -> None:
        kill_supervisor(places)
        Client().start()

    swapping = later(0.2, swap)
    with pytest.raises(NoSupervisor, match="unknown"):
        sparrow.request({"op": "x.hang"})
    swapping.join()  # else the new one is ended while it is still being waited for


def test_a_request_that_no_supervisor_stays_to_take_is_given_up(places, monkeypatch):
    def lost(*_: object) -> None:
        raise Lost(sent=False)

    async def lost_too(*_: object) -> None:
        raise Lost(sent=False)

    monkeypatch.setattr(Asker, "_try", lost)
    monkeypatch.setattr(aclient._Asker, "_try", lost_too)
    with Client(timeout=0.05) as sparrow, pytest.raises(NoSupervisor, match="goes away again and again"):
        sparrow.list()

    async def ask() -> None:
        async with AsyncClient(timeout=0.05) as sparrow:
            await sparrow.list()

    with pytest.raises(NoSupervisor, match="goes away again and again"):
        asyncio.run(ask())


def test_a_supervisor_that_does_not_answer_is_told_of(places):
    with Client(timeout=2.0) as sparrow:
        sparrow.start()
        os.kill(started(places)[0], signal.SIGSTOP)
        with pytest.raises(TimedOut, match="did not answer `list`"):
            sparrow.list()
        os.kill(started(places)[0], signal.SIGCONT)
        assert sparrow.list() == []


def test_an_address_file_left_by_a_crash_misleads_nobody(places, sparrow):
    sparrow.start()
    kill_supervisor(places)
    places.address_file.write_text('{"control":"ipc:///nowhere/c","events":"ipc:///nowhere/e","pid":1}')
    assert sparrow.list() == []


def test_shutdown_returns_when_the_supervisor_is_gone(places, sparrow):
    sparrow.start()
    (pid,) = started(places)
    assert sparrow.shutdown() is True
    assert not supervisor_alive(places)
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"
    assert sparrow.shutdown() is False


def test_shutdown_of_one_that_does_not_end_times_out(places):
    with Client(timeout=5) as sparrow:
        sparrow.start()
        with pytest.raises(TimedOut, match="still ending"):
            sparrow.shutdown(timeout=0.01)


# ── One run's stream ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_are_those_recorded_then_live_ones_until_the_end(sparrow):
    run = sparrow.submit("t")
    emit(sparrow, run, *[message(str(n)) for n in range(5000)])
    later(0.2, lambda: emit(sparrow, run, message("live"), FINISH))
    events = list(run.events())
    assert [event.seq for event in events] == list(range(1, 5004))
    assert events[-2].text == "live"
    assert [event.seq for event in run.events(since=5000)] == [5001, 5002, 5003]
    assert list(run.events(since=5003)) == []


def test_a_wake_up_comes_at_once(sparrow):
    run = sparrow.submit("t")
    lines = run.lines()
    next(lines)
    late: list[float] = []
    for _ in range(5):
        timer = later(0.4, lambda: emit(sparrow, run, message(repr(time.monotonic()))))
        next(lines)
        late.append(time.monotonic())
        timer.join()
    sent = [float(event.text) for _, event in zip(range(5), run.events(since=1), strict=False)]
    assert sorted(b - a for a, b in zip(sent, late, strict=True))[2] < 0.9  # not only when it looks by itself


def test_events_that_no_message_told_of_come_all_the_same(sparrow):
    run = sparrow.submit("t")
    later(0.5, lambda: emit(sparrow, run, message("a"), FINISH, publish=False))
    began = time.monotonic()
    assert [event.seq for event in run.events()] == [1, 2, 3]
    assert time.monotonic() - began < 10


def test_a_stream_outlives_the_supervisor(places, sparrow):
    run = sparrow.submit("t")
    events = run.events()
    next(events)
    with pytest.raises(NoSupervisor):
        emit(sparrow, run, message("last words"), die=True, publish=False)
    assert next(events).text == "last words"
    emit(sparrow, run, message("a new one"))
    assert next(events).text == "a new one"
    time.sleep(0.5)  # the subscription has found the new one
    emit(sparrow, run, FINISH)
    assert [event.seq for event in events] == [4]
    assert len(started(places)) == 2


def test_a_supervisor_that_crashed_and_stays_away_is_replaced(places, sparrow):
    run = sparrow.submit("t")
    events = run.events()
    next(events)

    def crash_and_go_on() -> None:
        kill_supervisor(places)
        eventually(lambda: len(started(places)) == 2, 30)
        emit(Client(), run, FINISH)

    later(0.1, crash_and_go_on)
    assert [event.seq for event in events] == [2]
    assert len(started(places)) == 2


def test_a_pruned_record_is_gone(places, sparrow):
    run = sparrow.submit("t")
    events = run.events()
    next(events)
    later(0.2, lambda: shutil.rmtree(places.transcript(run.id)))
    with pytest.raises(Gone, match="pruned"):
        next(events)
    other = sparrow.submit("t")
    folder = places.transcript(other.id)
    emit(sparrow, other, message("2"), message("3"), message("4"))
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "events.jsonl").write_bytes(b"".join(lines[2:]))
    with pytest.raises(Gone, match="begins with seq 3"):
        other.events(since=1)
    assert next(other.events(since=2)).seq == 3


def test_wait_gives_the_record_of_the_ended_run(sparrow):
    run = sparrow.submit("t")
    with pytest.raises(TimedOut):
        run.wait(0.2)
    later(0.3, lambda: emit(sparrow, run, FINISH))
    assert run.wait(10).status == "completed"
    assert run.wait().status == "completed"
    assert run.record().events == 2


def test_an_unknown_run_is_told_at_once(places, sparrow):
    sparrow.start()
    with pytest.raises(NoSuchRun, match="No active run with id abcd"):
        sparrow.events("abcd")
    sparrow.shutdown()
    with pytest.raises(NoSuchRun, match="No active run with id abcd"):
        sparrow.events("abcd")
    assert not sparrow.is_running()  # reading starts none


# ── Without a supervisor ─────────────────────────────────────────────────────────────────────────────────────────────


def write_run(places: Places, run: str, name: str | None, ended: bool, lines: int = 3) -> None:
    folder = places.transcript(run)
    folder.mkdir(parents=True)
    (folder / "inputs.json").write_text('{"task":"t"' + (f',"name":"{name}"' if name else "") + "}")
    text = [f'{{"type":"Message","run":"{run}","seq":{n},"ts":"","role":"r","text":"t"}}' for n in range(1, lines + 1)]
    (folder / "events.jsonl").write_text("\n".join(text) + "\n")
    if ended:
        (folder / "meta.json").write_text("{}")


def test_runs_are_found_in_the_files(places):
    a, b, c, d = (f"{head}-0000-4000-8000-000000000000" for head in ("aa000000", "aa111111", "bb000000", "cc000000"))
    write_run(places, a, "nightly", ended=True)
    write_run(places, b, "nightly", ended=True)
    write_run(places, c, None, ended=True)
    assert find_run(places, c) == find_run(places, "bb") == c
    assert find_run(places, "nightly") == b
    write_run(places, d, "aa", ended=False)
    os.utime(places.transcript(d) / "inputs.json", (0, 0))
    assert find_run(places, "aa") == d  # a whole name, where the prefix fits several
    (places.transcript(d) / "inputs.json").write_text('{"name":"nightly"}')
    os.utime(places.transcript(d) / "inputs.json", (0, 0))
    assert find_run(places, "nightly") == d  # the live one, though it is older
    with pytest.raises(AmbiguousRun, match="fits 2 runs"):
        find_run(places, "aa")
    for wrong in ("", "../x", "zz", str(uuid.uuid4())):
        with pytest.raises(NoSuchRun):
            find_run(places, wrong)


def test_a_record_is_read_and_followed_from_the_files_alone(places):
    run = str(uuid.uuid4())
    write_run(places, run, "n", ended=False)
    assert len(list(read_run(places, "n"))) == 3
    assert len(list(read_run(places, run[:8], since=2))) == 1

    def finish() -> None:
        with (places.transcript(run) / "events.jsonl").open("a") as file:
            file.write(f'{{"type":"RunFinished","run":"{run}","seq":4,"ts":"","outcome":{{"status":"completed"}}}}\n')

    later(0.3, finish)
    assert len(list(read_run(places, run, follow=True))) == 4
    with Client(start=False) as sparrow:
        assert [event.seq for event in sparrow.events(run)] == [1, 2, 3, 4]


def test_a_record_without_a_last_event_ends_all_the_same(places):
    run = str(uuid.uuid4())
    write_run(places, run, None, ended=True)
    events = places.transcript(run) / "events.jsonl"
    events.write_text('{"type":"Message","run":"r","role":"r","text":"t"}\n')  # as sparrow-cli writes it
    assert len(list(read_run(places, run, follow=True))) == 1


def test_a_part_that_has_just_been_sealed_is_not_skipped(places):
    run = str(uuid.uuid4())
    write_run(places, run, None, ended=False, lines=10)
    folder = places.transcript(run)
    (folder / "events.jsonl").rename(folder / "events.1.jsonl")
    assert len(list(read_run(places, run, since=5))) == 5
    (folder / "events.jsonl").touch()
    assert len(list(read_run(places, run, since=5))) == 5
    assert len(list(read_run(places, run, since=10))) == 0
    assert len(list(read_run(places, run))) == 10


# ── All runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_subscribe_all_gives_everything_from_now_on(sparrow):
    over, live = sparrow.submit("over"), sparrow.submit("live")
    emit(sparrow, over, FINISH)
    emit(sparrow, live, message("before"))
    stream = sparrow.subscribe_all()
    emit(sparrow, live, message("after"))
    new = sparrow.submit("new")
    emit(sparrow, new, FINISH)
    emit(sparrow, live, FINISH)
    seen = [next(stream) for _ in range(4)]
    assert {(event.run, event.seq) for event in seen} == {(live.id, 3), (new.id, 1), (new.id, 2), (live.id, 4)}


def test_subscribe_all_misses_nothing_that_no_message_told_of(places, sparrow):
    stream = sparrow.subscribe_all(types=["Message", "RunFinished"])
    first = sparrow.submit("t")
    emit(sparrow, first, message("a"), publish=False)
    assert next(stream).text == "a"
    kill_supervisor(places)
    second = sparrow.submit("t")
    emit(sparrow, second, message("b"), FINISH, publish=False)
    assert [next(stream).seq for _ in range(2)] == [2, 3]
    emit(sparrow, first, FINISH)
    assert next(stream).run == first.id


def test_subscribe_all_resumes(sparrow):
    run, over = sparrow.submit("t"), sparrow.submit("t")
    emit(sparrow, over, message("x"), FINISH)
    emit(sparrow, run, message("a"), message("b"))
    stream = sparrow.subscribe_all(since={run.id: 2, over.id: 1})
    assert {(e.run, e.seq) for e in (next(stream) for _ in range(3))} == {(run.id, 3), (over.id, 2), (over.id, 3)}
    stream = sparrow.subscribe_all(since=next(run.events(since=2)).ts)
    assert next(stream).seq == 3
    emit(sparrow, run, FINISH)
    assert next(stream).seq == 4
    with pytest.raises(Gone):
        sparrow.subscribe_all(since={str(uuid.uuid4()): 3})
    for wrong in ("yesterday", "2026-11-22T11:00:00"):
        with pytest.raises(BadRequest):
            sparrow.subscribe_all(since=wrong)


def test_subscribe_all_follows_more_runs_than_it_keeps_open(sparrow):
    stream = sparrow.subscribe_all(types=["Message"])
    runs = [sparrow.submit("t").id for _ in range(150)]
    for n in range(3):
        for run in runs:
            emit(sparrow, run, message(str(n)))
    seen = [next(stream) for _ in range(450)]
    for run in runs:
        assert [event.seq for event in seen if event.run == run] == [2, 3, 4]


# ── asyncio ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_async_client_does_the_same(places):
    async def story() -> None:
        threads = threading.active_count()
        async with AsyncClient() as sparrow:
            run = await sparrow.submit("t")
            assert (await sparrow.run(run.id[:8])).id == run.id
            everything = sparrow.subscribe_all()

            async def send(*events: dict[str, Any], **how: Any) -> None:
                await sparrow.request({"op": "x.emit", "run": run.id, "events": list(events), **how})

            async def finish() -> None:
                await asyncio.sleep(0.2)
                await send(message("a"))
                await asyncio.sleep(0.2)
                await send(FINISH, publish=False)

            with pytest.raises(TimedOut):
                await run.wait(0.1)
            task = asyncio.create_task(finish())
            waiting = asyncio.create_task(run.wait(10))
            assert [event.seq async for event in run.events()] == [1, 2, 3]
            assert (await waiting).status == "completed"
            await task
            assert [(await anext(everything)).seq for _ in range(2)] == [2, 3]
            await everything.aclose()
            many = await asyncio.gather(*[sparrow.submit("t") for _ in range(20)])
            assert len(await sparrow.list()) == 1 + len({run.id for run in many}) == 21
            with pytest.raises(NoSuchRun):
                await sparrow.get("nope")
            with pytest.raises(NoSuchRun):
                await anext(sparrow.events("nope"))
            assert threading.active_count() == threads
            assert await sparrow.shutdown() is True
            assert await sparrow.shutdown() is False
            assert not sparrow.is_running()

    asyncio.run(story())
    assert len(started(places)) == 1


def test_the_async_client_notices_a_death(places):
    async def story() -> None:
        async with AsyncClient() as sparrow:
            run = await sparrow.submit("t")
            asyncio.get_running_loop().call_later(0.3, kill_supervisor, places)
            began = time.monotonic()
            with pytest.raises(NoSupervisor, match="unknown"):
                await sparrow.request({"op": "x.hang"})
            assert time.monotonic() - began < 8  # not only when the request's time is over
            events = run.events()
            assert (await anext(events)).seq == 1
            await sparrow.request({"op": "x.emit", "run": run.id, "events": [FINISH]})
            assert [event.seq async for event in events] == [2]
        async with AsyncClient(timeout=0.3, start=False) as sparrow:
            with pytest.raises(TimedOut):
                await sparrow.request({"op": "x.hang"})
            kill_supervisor(places)
            with pytest.raises(NoSupervisor):
                await sparrow.list()

    asyncio.run(story())


def test_a_cancelled_request_does_not_answer_the_next_one(places):
    async def story() -> None:
        async with AsyncClient() as sparrow:
            run = await sparrow.submit("t")
            for _ in range(20):
                task = asyncio.create_task(sparrow.status())
                await asyncio.sleep(0.0005)
                task.cancel()
                assert (await sparrow.get(run.id)).run == run.id

    asyncio.run(story())


# ── What it costs ────────────────────────────────────────────────────────────────────────────────────────────────────


def imported(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    extra = imported("import sparrow_mp") - imported("")
    assert {name for name in extra if not name.startswith(("sparrow_mp", "__future__"))} == set()


def test_a_request_imports_nothing_that_it_does_not_need(places):
    with Client() as sparrow:
        sparrow.start()
    names = imported("import sparrow_mp\nsparrow_mp.Client().list()")
    heavy = {"asyncio", "subprocess", "logging", "tempfile", "socket", "sparrow_mp.launch", "sparrow_mp.follow"}
    assert names & heavy == set()
    assert "zmq" in names


def test_every_public_name_is_there():
    import sparrow_mp

    for name in sparrow_mp.__all__:
        assert getattr(sparrow_mp, name) is not None
    with pytest.raises(AttributeError):
        sparrow_mp.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    assert set(sparrow_mp.__all__) <= set(dir(sparrow_mp))
