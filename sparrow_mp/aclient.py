"""The client library for asyncio: the same as client.py, with ``await``. It uses no threads.

Records are read from their files in between: from the page cache, at most 256 KiB at a time.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

import zmq
import zmq.asyncio

from sparrow_mp import connect, wire
from sparrow_mp.asking import ATTEMPTS, Lost
from sparrow_mp.ears import MAX_AT_ONCE, Caretaker, milliseconds
from sparrow_mp.errors import NoSuchRun, NoSupervisor, RateLimited, ShuttingDown, TimedOut
from sparrow_mp.events import AnyEvent, Autonomy, Decision, decode
from sparrow_mp.follow import IDLE, SOON, Everything, RunFollow, Since, find_run
from sparrow_mp.launch import START_SECONDS, Launch
from sparrow_mp.paths import Places, find_places, supervisor_alive

_T = TypeVar("_T")
Records = list[wire.RunRecord]

_END_SECONDS = 60.0


class AsyncClient:
    """What :class:`sparrow_mp.Client` is, for asyncio. One belongs to one event loop; any of its tasks may use it.

        async with AsyncClient() as sparrow:
            run = await sparrow.submit("make test")
            async for event in run.events():
                print(event)

    Its arguments and errors are those of Client. A stream that you leave before its end is closed by ``aclose()``, by the
    loop where you do not.
    """

    def __init__(
        self,
        *,
        places: Places | None = None,
        start: bool = True,
        timeout: float = 10.0,
        on_start: Callable[[str], None] | None = None,
    ) -> None:
        self.places = places or find_places()
        self._may_start = start
        self._asker = _Asker(self.places, start=start, timeout=timeout, on_start=on_start)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect. Streams go on; a further request connects anew."""
        self._asker.close()

    # ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def submit(
        self,
        task: str = "",
        *,
        engine: str | None = None,
        argv: Sequence[str] | None = None,
        agent: str | None = None,
        autonomy: Autonomy | None = None,
        budget: float | None = None,
        name: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the run's, not this call's
        memory: int | None = None,
        max_output: int | None = None,
        max_transcript: int | None = None,
        max_processes: int | None = None,
        nice: int | None = None,
        priority: int | None = None,
        labels: Sequence[str] | None = None,
        stdin: Literal["pipe", "null"] = "pipe",
        interpreter: str | None = None,
        session: str | None = None,
    ) -> AsyncRun:
        """Start a run, as Client.submit() does: ``budget`` in US dollars, ``timeout`` in seconds, ``memory`` in bytes."""
        body = connect.submission(
            task,
            engine=engine,
            argv=argv,
            agent=agent,
            autonomy=autonomy,
            budget=budget,
            name=name,
            cwd=cwd,
            env=env,
            timeout=timeout,
            memory=memory,
            max_output=max_output,
            max_transcript=max_transcript,
            max_processes=max_processes,
            nice=nice,
            priority=priority,
            labels=labels,
            stdin=stdin,
            interpreter=interpreter,
            session=session,
        )
        until = time.monotonic() + connect.PATIENCE_S
        while True:
            try:
                return AsyncRun(self, (await self._asker.ask(body, connect.SubmitReply)).run)
            except RateLimited as error:
                await asyncio.sleep(connect.pause_before(error, until))  # the supervisor has said when to come again

    async def run(self, ref: str) -> AsyncRun:
        """The run that ``ref`` means. Raises NoSuchRun or AmbiguousRun."""
        return AsyncRun(self, (await self.get(ref)).run)

    async def list(
        self, *, all: bool = False, status: str | None = None, label: str | None = None, limit: int | None = None
    ) -> Records:
        """The runs that have not ended; with ``all`` the ended ones too, at most ``limit``."""
        listing = connect.Listing(all=all, status=status, label=label, limit=limit)
        while (page := listing.next) is not None:
            try:
                listing.take((await self._asker.ask(page, connect.RunsReply)).runs)
            except NoSuchRun:
                if not listing.begin_anew():
                    raise
        return listing.runs

    async def get(self, ref: str) -> wire.RunRecord:
        """What is known of a run now. Raises NoSuchRun or AmbiguousRun."""
        return (await self._asker.ask(wire.Get(run=ref), connect.RunReply)).run

    async def inject(
        self,
        ref: str,
        text: str | None = None,
        *,
        eof: bool = False,
        data: bytes | None = None,
        now: bool = False,
    ) -> None:
        """Hand a running run a message, as Client.inject() does. Raises NotRunning where the run has ended."""
        await self._asker.ask(connect.injection(ref, text, data, eof, now), wire.Reply)

    redirect = inject

    async def interrupt(self, ref: str, message: str = "", *, grace: float | None = None, now: bool = False) -> None:
        """Ask a run to end; kill its tree after ``grace`` seconds, or at once with ``now``. Raises NotRunning."""
        await self._asker.ask(wire.Interrupt(run=ref, message=message, grace=grace, now=now), wire.Reply)

    async def approve(self, ref: str, decision: Decision, id: str | None = None) -> None:
        """Answer the approval ``id`` that a run asks for (default: the one that is open). Raises NotRunning, BadRequest."""
        await self._asker.ask(wire.Approve(run=ref, decision=decision, id=id), wire.Reply)

    async def wait(self, ref: str, timeout: float | None = None) -> wire.RunRecord:  # noqa: ASYNC109  # as in Client
        """Wait until a run has ended, at most ``timeout`` seconds, and give its record. Raises TimedOut, Gone."""
        deadline = None if timeout is None else time.monotonic() + timeout
        record = await self.get(ref)
        if record.status not in wire.LIVE_STATUSES:
            return record
        async for _ in self._follow(record.run, record.events, deadline):
            pass
        while (record := await self.get(record.run)).status in wire.LIVE_STATUSES:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(f"run {record.run} has not ended within {timeout:g} s; it is {record.status}")
            await asyncio.sleep(0.01)  # its last event is recorded a moment before its state is
        return record

    # ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def events(self, ref: str, since: int = 0) -> AsyncGenerator[AnyEvent, None]:
        """A run's events with seq > ``since`` until its RunFinished, as Client.events(); errors come with the first one."""
        async for line in self.lines(ref, since):
            yield decode(line)

    async def lines(self, ref: str, since: int = 0) -> AsyncGenerator[bytes, None]:
        """The same as events(), as JSON lines without their line breaks."""
        async for line in self._follow(await self._resolve(ref), since, None):
            yield line

    def subscribe_all(
        self, *, types: Collection[str] | None = None, since: Since = None
    ) -> AsyncGenerator[AnyEvent, None]:
        """Every event of every run from this call on, without end, as Client.subscribe_all()."""
        return _decoded(self.lines_all(types=types, since=since))

    def lines_all(self, *, types: Collection[str] | None = None, since: Since = None) -> AsyncGenerator[bytes, None]:
        """The same as subscribe_all(), as JSON lines without their line breaks."""
        ears = _Ears(self.places, "", self._revive)
        return self._follow_all(Everything(self.places, types=types, since=since), ears)

    # ── The supervisor ───────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Start a supervisor where none runs, and wait until it is ready. Raises NoSupervisor where that fails."""
        if not supervisor_alive(self.places):
            await self._asker.launch()

    async def stop(self) -> None:
        """End every run and the supervisor: shutdown() by its other name."""
        await self.shutdown()

    def is_running(self) -> bool:
        """Whether a supervisor runs here."""
        return supervisor_alive(self.places)

    async def status(self) -> dict[str, Any]:
        """The supervisor's state: its version, pid, addresses and counts. Raises NoSupervisor; never starts one."""
        return await self._asker.ask(wire.GetStatus(), dict[str, Any], start=False)

    async def reload(self) -> wire.Reloaded:
        """Have the supervisor read its settings again: which have changed, and which of them count from its next start on.

        Raises ConfigError where something is wrong: then the earlier ones stay in force. Raises NoSupervisor; never starts one.
        """
        return await self._asker.ask(wire.Reload(), wire.Reloaded, start=False)

    async def shutdown(
        self,
        *,
        now: bool = False,
        keep_runs: bool = False,
        timeout: float | None = _END_SECONDS,  # noqa: ASYNC109  # as in Client
    ) -> bool:
        """End every run and the supervisor, and wait until it is gone, as Client.shutdown(). Raises TimedOut."""
        leaving = connect.departure(self.places)
        if leaving is None:
            return False
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            try:
                await self._asker.ask(wire.Shutdown(now=now, keep_runs=keep_runs), wire.Reply, start=False)
            except (NoSupervisor, ShuttingDown):
                pass  # it went, or goes, already
            while not leaving.is_over():
                if deadline is not None and time.monotonic() >= deadline:
                    raise leaving.too_slow(timeout)
                await _readable(leaving.fd, 0.1)
        finally:
            leaving.close()
            self.close()
        return True

    async def request(self, body: connect.RequestLike) -> dict[str, Any]:
        """Ask anything: a request of sparrow_mp.wire, or a mapping with an ``op``. Gives the whole reply."""
        return await self._asker.ask(body, dict[str, Any])

    # ── Following ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _resolve(self, ref: str) -> str:
        """A run's id: from the supervisor where there is one, else from the files."""
        if len(ref) == 36 and self.places.transcript(ref).is_dir():
            return ref
        if supervisor_alive(self.places):
            return (await self.get(ref)).run
        return find_run(self.places, ref)

    async def _revive(self) -> None:
        if self._may_start and not connect.start_forbidden():
            await self._asker.ensure(start=True)

    async def _follow(self, run: str, since: int, deadline: float | None) -> AsyncIterator[bytes]:
        # Subscribed first and read then, so that nothing falls between the two.
        ears = _Ears(self.places, run + "/", self._revive)
        try:
            follow = RunFollow(self.places, run, since)
            try:
                while not follow.done:
                    lines = follow.take()
                    for line in lines:
                        yield line
                    if lines or follow.done:
                        continue
                    pause = follow.pause()
                    if deadline is not None:
                        pause = min(pause, deadline - time.monotonic())
                        if pause <= 0:
                            raise TimedOut(f"run {run} has not ended in time")
                    if await ears.listen(pause):
                        follow.woke()
            finally:
                follow.close()
        finally:
            ears.close()

    async def _follow_all(self, everything: Everything, ears: _Ears) -> AsyncGenerator[bytes, None]:
        try:
            await self._asker.ensure(start=True)
            pause = SOON
            while True:
                for topic, payload in ears.heard:
                    everything.heard(topic, payload)
                for line in everything.take():
                    yield line
                if everything.news:
                    await ears.listen(0)
                elif await ears.listen(pause):
                    pause = IDLE
                else:
                    # Until the subscription has shown that it works, look often: it may still be on its way.
                    pause = min(2 * pause, IDLE)
                    everything.scan()
        finally:
            everything.close()
            ears.close()


