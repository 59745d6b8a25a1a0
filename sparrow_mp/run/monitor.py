"""The monitor: what watches over one run, from its own process, for the whole of the run's life.

It leads the run's session, is the subreaper of everything that the engine starts, holds the pipes and the PAIR socket,
turns what is printed into ``Output``, hands over injections, and at the end sees the whole tree gone before it reports.
It outlives a supervisor: its own timers enforce a grace period, and its outbox keeps what cannot be told just now.
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
from sparrow_mp.events import AnyEvent, ApprovalResolved, Decision, Message, Output, RunStarted
from sparrow_mp.run import alive
from sparrow_mp.run.channel import Channel
from sparrow_mp.run.child import Rejected, run_engine
from sparrow_mp.run.outbox import Outbox
from sparrow_mp.run.stdio import Stdio
from sparrow_mp.run.tree import become_subreaper, children, die_with_parent, end_tree, signal_tree
from sparrow_mp.run.uplink import Uplink

_log = logging.getLogger(__name__)

_RETRY_S = 0.002
_LONGEST_WAIT_S = 3600.0
"""The kernel takes no more than 24 days."""
_LEFTOVER_GRACE_S = 0.3
_LEFTOVER_LOOK_S = 0.02
_APPEND_AT_ONCE = 2000
_PENDING_AT_END = 10_000
_TAKEN_AT_END = 1000


class Monitor:
    """One run's monitor. ``run()`` returns when the run is over and reported."""

    def __init__(self, spec: wire.RunSpec, folder: Path, home: Mapping[str, str], last_seq: int) -> None:
        self._spec = spec
        self._folder = folder
        self._home = home
        self._last_seq = last_seq
        self._report = wire.ExitReport()
        self._engine_pid = -1
        self._engine_status: int | None = None
        self._pending: deque[tuple[AnyEvent, Callable[[], None] | None]] = deque()
        self._seen: dict[str, None] = {}
        self._underway: set[str] = set()
        self._held: list[wire.InjectFrame] = []
        self._engine_began = False
        self._asks: list[str] = []
        self._kill_at: float | None = None
        self._terminated = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        outbox = folder / "outbox"
        Outbox.create(outbox, spec.outbox_bytes, last_seq)
        self._outbox = Outbox(outbox, spec.run, RunStarted(task=spec.task, agent=spec.agent))

    # ── beginning ──

    def run(self) -> None:
        """Start the engine, watch over it, see its tree gone, report."""
        self._signals()
        self._spawn_engine()
        self._uplink = Uplink(self._spec.endpoint, self._outbox, self._spec.run, self._last_seq)
        self._uplink.engine_pid = self._engine_pid
        self._uplink.hello()
        self._epoll = select.epoll()
        self._fds: set[int] = set()
        for fd in (self._channel.fileno(), self._wake_fd, self._alarm.fileno(), self._uplink.fileno()):
            self._watch(fd)
        while self._engine_status is None:
            self._turn()
        self._end()

    def _signals(self) -> None:
        """SIGCHLD and SIGTERM wake the loop; the terminal's signals are none of ours."""
        self._alarm, other = socket.socketpair()
        self._alarm.setblocking(False)
        other.setblocking(False)
        self._alarm_other = other
        signal.set_wakeup_fd(other.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._sigterm)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    def _sigterm(self, *_: object) -> None:
        self._terminated = True

    def _spawn_engine(self) -> None:
        ours, theirs = socket.socketpair()
        self._stdio = Stdio(with_input=self._spec.stdin == "pipe")
        held_back = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until it means what the engine expects
        own = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._be_engine(theirs, held_back, own)
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back)
        theirs.close()
        self._engine_pid = pid
        try:
            os.setpgid(pid, pid)  # both sides do it, so that it holds whoever comes first
        except OSError:
            pass  # it has exec'd already, and so has done it itself
        self._channel = Channel(ours)
        self._stdio.become_monitors()

    def _be_engine(self, end: socket.socket, mask: Iterable[int], monitor: int) -> NoReturn:
        """In the engine's process: make it what people expect of one that a shell started, then drive the engine."""
        channel = Channel(end)
        try:
            os.setpgid(0, 0)
            die_with_parent(monitor)  # the zygote ends what a dead monitor leaves; this is for when it is dead as well
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._outbox.close()
            self._stdio.become_engines()
            os.environ.clear()
            os.environ.update(self._spec.env)
            time.tzset()
            if self._spec.umask is not None:
                os.umask(self._spec.umask)
            if self._spec.open_files is not None:
                _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (min(self._spec.open_files, hard), hard))
            try:
                os.chdir(self._spec.cwd)
            except OSError as error:
                raise Rejected(f"cannot enter the folder {self._spec.cwd}: {error.strerror}") from None
        except Rejected as refused:
            channel.send(rejected=refused.reason, code=refused.code)
            os._exit(1)
        except BaseException as error:  # the boundary of a forked process: it must not return into the monitor's code
            channel.send(rejected=f"cannot be started: {type(error).__name__}: {error}", code=None)
            os._exit(1)
        run_engine(self._spec, self._folder, channel, self._wake_fd, self._home)

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
        self._outbox.fall_asleep(True)
        try:
            if sent_all and not self._uplink.pump():  # what came while we were awake did not wake us
                sent_all = False
            if self._engine_status is not None or self._uplink.readable:
                return  # looked at after the last send, which may have swallowed the descriptor's word
            for fd, _ in self._epoll.poll(self._timeout(sent_all)):
                if fd == self._wake_fd:
                    os.eventfd_read(self._wake_fd)
                elif fd == self._alarm.fileno():
                    self._alarm.recv(4096)
        finally:
            self._outbox.fall_asleep(False)

    def _timeout(self, sent_all: bool) -> float | None:
        """Seconds until something is due by itself; None where nothing is."""
        now = time.monotonic()
        due: list[float] = []
        if self._pending:
            due.append(_RETRY_S)
        if not sent_all or self._uplink.silent_for:
            due.append(max(0.01, self._uplink.silence_allowed - self._uplink.silent_for))
        if self._kill_at is not None:
            due.append(self._kill_at - now)
        if self._channel.waiting or self._stdio.input_waits:
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
                self._inject(msgspec.json.decode(body, type=wire.InjectFrame))
            elif kind == wire.APPROVE:
                self._approve(msgspec.json.decode(body, type=wire.ApproveFrame))
            elif kind == wire.INTERRUPT:
                asked = msgspec.json.decode(body, type=wire.InterruptFrame)
                self._interrupt(asked.message, asked.grace)
        except msgspec.DecodeError as error:
            _log.warning("run %s: a frame that is none: %s", self._spec.run, error)

    def _inject(self, asked: wire.InjectFrame) -> None:
        """Record the message, then hand it over, then say so; once, however often it is asked."""
        if not self._engine_began:
            self._held.append(asked)  # whether it reads lines or messages is not known yet
            return
        if self._repeated(asked.id):
            return
        is_command = self._takes_lines
        if (is_command or asked.data is not None or asked.eof) and not self._stdio.takes_input:
            reason = "the run takes no input: its standard input is closed (--stdin null, or --eof was given)"
            self._uplink.receipt(wire.Receipt(id=asked.id, code="not_running", message=reason))
            return
        self._underway.add(asked.id)

        def delivered() -> None:
            self._taken(asked.id)
            data = asked.data or b""
            if asked.text is not None and is_command:
                data += asked.text.encode() + b"\n"
            elif asked.text is not None:
                self._channel.post(message=asked.text)
            self._stdio.hand_over(data, ends=asked.eof)

        text = asked.text if asked.data is None else asked.data.decode("utf-8", "replace")
        if text is None:
            delivered()
        else:
            self._pending.append((Message(role="user", text=text), delivered))
            self._append()

    @property
    def _takes_lines(self) -> bool:
        """Whether the engine is a program, which reads its standard input, and no Python engine, which reads messages."""
        return self._channel.closed

    def _approve(self, asked: wire.ApproveFrame) -> None:
        if self._repeated(asked.id):
            return
        request = asked.request or (self._asks[0] if self._asks else None)
        if request is None or request not in self._asks:
            message = f"no approval {request} is asked for" if request else "no approval is asked for"
            self._uplink.receipt(wire.Receipt(id=asked.id, code="bad_request", message=message))
            return
        self._underway.add(asked.id)
        self._resolve(request, asked.decision, lambda: self._taken(asked.id))

    def _resolve(self, request: str, decision: Decision, then: Callable[[], None]) -> None:
        """Record a decision, then hand it over."""
        self._asks.remove(request)

        def delivered() -> None:
            self._channel.post(decision=decision, id=request)
            then()

        self._pending.append((ApprovalResolved(id=request, decision=decision), delivered))
        self._append()

    def _taken(self, request: str) -> None:
        """It is in the outbox: say so."""
        self._underway.discard(request)
        self._seen[request] = None
        self._uplink.receipt(wire.Receipt(id=request))

    def _repeated(self, request: str) -> bool:
        """Whether this was dealt with already: then the receipt was lost, and is sent again. Or it is being dealt with."""
        if request in self._seen:
            self._uplink.receipt(wire.Receipt(id=request))
        return request in self._seen or request in self._underway

    def _interrupt(self, words: str, grace: float) -> None:
        """Please end: the words, SIGTERM to the engine and what shares its group, SIGKILL to all after the grace period."""
        deadline = time.monotonic() + grace
        self._kill_at = deadline if self._kill_at is None else min(self._kill_at, deadline)
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
            elif "ask" in body:
                self._asks.append(str(body["ask"]))
            elif body.get("withdraw") in self._asks:
                self._resolve(str(body["withdraw"]), "Deny", lambda: None)
        if self._channel.closed:
            # Closed on exec: the engine has become its command. Or it has died, and said why if it could.
            self._unwatch(self._channel.fileno())
            if self._report.rejected is None:
                self._begin()

    def _begin(self) -> None:
        """The engine is known to run: say so, and hand over what was injected before."""
        self._outbox.begin()
        self._engine_began = True
        held, self._held = self._held, []
        for asked in held:
            self._inject(asked)

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

    def _end_tree(self) -> None:
        left = end_tree(self._reap)
        self._report.leftovers = len(left)

    def _end(self) -> None:
        """The engine has ended: the rest of its tree ends, the pipes are read dry, all is appended, and the report written."""
        self._hear_engine()
        if children(os.getpid()) and not self._report.forced:
            self._part_from_leftovers()
        if children(os.getpid()):
            self._report.forced = True
        self._end_tree()
        self._drain()
        if self._report.rejected is None:
            while not self._outbox.begin():
                self._wait_for_room()
        while self._pending:
            self._wait_for_room()
        self._uplink.pump()
        self._write_report()

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
        self._report.taken = list(self._seen)[-_TAKEN_AT_END:]
        self._report.max_rss_bytes = used.ru_maxrss * 1024
        path = self._folder / "exit.json"
        while True:
            try:
                new = path.with_suffix(".new")
                new.write_bytes(wire.encode(self._report))
                new.replace(path)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    _log.error("run %s: its report cannot be written: %s", self._spec.run, error)
                    return
                _log.warning("run %s: its report cannot be written yet: %s", self._spec.run, error)
                select.select([], [], [], 0.2)  # a full disk: nothing is acknowledged that is not written


def main(folder: Path, home: Mapping[str, str], last_seq: int) -> NoReturn:
    """Be the monitor of the run whose folder this is. Called in a fresh fork of the zygote.

    ``home`` is the zygote's environment; ``last_seq`` the last event that the supervisor recorded of this run (RunQueued).
    """
    code = 1
    try:
        os.setsid()
        become_subreaper()
        try:
            alive.hold(folder)
        except BlockingIOError:
            os._exit(alive.HELD)  # the run has a monitor: a second zygote was asked to spawn what the first one had
        spec_file = folder / "spec.json"
        if not spec_file.exists():  # the same, a moment later: that monitor has ended, and what it reported counts
            _log.warning("run %s has been started before and is not started twice", folder.name)
            os._exit(code)
        spec = msgspec.json.decode(spec_file.read_bytes(), type=wire.RunSpec)
        spec_file.unlink()
        setproctitle(f"sparrow: monitor of run {spec.run[:8]} ({spec.name or spec.engine})")
        Monitor(spec, folder, home, last_seq).run()
        code = 0
    except BaseException:  # the boundary of the process: it must not return into the zygote's code
        _log.exception("the monitor of %s failed", folder.name)
    finally:
        os._exit(code)
