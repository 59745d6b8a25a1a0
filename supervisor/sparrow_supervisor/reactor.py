"""The only loop: files and sockets become inputs, the core decides, and its effects are done here. It decides nothing."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from functools import partial

import zmq

from sparrow_mp import wire
from sparrow_mp.config import Config
from sparrow_mp.events import RunQueued
from sparrow_mp.paths import Places
from sparrow_mp.run.alive import HELD
from sparrow_mp.run.outbox import timestamp
from sparrow_supervisor.adapters_process import AdaptersProcess
from sparrow_supervisor.adoption import adopt, look_for_monitor, readopt
from sparrow_supervisor.control import Control
from sparrow_supervisor.core import effects as do
from sparrow_supervisor.core.house import House
from sparrow_supervisor.core.inputs import (
    About,
    Exited,
    Input,
    Now,
    RunInput,
    ShutdownAsked,
    Spawned,
    SpawnRefused,
    Tick,
)
from sparrow_supervisor.core.life import exit_code
from sparrow_supervisor.delivery import Delivery
from sparrow_supervisor.desk import Desk
from sparrow_supervisor.ending import Ending
from sparrow_supervisor.hub import Hub
from sparrow_supervisor.index import Index
from sparrow_supervisor.intake import Intake
from sparrow_supervisor.link import Link
from sparrow_supervisor.loop import Loop
from sparrow_supervisor.member import Member
from sparrow_supervisor.recorder import Recorder
from sparrow_supervisor.submit import Usual
from sparrow_supervisor.usage import UsageWatch
from sparrow_supervisor.zygote_client import ZygoteClient

_log = logging.getLogger(__name__)

_RETRY_S = 0.2
_PUMP_S = 0.05
_PULSE_S = 1.0
_LEAVE_LIMIT_S = 20.0
_ADAPTERS_PATIENCE_S = 5.0
_MAX_SOCKETS = 20_000


class Reactor:
    """The supervisor. ``run()`` returns when it has ended."""

    def __init__(self, places: Places, config: Config, usual: Usual, announce: Callable[[Reactor], None]) -> None:
        """Open everything. Raises StateError, OSError, sqlite3.Error, zmq.ZMQError."""
        self.places = places
        self.config = config
        self.usual = usual
        self.started_at = timestamp(time.time_ns() // 1000)
        self.members: dict[str, Member] = {}
        self.problems: list[str] = []
        self._announce = announce
        self._stop: do.Stop | None = None
        self._signals = 0
        self._tick_at: float | None = None
        self.loop = Loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
        self.adapters = AdaptersProcess(self.loop, places, config, self._adapters_ready)
        self.index = Index(places.index)
        self.recorder = Recorder(places, config.supervisor.fsync)
        self.hub = Hub(self._context, places)
        self.house = House(config.supervisor.max_runs, config.supervisor.max_queue)
        self.delivery = Delivery(self.index, self.members)
        self.intake = Intake(self.recorder, self.hub, self.tell, self._greeted, self.delivery.confirmed)
        self.zygote = ZygoteClient(places)
        self._dead_zygotes: list[ZygoteClient] = []
        self.ending = Ending(self)
        self.usage = UsageWatch(self.loop)

    # ── the loop ──

    def run(self) -> None:
        """Adopt what an earlier supervisor left, then serve until stopped."""
        self._catch_signals()
        adopt(self)
        self.loop.watch(self.zygote.fileno(), self._hear_zygote)
        self.loop.soon(self._hear_zygote)
        look_again = partial(self.loop.soon, self._hear_control)
        self._control = Control(self._context, self.places, Desk(self).decide, look_again)
        self.loop.watch(self._control.fd, self._hear_control)
        look_again()
        self.loop.later(_PULSE_S, self._pulse)
        self.loop.later(_ADAPTERS_PATIENCE_S, self._without_adapters)
        self._adapters_ready()
        self.loop.run()
        self._close()

    def _catch_signals(self) -> None:
        self._alarm, self._alarm_other = socket.socketpair()
        self._alarm.setblocking(False)
        self._alarm_other.setblocking(False)
        signal.set_wakeup_fd(self._alarm_other.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.loop.watch(self._alarm.fileno(), self._alarmed)

    def _asked_to_end(self, number: int, _: object) -> None:
        self._signals += 1
        _log.info("%s: ending", signal.Signals(number).name)

    def _alarmed(self) -> None:
        self._alarm.recv(4096)
        self.zygote.reap()
        self._dead_zygotes = [dead for dead in self._dead_zygotes if not dead.reap()]
        if self._signals:
            self.feed(ShutdownAsked(at_once=self._signals > 1))

    def _adapters_ready(self) -> None:
        """The addresses are known (or not to be had): now clients can be told."""
        if self.adapters.addresses is not None:
            self.problems = list(self.adapters.addresses.problems)
            if hasattr(self, "_control"):
                self._announce(self)

    def _without_adapters(self) -> None:
        """The runs do not wait for the adapters."""
        if self.adapters.addresses is None:
            self.problems = ["the adapters (NDJSON over TCP and the Unix socket) do not start; the log says why"]
            self._announce(self)

    def _pulse(self) -> None:
        """Once a second: what can be lost is said again."""
        self.hub.heads()
        self.delivery.repeat()
        self.loop.later(_PULSE_S, self._pulse)

    def _hear_control(self) -> None:
        if self._control.turn():
            self.loop.soon(self._hear_control)

    # ── the core ──

    @staticmethod
    def now() -> Now:
        """This moment, for the core."""
        return Now(time.monotonic(), time.time())

    def tell(self, run: str, what: RunInput) -> None:
        """Something happened to a run."""
        self.feed(About(run, what))

    def feed(self, what: Input) -> list[do.Effect]:
        """Give the core an input and do what it wants done."""
        effects = self.house.handle(what, self.now())
        for effect in effects:
            self._do(effect)
        due = self.house.next_due
        if due is not None and (self._tick_at is None or due < self._tick_at):
            self._tick_at = due
            self.loop.later(max(0.0, due - time.monotonic()), self._tick)
        return effects

    def _tick(self) -> None:
        self._tick_at = None
        self.feed(Tick())

    def _do(self, effect: do.Effect) -> None:
        match effect:
            case do.Spawn(run):
                _log.info("run %s: starting", run)
                member = self.members[run]
                self.zygote.ask(op="spawn", run=run, folder=str(member.folder), last_seq=self.recorder.open(run).seq)
                self._pump_zygote()
            case do.Tell(run, words, grace):
                _log.info("run %s: interrupting (%s), %g s of grace", run, words or "no words", grace)
                self._interrupt(self.members[run], words, grace)
            case do.KillMonitor(run):
                _log.warning("run %s: its monitor did not end it in time and is killed", run)
                self._kill_monitor(self.members[run])
            case do.Drain(run):
                self.ending.drain(self.members[run])
            case do.Save(run, fields):
                self.save(run, fields)
            case do.Finish():
                self.ending.finish(effect)
            case do.Stop():
                self._leave(effect)
            case do.Accepted(run, position):
                self._accepted(run, position)
            case do.Refused():
                pass  # the desk answers

    def save(self, run: str, fields: dict[str, object]) -> None:
        """Write new values into the index. That it cannot be written is logged: the transcripts are the truth."""
        if "asked" in fields:
            fields = {**fields, "asked": wire.encode(fields["asked"]).decode()}
        if "started" in fields:
            fields = {**fields, "started_ts": timestamp(time.time_ns() // 1000)}
        try:
            self.index.save(run, **fields)
        except sqlite3.Error as error:
            _log.error("run %s: the index cannot be written (%s); its transcript is complete all the same", run, error)

    def _accepted(self, run: str, position: int | None) -> None:
        if position is not None:
            row = self.index.row(run)
            assert row is not None
            line = self.recorder.add(run, RunQueued(task=row["task"], agent=row["agent"], position=position))
            if line is not None:
                self.hub.publish(run, "RunQueued", line, self.recorder.seq(run))
            _log.info("run %s: queued at position %d", run, position)

    # ── the zygote and the monitors ──

    def _pump_zygote(self) -> None:
        self.zygote.pump()
        if self.zygote.unsent:
            self.loop.later(_PUMP_S, self._pump_zygote)

    def _hear_zygote(self) -> None:
        for body, fd in self.zygote.receive():
            self.loop.guard(partial(self.heard_of_zygote, body, fd))  # so that one cannot take the others along
        if self.zygote.closed and self._stop is None:
            self._replace_zygote()

    def heard_of_zygote(self, body: dict[str, object], fd: int) -> None:
        """One thing that the zygote has said."""
        if "spawned" in body or "alive" in body:
            run, pid = str(body.get("spawned") or body.get("alive")), int(str(body["pid"]))
            member = self.members.get(run)
            if member is None:
                _log.warning("run %s is not known here; its monitor is killed", run)
                self.zygote.ask(op="kill", run=run)
                if fd >= 0:
                    os.close(fd)
                return
            self.meet(member, pid, fd)
            self.tell(run, Spawned(pid))
        elif "exited" in body:
            run = str(body["exited"])
            status = int(str(body["status"]))
            if run in self.members and exit_code(status) == HELD:
                look_for_monitor(self, self.members[run])  # this one was a second one; the first lives on
            elif run in self.members:
                self.tell(run, Exited(status))
            else:
                self.zygote.ask(op="release", run=run)
        elif "refused" in body:
            self.tell(str(body["refused"]), SpawnRefused(str(body["reason"])))

    def meet(self, member: Member, pid: int, pidfd: int) -> None:
        """A run's monitor is known: open its socket for it, and for it alone."""
        if member.monitor_fd >= 0:
            self.loop.unwatch(member.monitor_fd)
        member.meet(pid, pidfd)
        if member.link is not None:
            return
        listen = self._listener(member)
        look_again = partial(self.loop.soon, listen)
        try:
            member.link = Link(self._context, member.run, member.endpoint, pid, look_again)
        except zmq.ZMQError as error:
            _log.error("run %s: its socket cannot be opened (%s); its events come when it ends", member.run, error)
            return
        self.loop.watch(member.link.fd, listen)
        look_again()
        self._greeted(member)

    def _listener(self, member: Member) -> Callable[[], None]:
        def listen() -> None:
            if self.intake.turn(member):
                self.loop.soon(listen)
            elif member.stalled:
                self.loop.later(_RETRY_S, resume)

        def resume() -> None:
            member.stalled = False
            if member.link is not None:
                member.link.resend(self.recorder.seq(member.run))
                self.loop.soon(listen)

        return listen

    def _greeted(self, member: Member) -> None:
        """A run has said hello: it gets what waits for it."""
        life = self.house.lives.get(member.run)
        if life is not None and life.asked is not None and life.kill_at is not None and member.link is not None:
            grace = max(0.0, life.kill_at - time.monotonic() - 3.0)
            member.link.send(wire.frame(wire.INTERRUPT, wire.InterruptFrame(message=life.asked[1], grace=grace)))
        self.delivery.send_all(member)
        self._pump_link(member)

    def _interrupt(self, member: Member, words: str, grace: float) -> None:
        if member.link is not None:
            member.link.send(wire.frame(wire.INTERRUPT, wire.InterruptFrame(message=words, grace=grace)))
            self.loop.later(_PUMP_S, partial(self._pump_link, member))

    def _pump_link(self, member: Member) -> None:
        if member.link is not None and not member.link.pump():
            self.loop.later(_PUMP_S, partial(self._pump_link, member))

    def _kill_monitor(self, member: Member) -> None:
        if member.monitor_fd >= 0:
            try:
                signal.pidfd_send_signal(member.monitor_fd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        else:
            self.zygote.ask(op="kill", run=member.run)

    def watch_monitor(self, member: Member) -> None:
        """Its zygote is gone: its pidfd tells when it ends."""
        if member.monitor_fd >= 0:
            self.loop.watch(member.monitor_fd, partial(self._monitor_ended, member))

    def _monitor_ended(self, member: Member) -> None:
        self.loop.unwatch(member.monitor_fd)
        self.tell(member.run, Exited(None, "it ended after the zygote had died, which alone could have said how"))

    def _replace_zygote(self) -> None:
        """The zygote has died. Its runs go on, each with its monitor; a new one starts the next runs."""
        _log.error("the zygote died; a new one is started, and the runs go on")
        self.loop.unwatch(self.zygote.fileno())
        self.zygote.close()
        if not self.zygote.reap():
            self._dead_zygotes.append(self.zygote)  # its connection ended first; SIGCHLD tells when the rest has
        try:
            self.zygote = ZygoteClient(self.places)
        except OSError as error:
            _log.error("no new zygote can be had (%s); trying again", error)
            self.loop.later(_RETRY_S, self._replace_zygote)
            return
        self.loop.watch(self.zygote.fileno(), self._hear_zygote)
        readopt(self)

    # ── the supervisor's end ──

    def _leave(self, stop: do.Stop) -> None:
        self._stop = stop
        self._leave_by = time.monotonic() + _LEAVE_LIMIT_S
        self.adapters.end()
        if not stop.keep_runs:
            self.zygote.ask(op="end")
        self._leaving()

    def _leaving(self) -> None:
        """Wait for the adapters and the zygote to be gone, without waiting."""
        late = time.monotonic() > self._leave_by
        if late:
            self.adapters.kill()
        keep = self._stop is None or self._stop.keep_runs
        if (self.adapters.gone and (keep or self.zygote.closed)) or late:
            self.loop.stop()
        else:
            self.zygote.receive()
            self.loop.later(0.005, self._leaving)

    def _close(self) -> None:
        self.usage.close()
        self._control.close()
        for member in list(self.members.values()):
            member.part()
        self.hub.heads()
        self.hub.close()
        self.zygote.close()
        self.recorder.close_all()
        self.index.close()
        self._context.destroy(linger=500)
        if self._stop is not None and not self._stop.keep_runs:
            self._wait_for_zygote()
        _log.info("ended")

    def _wait_for_zygote(self) -> None:
        """The connection is closed; the process takes a moment more. The loop has stopped, so waiting hurts nobody."""
        pid = self.zygote.pid
        if pid is None:
            return
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        select.select([fd], [], [], 5.0)
        os.close(fd)
        self.zygote.reap()