class AsyncRun:
    """One run, by its id. Its methods are the client's, for this run."""

    __slots__ = ("client", "id")

    def __init__(self, client: AsyncClient, id: str) -> None:
        self.client = client
        self.id = id

    def __repr__(self) -> str:
        return f"AsyncRun({self.id!r})"

    def events(self, since: int = 0) -> AsyncGenerator[AnyEvent, None]:
        """Its events with seq > ``since``, until its RunFinished. Raises Gone where they have been pruned."""
        return self.client.events(self.id, since)

    def lines(self, since: int = 0) -> AsyncGenerator[bytes, None]:
        """The same as events(), as JSON lines."""
        return self.client.lines(self.id, since)

    async def inject(
        self, text: str | None = None, *, eof: bool = False, data: bytes | None = None, now: bool = False
    ) -> None:
        """Hand it a message. Raises NotRunning where it has ended."""
        await self.client.inject(self.id, text, eof=eof, data=data, now=now)

    redirect = inject

    async def interrupt(self, message: str = "", *, grace: float | None = None, now: bool = False) -> None:
        """Ask it to end; its whole tree is killed after ``grace`` seconds, at once with ``now``. Raises NotRunning."""
        await self.client.interrupt(self.id, message, grace=grace, now=now)

    async def approve(self, decision: Decision, id: str | None = None) -> None:
        """Answer an approval that it asks for."""
        await self.client.approve(self.id, decision, id)

    async def wait(self, timeout: float | None = None) -> wire.RunRecord:  # noqa: ASYNC109  # as in Run
        """Wait until it has ended, at most ``timeout`` seconds (then: TimedOut), and give its record."""
        return await self.client.wait(self.id, timeout)

    async def record(self) -> wire.RunRecord:
        """What is known of it now."""
        return await self.client.get(self.id)


