"""The only loop: files and sockets become inputs, the core decides, and its effects are done here. It decides nothing."""

from __future__ import annotations

import logging
import os
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
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.paths import Places
from sparrow_mp.run.alive import HELD
from sparrow_mp.run.stamp import timestamp
from sparrow_supervisor import exit_info
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
from sparrow_supervisor.core.life import KILL_MARGIN_S, exit_code
from sparrow_supervisor.delivery import Delivery
from sparrow_supervisor.desk import Desk
from sparrow_supervisor.ending import Ending
from sparrow_supervisor.hub import Hub
from sparrow_supervisor.intake import Intake
from sparrow_supervisor.link import Link
from sparrow_supervisor.loop import Loop
from sparrow_supervisor.member import Member
from sparrow_supervisor.notices import Notices
from sparrow_supervisor.pruning import Pruning
from sparrow_supervisor.pulse import Pulse
from sparrow_supervisor.rebuild import open_index
from sparrow_supervisor.recorder import Recorder
from sparrow_supervisor.reloading import Reloading
from sparrow_supervisor.room import room
from sparrow_supervisor.schedule import Scheduler
from sparrow_supervisor.schedule_desk import ScheduleDesk
from sparrow_supervisor.submit import Usual
from sparrow_supervisor.systemd import NAMED, Unit, summary
from sparrow_supervisor.usage import UsageWatch
from sparrow_supervisor.warm import modules_for
from sparrow_supervisor.zygote_client import ZygoteClient
from sparrow_supervisor.zygotes import Zygotes

_log = logging.getLogger(__name__)

_RETRY_S = 0.2
_PUMP_S = 0.05
_LEAVE_LIMIT_S = 20.0
_TELL_LIMIT_S = 5.0
"""How long a supervisor that ends goes on telling of runs that have ended; the rest is told by the next one."""
_ADAPTERS_PATIENCE_S = 5.0
_MAX_SOCKETS = 20_000
_REAPED_WITHIN_S = 1.0


