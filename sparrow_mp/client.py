"""The client library: ask a supervisor, follow what the runs say.

A client is cheap to make and connects when it is first asked for something. It is safe to use from several threads: its
requests go one after another, and each stream has a socket of its own and belongs to the thread that reads it. After a
fork the child's client connects anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sparrow_mp import connect, wire
from sparrow_mp.asking import Asker
from sparrow_mp.ears import Ears
from sparrow_mp.errors import NoSuchRun, NoSupervisor, RateLimited, ShuttingDown, TimedOut
from sparrow_mp.paths import Places, find_places, supervisor_alive

if TYPE_CHECKING:
    from sparrow_mp.events import AnyEvent, Autonomy, Decision
    from sparrow_mp.follow import Everything, RunFollow, Since

Records = list[wire.RunRecord]

_END_SECONDS = 60.0


class Client:
    """What the command line can do, from Python.

        with Client() as sparrow:
            run = sparrow.submit("make test")
            for event in run.events():
                print(event)

    ``places`` are where the supervisor's files are (default: found through the environment). With ``start`` a supervisor
    is started in the background where none runs (SPARROW_NO_START=1 forbids it), after one sentence to ``on_start``.
    ``timeout`` is how many seconds a reply may take.

    Every request raises NoSupervisor where there is none and none may be (or could be) started, or where it went away
    before it answered; TimedOut where it does not answer; and the error that the reply stands for, such as BadRequest.
    All of these are SparrowErrors. Where a run is named by ``ref``, it is an id, an unambiguous prefix of one, or a name;
    NoSuchRun and AmbiguousRun say that it is none or too many. A stream that is left before its end is closed with it, at
    the latest when nothing refers to it any more.
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
        self._asker = Asker(self.places, start=start, timeout=timeout, on_start=on_start)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect. Streams go on; a further request connects anew."""
        self._asker.close()

    # ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(
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
        timeout: float | None = None,
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
    ) -> Run:
        """Start a run of ``task``, or of the command ``argv``.

        ``budget`` is in US dollars, ``timeout`` in seconds, ``memory``, ``max_output`` and ``max_transcript`` in
        bytes; ``nice`` (0 to 19) slows it down. ``cwd`` is the current folder where it is
        not given, ``env`` (all of the run's environment) this process's, less what is not UTF-8. ``session`` is what the
        engine named in an earlier run (its `Custom` event), to go on with. Who submits faster than
        the supervisor allows waits. Raises BadRequest, NoSuchEngine, QueueFull, RateLimited (after a minute), TooLarge or
        ShuttingDown where it is refused; then there is no run.
        """
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
                return Run(self, self._asker.ask(body, connect.SubmitReply).run)
            except RateLimited as error:
                time.sleep(connect.pause_before(error, until))

    def run(self, ref: str) -> Run:
        """The run that ``ref`` means. Raises NoSuchRun or AmbiguousRun."""
        return Run(self, self.get(ref).run)

    def list(
        self, *, all: bool = False, status: str | None = None, label: str | None = None, limit: int | None = None
    ) -> Records:
        """The runs that have not ended; with ``all`` the ended ones too, at most ``limit``."""
        listing = connect.Listing(all=all, status=status, label=label, limit=limit)
        while (page := listing.next) is not None:
            try:
                listing.take(self._asker.ask(page, connect.RunsReply).runs)
            except NoSuchRun:
                if not listing.begin_anew():
                    raise
        return listing.runs

    def get(self, ref: str) -> wire.RunRecord:
        """What is known of a run now. Raises NoSuchRun or AmbiguousRun."""
        return self._asker.ask(wire.Get(run=ref), connect.RunReply).run

    def inject(
        self,
        ref: str,
        text: str | None = None,
        *,
        eof: bool = False,
        data: bytes | None = None,
        now: bool = False,
    ) -> None:
        """Hand a running run a message; or ``data``, bytes for its standard input; ``eof`` ends that input afterwards.

        ``now`` has an agent end its turn first. When it returns the message is recorded and will be delivered, once. Raises
        NotRunning where the run has ended.
        """
        self._asker.ask(connect.injection(ref, text, data, eof, now), wire.Reply)

    redirect = inject

    def interrupt(self, ref: str, message: str = "", *, grace: float | None = None, now: bool = False) -> None:
        """Ask a run to end; kill its whole process tree after ``grace`` seconds, or at once with ``now``.

        It returns before the run has ended: wait() for that. Raises NotRunning where it has ended already.
        """
        self._asker.ask(wire.Interrupt(run=ref, message=message, grace=grace, now=now), wire.Reply)

    def approve(self, ref: str, decision: Decision, id: str | None = None) -> None:
        """Answer the approval ``id`` that a run asks for (default: the one that is open). Raises NotRunning, BadRequest."""
        self._asker.ask(wire.Approve(run=ref, decision=decision, id=id), wire.Reply)

    def wait(self, ref: str, timeout: float | None = None) -> wire.RunRecord:
        """Wait until a run has ended, at most ``timeout`` seconds, and give its record. Raises TimedOut, Gone."""
        deadline = None if timeout is None else time.monotonic() + timeout
        record = self.get(ref)
        if record.status not in wire.LIVE_STATUSES:
            return record
        for _ in self._follow(self._begin(record.run, record.events), deadline):
            pass
        while (record := self.get(record.run)).status in wire.LIVE_STATUSES:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(f"run {record.run} has not ended within {timeout:g} s; it is {record.status}")
            time.sleep(0.01)  # its last event is recorded a moment before its state is
        return record

    # ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def events(self, ref: str, since: int = 0) -> Generator[AnyEvent, None, None]:
        """A run's events with seq > ``since``, then live ones as they come, until its RunFinished: no hole, no repeat.

        It outlives a supervisor's crash and restart. A run that has ended needs no supervisor. Raises NoSuchRun or
        AmbiguousRun at once; Gone where what is asked for has been pruned.
        """
        return _decoded(self.lines(ref, since))

    def lines(self, ref: str, since: int = 0) -> Generator[bytes, None, None]:
        """The same as events(), as JSON lines without their line breaks."""
        return self._follow(self._begin(self._resolve(ref), since), None)

    def subscribe_all(
        self, *, types: Collection[str] | None = None, since: Since = None
    ) -> Generator[AnyEvent, None, None]:
        """Every event of every run from this call on (of new runs from their first), without end; only ``types`` if given.

        ``since`` begins earlier: a time (a datetime, or text in RFC 3339, both with a zone), or ``{run id: seq}`` to resume
        those runs exactly. Raises BadRequest or Gone for a ``since`` that cannot be.
        """
        return _decoded(self.lines_all(types=types, since=since))

    def lines_all(self, *, types: Collection[str] | None = None, since: Since = None) -> Generator[bytes, None, None]:
        """The same as subscribe_all(), as JSON lines without their line breaks."""
        from sparrow_mp.follow import Everything

        self._asker.ensure(start=True)
        ears = Ears(self.places, "", self._revive)
        return self._follow_all(Everything(self.places, types=types, since=since), ears)

    # ── The supervisor ───────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start a supervisor where none runs, and wait until it is ready. Raises NoSupervisor where that fails."""
        if not supervisor_alive(self.places):
            self._asker.launch()

    def stop(self) -> None:
        """End every run and the supervisor: shutdown() by its other name."""
        self.shutdown()

    def is_running(self) -> bool:
        """Whether a supervisor runs here."""
        return supervisor_alive(self.places)

    def status(self) -> dict[str, Any]:
        """The supervisor's state: its version, pid, addresses and counts. Raises NoSupervisor; never starts one."""
        return self._asker.ask(wire.GetStatus(), dict[str, Any], start=False)

    def reload(self) -> wire.Reloaded:
        """Have the supervisor read its settings again: which have changed, and which of them count from its next start on.

        Raises ConfigError where something is wrong: then the earlier ones stay in force. Raises NoSupervisor; never starts one.
        """
        return self._asker.ask(wire.Reload(), wire.Reloaded, start=False)

    def shutdown(self, *, now: bool = False, keep_runs: bool = False, timeout: float | None = _END_SECONDS) -> bool:
        """Interrupt every run (``now``: kill), end the supervisor, and wait until it is gone. False where there was none.

        With ``keep_runs`` only the supervisor ends and the next one adopts the runs. Raises TimedOut where it is still
        there after ``timeout`` seconds (None: however long it takes).
        """
        leaving = connect.departure(self.places)
        if leaving is None:
            return False
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            try:
                self._asker.ask(wire.Shutdown(now=now, keep_runs=keep_runs), wire.Reply, start=False)
            except (NoSupervisor, ShuttingDown):
                pass  # it went, or goes, already
            while not leaving.is_over():
                if deadline is not None and time.monotonic() >= deadline:
                    raise leaving.too_slow(timeout)
                leaving.wait(0.1)
        finally:
            leaving.close()
            self.close()
        return True

    def request(self, body: connect.RequestLike) -> dict[str, Any]:
        """Ask anything: a request of sparrow_mp.wire, or a mapping with an ``op``. Gives the whole reply.

        Raises the error that the reply stands for where it says no.
        """
        return self._asker.ask(body, dict[str, Any])

    # ── Following ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _resolve(self, ref: str) -> str:
        """A run's id: from the supervisor where there is one, else from the files."""
        if len(ref) == 36 and self.places.transcript(ref).is_dir():
            return ref
        if supervisor_alive(self.places):
            return self.get(ref).run
        from sparrow_mp.follow import find_run

        return find_run(self.places, ref)

    def _revive(self) -> None:
        if self._may_start and not connect.start_forbidden():
            self._asker.ensure(start=True)

    def _begin(self, run: str, since: int) -> tuple[RunFollow, Ears]:
        """Subscribe first and read then, so that nothing falls between the two."""
        from sparrow_mp.follow import RunFollow

        ears = Ears(self.places, run + "/", self._revive)
        return RunFollow(self.places, run, since), ears

    def _follow(self, begun: tuple[RunFollow, Ears], deadline: float | None) -> Generator[bytes, None, None]:
        follow, ears = begun
        try:
            while not follow.done:
                lines = follow.take()
                yield from lines
                if lines or follow.done:
                    continue
                pause = follow.pause()
                if deadline is not None:
                    pause = min(pause, deadline - time.monotonic())
                    if pause <= 0:
                        raise TimedOut(f"run {follow.run} has not ended in time")
                if ears.listen(pause):
                    follow.woke()
        finally:
            follow.close()
            ears.close()

    def _follow_all(self, everything: Everything, ears: Ears) -> Generator[bytes, None, None]:
        from sparrow_mp.follow import IDLE, SOON

        try:
            pause = SOON
            while True:
                for topic, payload in ears.heard:
                    everything.heard(topic, payload)
                lines = everything.take()
                yield from lines
                if everything.news:
                    ears.listen(0)
                elif ears.listen(pause):
                    pause = IDLE
                else:
                    # Until the subscription has shown that it works, look often: it may still be on its way.
                    pause = min(2 * pause, IDLE)
                    everything.scan()
        finally:
            everything.close()
            ears.close()


class Run:
    """One run, by its id. Its methods are the client's, for this run."""

    __slots__ = ("client", "id")

    def __init__(self, client: Client, id: str) -> None:
        self.client = client
        self.id = id

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    def events(self, since: int = 0) -> Generator[AnyEvent, None, None]:
        """Its events with seq > ``since``, until its RunFinished. Raises Gone where they have been pruned."""
        return self.client.events(self.id, since)

    def lines(self, since: int = 0) -> Generator[bytes, None, None]:
        """The same as events(), as JSON lines."""
        return self.client.lines(self.id, since)

    def inject(
        self, text: str | None = None, *, eof: bool = False, data: bytes | None = None, now: bool = False
    ) -> None:
        """Hand it a message. Raises NotRunning where it has ended."""
        self.client.inject(self.id, text, eof=eof, data=data, now=now)

    redirect = inject

    def interrupt(self, message: str = "", *, grace: float | None = None, now: bool = False) -> None:
        """Ask it to end; its whole tree is killed after ``grace`` seconds, at once with ``now``. Raises NotRunning."""
        self.client.interrupt(self.id, message, grace=grace, now=now)

    def approve(self, decision: Decision, id: str | None = None) -> None:
        """Answer an approval that it asks for."""
        self.client.approve(self.id, decision, id)

    def wait(self, timeout: float | None = None) -> wire.RunRecord:
        """Wait until it has ended, at most ``timeout`` seconds (then: TimedOut), and give its record."""
        return self.client.wait(self.id, timeout)

    def record(self) -> wire.RunRecord:
        """What is known of it now."""
        return self.client.get(self.id)


def _decoded(lines: Generator[bytes, None, None]) -> Generator[AnyEvent, None, None]:
    from sparrow_mp.events import decode

    try:
        for line in lines:
            yield decode(line)
    finally:
        lines.close()
