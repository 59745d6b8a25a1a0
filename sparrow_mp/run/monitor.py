"""The monitor: what watches over one run, from its own process, for the whole of the run's life.

It leads the run's session, is the subreaper of everything that the engine starts, holds the pipes and the PAIR socket,
turns what is printed into ``Output``, and at the end sees the whole tree gone before it reports.
It outlives a supervisor: it keeps the run's limits and grace period by its own clock, and its outbox keeps what cannot be told
just now.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import NoReturn

import msgspec
from setproctitle import setproctitle

from sparrow_mp import wire
from sparrow_mp.events import AnyEvent, Custom, Output, RunStarted
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.regular import write_regular
from sparrow_mp.run import alive, cgroup, cgroup_limits
from sparrow_mp.run.limits import Breach, Limits, out_of_memory, too_many_tasks
from sparrow_mp.run.meter import measure
from sparrow_mp.run.orders import Orders
from sparrow_mp.run.outbox import Outbox
from sparrow_mp.run.ready import Ready
from sparrow_mp.run.tree import become_subreaper, children, end_tree, signal_tree
from sparrow_mp.run.uplink import Uplink

_log = logging.getLogger(__name__)

LEFT = 76
"""The exit code of a monitor that could not end all of its tree."""
_RETRY_S = 0.002
_LONGEST_WAIT_S = 3600.0
"""The kernel takes no more than 24 days."""
_TREE_LIMIT_S = 3.0
"""How long it tries to end its tree, before it leaves what is left to the zygote: less than it is given (KILL_MARGIN_S)."""
_OFTEN_S = 0.002
_GATHER_S = 0.0005
"""Who says something more often than that is heard for so long at a time; the first thing after a quiet time goes out at once."""
_LEFTOVER_GRACE_S = 0.3
_LEFTOVER_LOOK_S = 0.02
_APPEND_AT_ONCE = 2000
_PENDING_AT_END = 10_000
_TAKEN_AT_END = 1000
_LONGEST_TOLD = 1 << 16

# Made once, in the zygote: a decoder learns its type's fields first, which touches much memory.
_told = msgspec.json.Decoder(tuple[str, int])
_specs = msgspec.json.Decoder(wire.RunSpec)
_injections = msgspec.json.Decoder(wire.InjectFrame)
_approvals = msgspec.json.Decoder(wire.ApproveFrame)
_interruptions = msgspec.json.Decoder(wire.InterruptFrame)


class Monitor:
    """One run's monitor. ``run()`` returns when the run is over and reported, whether or not all of it could be ended."""

    def __init__(self, spec: wire.RunSpec, folder: Path, last_seq: int, ready: Ready) -> None:
        self._spec = spec
        self._folder = folder
        self._last_seq = last_seq
        self._report = wire.ExitReport()
        self._ready = ready
        self._engine_pid = ready.engine_pid
        self._channel = ready.channel
        self._stdio = ready.stdio
        self._engine_status: int | None = None
        self._pending: deque[tuple[AnyEvent, Callable[[], None] | None]] = deque()
        self._kill_at: float | None = None
        self._limits = Limits(spec, time.monotonic())
        self._terminated = False
        self._sent = 0
        self._sent_at = 0.0
        self._wake_fd = ready.wake_fd
        self._outbox = Outbox(folder / "outbox", spec.run, RunStarted(task=spec.task, agent=spec.agent))

    # ── beginning ──

    def run(self) -> bool:
        """Start the engine, watch over it, see its tree gone, report; whether all of it could be ended."""
        self._signals()
        self._begin_engine()
        if ARMED:
            reach("monitor.spawned")
        self._uplink = Uplink(self._ready.context, self._spec.endpoint, self._outbox, self._spec.run, self._last_seq)
        self._uplink.engine_pid = self._engine_pid
        self._uplink.hello()
        self._orders = Orders(self._channel, self._stdio, self._uplink.receipt, self._record)
        self._epoll = select.epoll()
        self._fds: set[int] = set()
        for fd in (self._channel.fileno(), self._wake_fd, self._alarm.fileno(), self._uplink.fileno()):
            self._watch(fd)
        while not self._over:
            self._turn()
        self._end()
        return not self._report.left

    @property
    def _over(self) -> bool:
        """Whether the engine has ended, or its end has been given up."""
        return self._engine_status is not None or bool(self._report.left)

    def _signals(self) -> None:
        """SIGCHLD and SIGTERM wake the loop; the terminal's signals are none of ours."""
        self._alarm, other = socket.socketpair()
        self._alarm.setblocking(False)
        other.setblocking(False)
        self._alarm_other = other
        signal.set_wakeup_fd(other.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._sigterm)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    def _sigterm(self, *_: object) -> None:
        self._terminated = True

    def _begin_engine(self) -> None:
        """Its process is there: tell it which run's engine it is."""
        self._cgroup = cgroup.make(self._folder)
        if self._cgroup is not None:
            cgroup_limits.set_limits(self._cgroup, self._spec.memory, self._spec.max_processes)
        self._ready.begin(self._spec, self._folder, self._cgroup)

    # ── the loop ──

    def _watch(self, fd: int) -> None:
        if fd >= 0 and fd not in self._fds:
            self._epoll.register(fd, select.EPOLLIN)
            self._fds.add(fd)

    def _unwatch(self, fd: int) -> None:
        if fd in self._fds:
            self._epoll.unregister(fd)
            self._fds.discard(fd)

    def _turn(self) -> None:
        """Do all there is to do, then wait for more."""
        self._hear_supervisor()
        if self._terminated:
            self._terminated = False
            self._report.interrupted = self._report.interrupted or ""
            self._interrupt("", self._spec.grace)
        self._hear_engine()
        self._reap()
        if not self._pending:
            self._read()
        self._say(self._stdio.prompts())
        self._stdio.pump()
        self._append()
        sent_all = self._uplink.pump()
        self._keep_limits()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill_at = None
            self._report.forced = True
            self._end_tree()
        if self._uplink.silent_for > self._uplink.silence_allowed:
            self._unwatch(self._uplink.fileno())
            self._uplink.reopen()
            self._watch(self._uplink.fileno())
        self._wait(sent_all)

    def _wait(self, sent_all: bool) -> None:
        for fd in self._stdio.descriptors:
            # Backpressure: what cannot be appended is not read, and the writer waits at its full pipe.
            (self._unwatch if self._pending else self._watch)(fd)
        if self._gathers(sent_all):
            return
        self._outbox.fall_asleep(sent_all)  # where it cannot be sent, an answer of the supervisor's is what has to come
        try:
            if sent_all and not self._uplink.pump():  # what came while we were awake did not wake us
                sent_all = False
            if self._over or self._uplink.readable:
                return  # looked at after the last send, which may have swallowed the descriptor's word
            for fd, _ in self._epoll.poll(self._timeout(sent_all)):
                if fd == self._wake_fd:
                    os.eventfd_read(self._wake_fd)
                elif fd == self._alarm.fileno():
                    self._alarm.recv(4096)
        finally:
            self._outbox.fall_asleep(False)

    def _gathers(self, sent_all: bool) -> bool:
        """Whether it has waited a moment for what the engine says meanwhile, since that one does not stop saying things."""
        now = time.monotonic()
        sent, self._sent = self._sent, self._uplink.sent
        if sent == self._sent or not sent_all:
            return False
        often = now - self._sent_at < _OFTEN_S
        self._sent_at = now
        if often:
            watched = self._fds.intersection((self._alarm.fileno(), self._channel.fileno()))
            select.select(watched, [], [], _GATHER_S)
        return often

    def _timeout(self, sent_all: bool) -> float | None:
        """Seconds until something is due by itself; None where nothing is."""
        now = time.monotonic()
        due = [at - now for at in (self._kill_at, self._limits.due) if at is not None]
        if self._pending:
            due.append(_RETRY_S)
        if not sent_all or self._uplink.silent_for:
            due.append(max(0.01, self._uplink.silence_allowed - self._uplink.silent_for))
        if self._channel.unread or self._stdio.unread:
            due.append(0.02)  # the engine reads slowly; its ends are not watched for writing, since this is rare
        if self._stdio.next_prompt is not None:
            due.append(self._stdio.next_prompt - now)
        return max(0.0, min(*due, _LONGEST_WAIT_S)) if due else None

    # ── what the run prints ──

    def _read(self) -> None:
        """Take a bounded part of what was printed. A stream that has ended is closed, and so no longer watched."""
        before = self._stdio.descriptors
        self._say(self._stdio.read())
        self._fds.difference_update(set(before).difference(self._stdio.descriptors))

    def _say(self, outputs: Iterable[Output]) -> None:
        self._pending.extend((output, None) for output in outputs)

    # ── its limits ──

    def _keep_limits(self) -> None:
        """End a run that has reached a limit. Where it was asked to end before, that can only hasten it."""
        if self._over:
            return
        now = time.monotonic()
        breach = self._limits.reached(now, self._stdio.printed, self._outbox.state.end)
        if breach is None and self._limits.wants_look(now):
            memory, processes = measure(self._spec.memory, self._spec.max_processes)
            seen = time.monotonic()
            breach = self._limits.used(seen, memory, processes, seen - now) or self._refused_tasks()
        if breach is not None:
            self._breached(breach)

    def _refused_tasks(self) -> Breach | None:
        """The kernel keeps a fork bomb in its cgroup small, which is then its end."""
        if self._spec.max_processes is None or self._cgroup is None:
            return None
        most = cgroup_limits.out_of_tasks(self._cgroup)
        return None if most is None else too_many_tasks(most)

    def _see_whether_killed(self) -> None:
        """Where the kernel has killed the run for want of memory, that is how it ended."""
        limit, status = self._spec.memory, self._engine_status
        if limit is None or self._cgroup is None or status is None or self._report.told:
            return
        if (
            os.WIFSIGNALED(status)
            and os.WTERMSIG(status) == signal.SIGKILL
            and cgroup_limits.out_of_memory(self._cgroup)
        ):
            breach = out_of_memory(limit)
            self._report.limit, self._report.forced = (breach.status, breach.reason), True

    def _see_whether_cut(self) -> None:
        """A run can have ended before anybody saw that it had printed too much: what is left out is told all the same."""
        breach = self._limits.reached(time.monotonic(), self._stdio.printed, self._outbox.state.end)
        if breach is not None and breach.mutes and not self._report.told:
            self._report.limit = (breach.status, breach.reason)

    def _breached(self, breach: Breach) -> None:
        if not self._report.told:
            self._report.limit = self._uplink.limit = (breach.status, breach.reason)
            self._uplink.hello()
        if breach.mutes:
            self._stdio.mute()
            self._pending = deque(item for item in self._pending if item[1] is not None)
        self._interrupt(breach.reason, 0.0 if breach.at_once else self._spec.grace)

    def _spent(self, usd: object) -> None:
        if isinstance(usd, int | float) and self._limits.spent(usd):
            nearly = Custom(name="budget", data={"spent_usd": usd, "budget_usd": self._spec.budget})
            self._pending.append((nearly, None))

    def _append(self) -> None:
        """Append what is pending. What finds no room stays, and is tried again."""
        while self._pending:
            batch = [event for event, _ in islice(self._pending, _APPEND_AT_ONCE)]
            try:
                done = self._outbox.append(batch, wait=False)
            except ValueError as error:
                _log.error("run %s: left out: %s", self._spec.run, error)  # larger than the desk should have let in
                self._pending.popleft()
                continue
            for _ in range(done):
                _, then = self._pending.popleft()
                if then is not None:
                    then()
            if not done:
                return

    # ── the supervisor's words ──

    def _hear_supervisor(self) -> None:
        while frames := self._uplink.receive():
            for data in frames:
                self._obey(data[:1], data[1:])

    def _obey(self, kind: bytes, body: bytes) -> None:
        try:
            if kind == wire.INJECT:
                self._orders.inject(_injections.decode(body))
            elif kind == wire.APPROVE:
                self._hear_engine()  # a question is there before its event is anywhere, and may not have been heard yet
                self._orders.approve(_approvals.decode(body))
            elif kind == wire.INTERRUPT:
                asked = _interruptions.decode(body)
                self._interrupt(asked.message, asked.grace)
        except msgspec.DecodeError as error:
            _log.warning("run %s: a frame that is none: %s", self._spec.run, error)

    def _record(self, event: AnyEvent, then: Callable[[], None]) -> None:
        """Append an event; ``then`` is called when the outbox has it."""
        self._pending.append((event, then))
        self._append()

    def _interrupt(self, words: str, grace: float) -> None:
        """Please end: the words, SIGTERM to the engine and what shares its group, SIGKILL to all after the grace period."""
        deadline = time.monotonic() + grace
        if self._kill_at is not None and self._kill_at <= deadline:
            return  # a repetition: a second SIGTERM would mean "at once" to many
        self._kill_at = deadline
        if self._engine_status is None:
            self._report.told = True
        if self._engine_status is None and grace > 0:
            self._channel.post(interrupt=words)
            for number in (signal.SIGTERM, signal.SIGCONT):
                try:
                    os.killpg(self._engine_pid, number)  # not reaped yet, so the pid is still the engine's
                except (ProcessLookupError, PermissionError):
                    pass  # gone, or somebody else's (sudo): the sweep at the end says what is left

    # ── the engine's words and its end ──

    def _hear_engine(self) -> None:
        if self._channel.fileno() not in self._fds:
            return
        self._channel.pump()
        for body in self._channel.receive():
            if "started" in body:
                self._begin()
            elif "rejected" in body:
                self._report.rejected = str(body["rejected"])
                self._report.rejected_code = body.get("code")
            elif "raised" in body:
                self._report.reason = str(body["raised"])
            elif "reason" in body:
                self._report.reason = str(body["reason"])
            elif "result" in body:
                self._report.result = body["result"]
            elif "cost" in body:
                self._spent(body["cost"])
            elif "ask" in body:
                self._orders.ask(str(body["ask"]))
            elif "withdraw" in body:
                self._orders.withdraw(str(body["withdraw"]), in_time=bool(body.get("in_time")))
        if self._channel.closed:
            # Closed on exec: the engine has become its command. Or it has died, and said why if it could.
            self._unwatch(self._channel.fileno())
            if self._report.rejected is None:
                self._begin()

    def _begin(self) -> None:
        """The engine is known to run: say so, and hand over what was injected before."""
        self._outbox.begin()
        self._orders.begin()

    def _reap(self) -> None:
        """Collect every child that has ended: the engine, and what has fallen to us as the subreaper."""
        while True:
            try:
                pid, status, _ = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._engine_pid:
                self._engine_status = status
                self._outbox.engine_status = status  # at once: whoever kills this process now leaves it there
                if ARMED:
                    reach("monitor.reaped")

    def _end_tree(self) -> None:
        """Once it has not worked in time, it is tried no more: the zygote goes on with it."""
        if not self._report.left:
            cgroup.kill(self._folder)
            self._report.left = end_tree(self._reap, limit=_TREE_LIMIT_S)

    def _end(self) -> None:
        """The engine has ended: the rest of its tree ends, the pipes are read dry, all is appended, and the report written."""
        self._hear_engine()
        if children(os.getpid()) and not self._report.forced and not self._report.left:
            self._part_from_leftovers()
        if children(os.getpid()):
            self._report.forced = True
        self._end_tree()
        self._see_whether_killed()
        cgroup.remove(self._folder)
        if ARMED:
            reach("monitor.alone")
        self._drain()
        self._see_whether_cut()
        if ARMED:
            reach("monitor.drained")
        if self._report.rejected is None:
            while not self._outbox.begin():
                self._wait_for_room()
        while self._pending:
            self._wait_for_room()
        self._uplink.pump()
        self._report.taken = self._orders.latest_taken(_TAKEN_AT_END)
        self._write_report()
        if ARMED:
            reach("monitor.reported")

    def _part_from_leftovers(self) -> None:
        """What the engine left behind gets SIGTERM, and time to tidy up: the rest of the grace period, or a moment."""
        # Whoever is in the engine's group has had the interruption's SIGTERM: a second one would mean "at once" to many.
        signal_tree(signal.SIGTERM, signal.SIGCONT, spare_group=0 if self._kill_at is None else self._engine_pid)
        moment = time.monotonic() + _LEFTOVER_GRACE_S
        self._reap()
        while children(os.getpid()) and time.monotonic() < (moment if self._kill_at is None else self._kill_at):
            select.select(
                [self._alarm.fileno(), self._uplink.fileno(), *self._stdio.descriptors], [], [], _LEFTOVER_LOOK_S
            )
            self._hear_supervisor()
            self._reap()
            if len(self._pending) < _PENDING_AT_END:
                self._read()
            self._append()
            self._uplink.pump()

    def _drain(self) -> None:
        """Read the pipes dry. Nobody writes any more, unless an end has left the tree: then what is there has to do."""
        while self._stdio.descriptors:
            printed = self._stdio.read()
            if not printed and self._stdio.quiet:
                break
            self._say(printed)
            while len(self._pending) > _PENDING_AT_END:
                self._wait_for_room()
        self._say(self._stdio.finish())

    def _wait_for_room(self) -> None:
        """One turn of the end's own loop: append, send, and hear what is acknowledged."""
        self._hear_supervisor()
        self._append()
        self._uplink.pump()
        if self._uplink.silent_for > self._uplink.silence_allowed:
            self._uplink.reopen()
        if self._pending:
            select.select([self._uplink.fileno()], [], [], _RETRY_S)

    def _write_report(self) -> None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._report.wait_status = self._engine_status
        self._report.cpu_user_s = used.ru_utime
        self._report.cpu_system_s = used.ru_stime
        self._report.max_rss_bytes = used.ru_maxrss * 1024
        write_report(self._folder, self._report)