class Reactor:
    """The supervisor. ``run()`` returns when it has ended."""

    def __init__(
        self,
        places: Places,
        config: Config,
        usual: Usual,
        announce: Callable[[Reactor], None],
        unit: Unit | None = None,
    ) -> None:
        """Open everything; ``unit`` where systemd has started it. Raises StateError, OSError, sqlite3.Error, zmq.ZMQError."""
        self.unit = unit
        self.places = places
        self.config = config
        self.usual = usual
        self.started_at = timestamp(time.time_ns() // 1000)
        self.members: dict[str, Member] = {}
        self.left_alone: dict[str, str] = {}
        """The live runs that could not be taken over, and why."""
        self._adapters_problems: list[str] = []
        self._owed: dict[str, dict[str, object]] = {}
        self._announce = announce
        self._stop: do.Stop | None = None
        self._signals = 0
        self.pulse = Pulse(self)
        self._hung_up = False
        self._asked_why = False
        self._tick_at: float | None = None
        self.loop = Loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
        self.adapters = AdaptersProcess(self.loop, places, config, self._adapters_ready)
        self.recorder = Recorder(places, config.supervisor.fsync, config.supervisor.part_bytes)
        self.index = open_index(places, self.recorder.settle, unit.goes_on if unit is not None else lambda: None)
        self.room = room()
        self.hub = Hub(self._context, places, self.loop)
        self.house = House(self.most_runs, config.supervisor.max_queue)
        self.delivery = Delivery(self.index, self.members)
        self._desk = Desk(self)
        self.notices = Notices(self, self._desk.look_up)
        self.intake = Intake(
            self.recorder, self.hub, self.tell, self._greeted, self.delivery.confirmed, self.notices.look
        )
        self.zygotes = Zygotes(self.loop, places, self.heard_of_zygote, partial(readopt, self), unit=unit is not None)
        self.ending = Ending(self)
        self.usage = UsageWatch(self.loop, self._monitors)
        self.schedule = Scheduler(self, self._desk.submit_job)
        self._desk.serve(ScheduleDesk(self, self.schedule).ops)

    @property
    def most_runs(self) -> int:
        """How many runs may be alive at once: as the configuration says, and as there are descriptors for."""
        return min(self.config.supervisor.max_runs or self.room.runs, self.room.runs)

    # ── the loop ──

    def run(self) -> None:
        """Adopt what an earlier supervisor left, then serve until stopped."""
        self.settings = Reloading(self)
        self._catch_signals()
        adopt(self)
        self.notices.begin()
        self.zygotes.attend()
        look_again = partial(self.loop.soon, self._hear_control)
        self._control = Control(self._context, self.places, self.loop, self._desk.decide, look_again)
        self.loop.watch(self._control.fd, self._hear_control)
        look_again()
        self.pulse.begin()
        self._pruning = Pruning(self)
        self.schedule.begin()
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
        signal.signal(signal.SIGHUP, self._asked_to_reload)
        self.loop.watch(self._alarm.fileno(), self._alarmed)

    def _asked_to_end(self, number: int, _: object) -> None:
        self._signals += 1
        _log.info("%s: ending", signal.Signals(number).name)

    def _asked_to_reload(self, *_: object) -> None:
        self._hung_up = True

    def _alarmed(self) -> None:
        self._alarm.recv(4096)
        self.zygotes.reap()
        if self._hung_up:
            self._hung_up = False
            self.settings.try_reload("SIGHUP")
        if self._signals == 1 and self.unit is not None:
            if not self._asked_why:
                self._asked_why = True
                self.unit.ask_why(self.loop, self._end_unit)
        elif self._signals:
            self.feed(ShutdownAsked(at_once=self._signals > 1))

    def _end_unit(self, keep_runs: bool) -> None:
        """systemd ends us, and has said whether the runs are to live on."""
        if self._stop is None:
            _log.info("systemd ends the supervisor%s", "; the runs go on" if keep_runs else " and the runs")
            assert self.unit is not None
            self.unit.stopping()
            self.feed(ShutdownAsked(keep_runs=keep_runs))

    def summary(self) -> str:
        """What is running, in a line."""
        waiting = sum(life.phase == "queued" for life in self.house.lives.values())
        running = [run for run, life in self.house.lives.items() if life.phase != "queued"]
        return summary((self._name(run) for run in running[:NAMED]), len(running), waiting)

    def _name(self, run: str) -> str:
        row = self.index.row(run)
        return str((row["name"] if row is not None else None) or run[:8])

    def _adapters_ready(self) -> None:
        """The addresses are known (or not to be had): now clients can be told."""
        if self.adapters.addresses is not None:
            self._adapters_problems = list(self.adapters.addresses.problems)
            if hasattr(self, "_control"):
                self._announce(self)

    def announce(self) -> None:
        """Say again what was said when everything was ready; where that is not so yet, it will be said."""
        if self.adapters.addresses is not None:
            self._announce(self)

    def _without_adapters(self) -> None:
        """The runs do not wait for the adapters."""
        if self.adapters.addresses is None:
            self._adapters_problems = [
                "the adapters (NDJSON over TCP and the Unix socket) do not start; the log says why"
            ]
            self._announce(self)

    def problems(self) -> list[str]:
        """What is not as it should be, a sentence each, with what becomes of it."""
        foreign = [m for m in self.members.values() if m.protocol != wire.PROTOCOL]
        strange = [wire.foreign(member.run, member.protocol) for member in foreign]
        strange += [self.why_left_alone(run) for run in self.left_alone]
        return [
            *self.settings.problems,
            *self._adapters_problems,
            *strange,
            *self.zygotes.problems,
            *self.room.problems,
            *self.schedule.problems,
        ]

    def why_left_alone(self, run: str) -> str:
        """What became of a run that could not be taken over, and what can be done."""
        return (
            f"run {run[:8]} could not be taken over ({self.left_alone[run]}) and goes on unattended: end the supervisor with"
            " `sparrow shutdown --keep-runs`, run `sparrow doctor --repair`, and start it again; `sparrow shutdown` ends the run"
        )

    def save_owed(self) -> None:
        """Try again to write what could not be written into the index."""
        for run in list(self._owed):
            self.save(run, {})

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
                self.spawn(member)
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

    def save(self, run: str, fields: dict[str, object]) -> bool:
        """Write new values into the index. False where it cannot be written: they are kept, and tried again each second."""
        if "asked" in fields:
            fields = {**fields, "asked": wire.encode(fields["asked"]).decode()}
        if "started" in fields:
            fields = {**fields, "started_ts": timestamp(time.time_ns() // 1000)}
        owed = {**self._owed.get(run, {}), **fields}
        try:
            self.index.save(run, **owed)
        except sqlite3.Error as error:
            if run not in self._owed:
                _log.error("run %s: the index cannot be written (%s); it is tried again", run, error)
            self._owed[run] = owed
            return False
        self._owed.pop(run, None)
        return True

    def _accepted(self, run: str, position: int | None) -> None:
        if position is not None:
            row = self.index.row(run)
            assert row is not None
            line = self.recorder.add(run, RunQueued(task=row["task"], agent=row["agent"], position=position))
            if line is not None:
                self.hub.publish(run, "RunQueued", line, self.recorder.seq(run))
            self.recorder.rest(run)
            _log.info("run %s: queued at position %d; %d may be alive at once", run, position, self.most_runs)

    # ── the zygote and the monitors ──

    def spawn(self, member: Member) -> None:
        """Have a zygote fork its monitor. It is idempotent."""
        sequence = self.recorder.open(member.run).seq
        if ARMED:
            reach("spawn.due")
        modules = modules_for(self.config, member.engine)
        member.asked = self.zygotes.spawn(
            member.asked, modules, run=member.run, folder=str(member.folder), last_seq=sequence
        )
        if ARMED:
            reach("spawn.asked")

    def heard_of_zygote(self, zygote: ZygoteClient, body: dict[str, object], fd: int) -> None:
        """One thing that a zygote has said."""
        if "spawned" in body or "alive" in body:
            run, pid = str(body.get("spawned") or body.get("alive")), int(str(body["pid"]))
            member = self.members.get(run)
            if member is None:
                self._disown(zygote, run)
                if fd >= 0:
                    os.close(fd)
                return
            if ARMED:
                reach("spawn.heard")
            self.meet(member, pid, fd, zygote)
            self.tell(run, Spawned(pid))
            if ARMED:
                reach("spawn.met")
        elif "exited" in body:
            run = str(body["exited"])
            if ARMED:
                reach("exit.heard")
            status = int(str(body["status"]))
            if run in self.members and exit_code(status) == HELD:
                look_for_monitor(self, self.members[run])  # this one was a second one; the first lives on
            elif run in self.members:
                left = body.get("left")
                self.tell(run, Exited(status, left=tuple(left) if isinstance(left, list) else None))
            else:
                zygote.ask(op="release", run=run)
        elif "strays" in body:
            zygote.strays = (
                [pid for pid in left if isinstance(pid, int)] if isinstance(left := body["strays"], list) else []
            )
        elif "refused" in body:
            self.tell(str(body["refused"]), SpawnRefused(str(body["reason"])))

    def _disown(self, zygote: ZygoteClient, run: str) -> None:
        """A zygote has a run that is not ours: one that has ended for us, or one that could not be taken over."""
        row = self.index.row(run)
        if (row is None or row["status"] in wire.LIVE_STATUSES) and self.places.transcript(run).exists():
            self.left_alone.setdefault(run, "its record cannot be read")
        else:
            _log.warning("run %s is not known here; its monitor is killed", run)
            zygote.ask(op="kill", run=run)

    def meet(self, member: Member, pid: int, pidfd: int, zygote: ZygoteClient | None) -> None:
        """A run's monitor is known: open its socket for it, and for it alone. Without a zygote its pidfd tells its end."""
        if member.monitor_fd >= 0:
            self.loop.unwatch(member.monitor_fd)
        member.meet(pid, pidfd, zygote)
        if zygote is None:
            self.orphan(member)
        if member.link is not None and member.link.monitor_pid != pid:
            self.loop.unwatch(member.link.fd)  # it admits another one, which was only the second to come
            member.link.close()
            member.link = None
        if member.link is None:
            self._open_link(member, pid)
        self.pulse.hold_floods_back()

    def _open_link(self, member: Member, pid: int) -> None:
        heard = self._listener(member)
        look_again = partial(self.loop.soon, heard)
        try:
            member.link = Link(self._context, member.run, member.endpoint, pid, look_again)
        except zmq.ZMQError as error:
            _log.error("run %s: its socket cannot be opened (%s); its events come when it ends", member.run, error)
            return
        self.loop.watch(member.link.fd, heard)
        look_again()
        self._greeted(member)

    def _listener(self, member: Member) -> Callable[[], None]:
        """What is to be called where a run's socket says that there is something."""

        def listen() -> None:
            if self.intake.turn(member):
                if member.hungry:
                    self.pulse.flooded_by(member)
                (self.loop.flooded if member.hungry else self.loop.soon)(listen)
            elif member.stalled:
                self.loop.later(_RETRY_S, resume)

        def heard() -> None:
            if not member.hungry:
                listen()

        def resume() -> None:
            member.stalled = False
            if member.link is not None:
                member.link.resend(self.recorder.seq(member.run))
                self.loop.soon(listen)

        return heard

    def _greeted(self, member: Member) -> None:
        """A run has said hello: it gets what waits for it."""
        life = self.house.lives.get(member.run)
        if life is not None and life.asked is not None and life.kill_at is not None and member.link is not None:
            grace = max(0.0, life.kill_at - time.monotonic() - KILL_MARGIN_S)
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
            self.zygotes.tell_all(op="kill", run=member.run)

    def _monitors(self) -> dict[str, int]:
        """The pids of the live runs' monitors."""
        return {run: member.monitor_pid for run, member in self.members.items() if member.monitor_pid is not None}

    def orphan(self, member: Member) -> None:
        """Its zygote has died, its monitor is known: from now on the pidfd tells when that ends."""
        member.zygote = None
        self.loop.watch(member.monitor_fd, partial(self._orphan_ended, member))

    def _orphan_ended(self, member: Member) -> None:
        self.loop.unwatch(member.monitor_fd)
        self._inquire(member, time.monotonic() + _REAPED_WITHIN_S)

    def _inquire(self, member: Member, until: float) -> None:
        """Nobody here is its parent: the kernel may say how it ended, once somebody has reaped it."""
        status = exit_info.wait_status(member.monitor_fd)
        if status is None and time.monotonic() < until:
            self.loop.later(_PUMP_S, partial(self._inquire, member, until))
        else:
            account = "it ended after the zygote had died, and the kernel does not say how"
            self.tell(member.run, Exited(status, account))

    # ── the supervisor's end ──

    def _leave(self, stop: do.Stop) -> None:
        self._stop = stop
        self._leave_by = time.monotonic() + _LEAVE_LIMIT_S
        self._tell_until = time.monotonic() + _TELL_LIMIT_S
        self.adapters.end()
        if self.unit is not None:
            self.unit.stopping()
            if stop.keep_runs and not self._asked_why:
                self.unit.hold_runs()
        for run in () if stop.keep_runs else self.left_alone:
            self.zygotes.tell_all(op="kill", run=run)
        self.zygotes.leave(end=not stop.keep_runs)
        self._leaving()

    def _leaving(self) -> None:
        """Wait for the adapters and the zygote to be gone, without waiting."""
        late = time.monotonic() > self._leave_by
        if not self.notices.busy or time.monotonic() > self._tell_until:
            self.notices.end()
        if late:
            self.adapters.kill()
        keep = self._stop is None or self._stop.keep_runs
        held = self.unit is None or self.unit.held
        if (self.adapters.gone and self.notices.gone and held and (keep or self.zygotes.gone)) or late:
            self.loop.stop()
        else:
            self.loop.later(0.005, self._leaving)

    def _close(self) -> None:
        self.schedule.close()
        self._control.close()
        for member in list(self.members.values()):
            member.part()
        self.hub.heads()
        self.hub.close()
        self.zygotes.close()
        self.recorder.close_all()
        self.index.close()
        self._context.destroy(linger=500)
        if self._stop is not None and not self._stop.keep_runs:
            self.zygotes.wait()
        _log.info("ended")