class _Asker:
    """asking.Asker for asyncio: a connection a request, so that tasks do not wait for one another."""

    def __init__(self, places: Places, *, start: bool, timeout: float, on_start: Callable[[str], None] | None) -> None:
        self._places = places
        self._may_start = start
        self._timeout = timeout
        self._on_start = on_start
        self._idle: list[zmq.asyncio.Socket] = []

    def close(self) -> None:
        """Disconnect."""
        while self._idle:
            self._idle.pop().close()

    async def ask(self, body: connect.RequestLike, kind: type[_T], *, start: bool = True) -> _T:
        return connect.read_reply(await self._exchange(body, start), kind)

    async def _exchange(self, body: connect.RequestLike, start: bool) -> bytes:
        """Send a request and give the reply's bytes; a request that surely did not arrive is sent again."""
        op = connect.op_of(body)
        encoded = connect.encode_request(body)
        again = ATTEMPTS - 1 if connect.may_repeat(body) else 0
        untaken, until = 0, time.monotonic() + self._timeout
        while True:
            await self.ensure(start)
            try:
                return await self._try(encoded, op)
            except Lost as lost:
                if lost.sent and not again:
                    raise connect.died_within(op) from None
                if lost.sent:
                    again -= 1
                    await self._await_return(start)
                    continue
                untaken += 1
                if untaken >= ATTEMPTS and time.monotonic() > until:
                    raise connect.never_taken(op, self._places) from None

    async def _try(self, encoded: bytes, op: str) -> bytes:
        """One attempt, on a connection that does not come back by itself: so it is known what was lost."""
        deadline = time.monotonic() + self._timeout
        socket = await self._connected(deadline, op)
        try:
            try:
                await socket.send_multipart([b"", encoded], zmq.DONTWAIT)
            except zmq.Again:
                raise Lost(sent=False) from None
            while not await _polled(socket, min(connect.SLICE, deadline - time.monotonic()), zmq.POLLIN):
                if not _can_send(socket) or not supervisor_alive(self._places):
                    if await _polled(socket, 0, zmq.POLLIN):
                        break
                    raise Lost(sent=True)
                if time.monotonic() >= deadline:
                    raise connect.no_answer(op, self._timeout, self._places, sent=True)
            reply = (await socket.recv_multipart())[-1]
        except BaseException:  # whatever it is goes on up, once nothing is left open
            socket.close()  # a late reply must not answer another request
            raise
        self._idle.append(socket)
        return reply

    async def _connected(self, deadline: float, op: str) -> zmq.asyncio.Socket:
        """A socket whose connection stands. A supervisor that is there but not ready yet is waited for."""
        while self._idle:
            socket = self._idle.pop()
            if _can_send(socket):
                return socket
            socket.close()
        pause = 0.05
        while True:
            socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
            try:
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.IMMEDIATE, 1)  # takes a request only when there is a connection
                socket.setsockopt(zmq.RECONNECT_IVL, -1)  # and never hands it to another supervisor
                socket.connect(connect.addresses(self._places).control)
                if await _polled(socket, min(pause, deadline - time.monotonic()), zmq.POLLOUT):
                    return socket
            except BaseException:  # whatever it is goes on up, once nothing is left open
                socket.close()
                raise
            socket.close()
            if not supervisor_alive(self._places):
                raise Lost(sent=False)
            if time.monotonic() >= deadline:
                raise connect.no_answer(op, self._timeout, self._places, sent=False)
            pause = min(2 * pause, 1.0)

    async def ensure(self, start: bool) -> None:
        """See that there is a supervisor. Raises NoSupervisor where there is none and none may be started."""
        if supervisor_alive(self._places):
            return
        if not (start and self._may_start):
            raise connect.no_supervisor()
        await self.launch()

    async def launch(self) -> None:
        """Start a supervisor, or find that somebody else has."""
        launch = Launch(self._places, self._on_start)
        deadline = time.monotonic() + START_SECONDS
        while True:
            if not await _readable(launch.fd, deadline - time.monotonic()):
                raise launch.give_up()
            if launch.read():
                break
        launch.finish()

    async def _await_return(self, start: bool) -> None:
        """Where none may be started, give one that crashed a second to be restarted by whoever looks after it."""
        end = time.monotonic() + 1.0
        while not (start and self._may_start) and not supervisor_alive(self._places) and time.monotonic() < end:  # noqa: ASYNC110  # another process is waited for
            await asyncio.sleep(0.05)  # another process is starting, and nothing tells when it has