def write_report(folder: Path, report: wire.ExitReport) -> None:
    """Write down how a run ended; where the disk is full, once it is not."""
    while True:
        try:
            write_regular(folder / "exit.json", wire.encode(report))
            return
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                _log.error("run %s: its report cannot be written: %s", folder.name, error)
                return
            _log.warning("run %s: its report cannot be written yet: %s", folder.name, error)
            select.select([], [], [], 0.2)  # a full disk: nothing is acknowledged that is not written


def _make_outbox(spec: wire.RunSpec, folder: Path, last_seq: int) -> None:
    """Make the run's outbox; where the disk is full, once it is not. Raises OSError for anything else."""
    while True:
        try:
            Outbox.create(folder / "outbox", spec.outbox_bytes, last_seq)
            return
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _log.warning("run %s: its outbox cannot be made yet: %s", spec.run, error)
            (folder / "outbox").unlink(missing_ok=True)
            select.select([], [], [], 0.2)  # nothing has begun, and who asks for the run's end kills this process


def main(folder: Path, home: Mapping[str, str], last_seq: int) -> NoReturn:
    """Be the monitor of the run whose folder this is. Called in a fresh fork of the zygote.

    It exits with 0 where nothing is left of the run's tree. ``home`` is the zygote's environment; ``last_seq`` the last event
    that the supervisor recorded of this run (RunQueued).
    """
    try:
        _become_leader()
        _watch_over(folder, last_seq, home, None)
    finally:
        os._exit(1)


def wait_as_spare(end: socket.socket, home: Mapping[str, str]) -> NoReturn:
    """Be a monitor before there is a run: have all ready, wait to be told which, and be its monitor.

    The zygote holds the other end and writes one line of JSON, ``[folder, last_seq]``. Where it closes it, this process ends.
    """
    try:
        _become_leader()
        setproctitle("sparrow: spare")
        ready = Ready(home, early=True)
        told = b""
        while not told.endswith(b"\n") and (piece := end.recv(_LONGEST_TOLD)):
            told += piece
        end.close()
        if not told.endswith(b"\n"):
            ready.dismiss()
            os._exit(0)
        folder, last_seq = _told.decode(told)
        _watch_over(Path(folder), last_seq, home, ready)
    finally:
        os._exit(1)


def _become_leader() -> None:
    """Be nobody's but this run's: the zygote's handlers are none of ours."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    become_subreaper()


def _watch_over(folder: Path, last_seq: int, home: Mapping[str, str], ready: Ready | None) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until it means that the run is to end
    code = 1
    try:
        if ARMED:
            reach("monitor.forked")
        try:
            alive.hold(folder)
        except BlockingIOError:
            os._exit(alive.HELD)  # the run has a monitor: a second zygote was asked to spawn what the first one had
        spec_file = folder / "spec.json"
        if not spec_file.exists():  # the same, a moment later: that monitor has ended, and what it reported counts
            _log.warning("run %s has been started before and is not started twice", folder.name)
            os._exit(code)
        if ARMED:
            reach("monitor.held")
        spec = _specs.decode(spec_file.read_bytes())
        if ARMED:
            reach("monitor.read")
        spec_file.unlink()
        if ARMED:
            reach("monitor.begun")
        setproctitle(f"sparrow: monitor of run {spec.run[:8]} ({spec.name or spec.engine})")
        _make_outbox(spec, folder, last_seq)
        try:
            ready = ready or Ready(home)
        except OSError as error:
            reason = f"no process can be made for it: {error.strerror}; end something, or raise the limits"
            write_report(folder, wire.ExitReport(rejected=reason))
            os._exit(0)
        code = 0 if Monitor(spec, folder, last_seq, ready).run() else LEFT
    except BaseException:  # the boundary of the process: it must not return into the zygote's code
        _log.exception("the monitor of %s failed", folder.name)
    finally:
        os._exit(code)