class _Ears:
    """ears.Ears for asyncio."""

    def __init__(self, places: Places, topic: str, revive: Callable[[], Any]) -> None:
        self._topic = topic.encode()
        self._caretaker = Caretaker(places)
        self._revive = revive
        self._socket = self._subscribe()
        self.heard: list[tuple[bytes, bytes]] = []

    async def listen(self, seconds: float) -> bool:
        """Wait for a message at most so long, and take those that are there into ``heard``. False where there is none."""
        self.heard = []
        if not await _polled(self._socket, seconds, zmq.POLLIN):
            if seconds >= 0.5:
                await self._look_after()
            return False
        for _ in range(MAX_AT_ONCE):
            try:
                frames = await self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            if len(frames) == 2:
                self.heard.append((frames[0], frames[1]))
        return True

    def close(self) -> None:
        self._socket.close()

    def _subscribe(self) -> zmq.asyncio.Socket:
        socket = zmq.asyncio.Context.instance().socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, self._topic)
        socket.connect(self._caretaker.at.events)
        return socket

    async def _look_after(self) -> None:
        if self._caretaker.moved():
            self._socket.close()
            self._socket = self._subscribe()
        if self._caretaker.is_missed():
            await self._revive()


async def _decoded(lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[AnyEvent, None]:
    try:
        async for line in lines:
            yield decode(line)
    finally:
        await lines.aclose()


async def _readable(fd: int, seconds: float) -> bool:
    """Wait until a descriptor is readable, at most so long; without a descriptor only the time passes."""
    if fd < 0:
        await asyncio.sleep(min(seconds, 0.02))  # no pidfd to wait for: look again soon
        return False
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), max(0.0, seconds))
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True


async def _polled(socket: zmq.asyncio.Socket, seconds: float, event: int) -> bool:
    """Wait for an event of a socket at most so long."""
    return bool(await socket.poll(milliseconds(seconds), event))  # type: ignore[call-arg]  # pyzmq's stub leaves it out


def _can_send(socket: zmq.asyncio.Socket) -> bool:
    """Whether its connection stands."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)
