"""The zygote: forks monitors, reaps them, and keeps each exit status until a supervisor has recorded it.

Single-threaded and small; it has the run side imported, so that a run is there in milliseconds, and keeps a spare monitor.
It outlives a supervisor.
It speaks JSON lines over a Unix socket with one supervisor at a time:

    → {"op":"spawn","run":…,"folder":…,"last_seq":…}     ← {"spawned":run,"pid":…} with the monitor's pidfd, or {"refused":run,"reason":…}
    → {"op":"kill","run":…}                              ← {"exited":run,"status":wait status,"left":[pid…]} once its tree is gone,
                                                           or what is left of it cannot be ended
                                                         ← {"strays":[pid…]}, who cannot be ended, each time that changes
    → {"op":"release","run":…}     (it is recorded)
    → {"op":"guard","wanted":…}    (should I die, start me again so)
    → {"op":"leave"}               (I mean to end)
    → {"op":"end"}                 (end, when no run is left)
    → {"op":"succeed","argv":…}    (under systemd: start this zygote of another sparrow beside yourself)

On connecting a supervisor is told {"zygote":pid,"version":…}, then {"alive":run,"pid":…} with its pidfd for each run, and
{"exited":…} for each that ended unseen. Spawning is idempotent by the run's id. What falls to the zygote (it is a subreaper)
is what a dead monitor left behind, and is ended.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import socket
import sys
import time
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec
from setproctitle import setproctitle

from sparrow_mp import __version__
from sparrow_mp.errors import StateError
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.paths import check_address, find_places, secure_folder
from sparrow_mp.regular import open_regular, write_regular
from sparrow_mp.run import cgroup, monitor
from sparrow_mp.run.rehearsal import rehearse
from sparrow_mp.run.tree import become_subreaper
from sparrow_supervisor.fingerprint import fingerprint
from sparrow_supervisor.journal import JournalHandler, is_journal
from sparrow_supervisor.notify import Notify
from sparrow_supervisor.preload import Warm, load
from sparrow_supervisor.revival import Revival, Wanted, be_heir, start_detached
from sparrow_supervisor.spares import Spares
from sparrow_supervisor.strays import Ended, Strays

_log = logging.getLogger("sparrow_supervisor.zygote")

_LONELY_S = 10.0
_PATIENCE_S = 15.0
_LONGEST_LINE = 1 << 20
_MOST_WAITING = 8
_PEER_PATIENCE_S = 5.0
"""For a supervisor that is stopped: its runs are to be reaped all the same."""


class _Asked(msgspec.Struct):
    """What a supervisor asks for."""

    op: Literal["spawn", "kill", "release", "guard", "leave", "end", "succeed"]
    run: str = ""
    folder: str = ""
    last_seq: int = 0
    wanted: Wanted | None = None
    argv: list[str] = []


_asking = msgspec.json.Decoder(_Asked)


class Zygote:
    """Owns the monitors. ``serve()`` returns when it is no longer needed; with ``unit`` systemd says when that is."""

    def __init__(self, listener: socket.socket, unit: Notify | None = None, warm: Warm | None = None) -> None:
        self._listener = listener
        self._unit = unit
        self._warm = warm
        self._used = time.monotonic()
        self._home = dict(os.environ)
        self._peer: socket.socket | None = None
        self._in = b""
        self._monitors: dict[int, str] = {}
        self._pids: dict[str, int] = {}
        self._pidfds: dict[str, int] = {}
        self._exited: dict[str, Ended] = {}
        self._folders: dict[str, Path] = {}
        self._spares = Spares(self._become_spare)
        self._strays = Strays(self._collect, ChainMap[int, Any](self._monitors, self._spares.alive))
        self._told_strays: tuple[int, ...] = ()
        self._ending = False
        self._terminated = False
        self._kill_at: float | None = None
        self._lonely_since = time.monotonic()
        self._revival = Revival(self._home)
        self._alarm, self._alarm_other = socket.socketpair()
        self._alarm.setblocking(False)
        self._alarm_other.setblocking(False)

    def serve(self) -> None:
        """Fork, reap and report until told to end, or until there is neither run nor supervisor for a while."""
        signal.set_wakeup_fd(self._alarm_other.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._sigterm)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while not self._done():
            ready = self._ready()
            if self._alarm.fileno() in ready:
                self._alarm.recv(4096)
            if self._listener.fileno() in ready:
                self._accept()
            if self._peer is not None and self._peer.fileno() in ready:
                self._hear()
            self._reap()
            self._hasten()
            self._revival.turn()
            if self._wants_spare:
                self._spares.turn()
        self._spares.dismiss()

    def _ready(self) -> set[int]:
        """Wait for something to happen; the descriptors that have something."""
        poll = select.poll()  # not select(), which knows no descriptor over 1,023
        for watched in (self._listener, self._alarm, self._peer):
            if watched is not None:
                poll.register(watched, select.POLLIN)
        seconds = self._timeout()
        return {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}

    def _done(self) -> bool:
        if self._monitors or self._strays.busy:
            return False
        if self._ending or self._terminated:
            return True  # an elder's end is this too: it has no supervisor to look after
        if self._strays.kept:
            return False  # somebody has to keep them in sight
        now = time.monotonic()
        if self._warm is not None and now - self._used >= self._warm.idle_s:
            return True  # a supervisor that asks in this moment sees the end of the connection, and asks another
        return self._unit is None and self._peer is None and now - self._lonely_since >= _LONELY_S

    def _timeout(self) -> float | None:
        now = time.monotonic()
        due = [seconds for seconds in (self._revival.timeout, self._strays.timeout) if seconds is not None]
        if self._kill_at is not None:
            due.append(self._kill_at - now)
        if self._wants_spare and self._spares.timeout is not None:
            due.append(self._spares.timeout)
        if self._unit is None and self._peer is None and not self._monitors:
            due.append(self._lonely_since + _LONELY_S - now)
        if self._warm is not None and not self._monitors:
            due.append(self._used + self._warm.idle_s - now)
        return max(0.0, min(due)) if due else None

    @property
    def _wants_spare(self) -> bool:
        """Whether another run may come."""
        return self._peer is not None and not self._ending and not self._terminated and not self._strays.busy

    def _sigterm(self, *_: object) -> None:
        self._terminated = True

    def _hasten(self) -> None:
        """Told to end by a signal: interrupt every run, and kill what is left when patience ends."""
        if not self._terminated:
            return
        if self._kill_at is None:
            self._kill_at = time.monotonic() + _PATIENCE_S
            for pid in self._monitors:
                os.kill(pid, signal.SIGTERM)  # our children, not reaped yet: the pids are their own
        elif time.monotonic() >= self._kill_at:
            self._kill_at = time.monotonic() + 1.0
            for pid in self._monitors:
                os.kill(pid, signal.SIGKILL)  # the same

    def _kill(self, run: str) -> None:
        """Its monitor; what that leaves falls to us."""
        if run in self._pidfds:
            try:
                signal.pidfd_send_signal(self._pidfds[run], signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended, and what it left is being ended

    # ── the supervisor ──

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError as error:
            _log.error("nobody can connect just now: %s", error.strerror)
            return
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = int.from_bytes(credentials[4:8], sys.byteorder)
        if uid != os.geteuid():
            _log.warning("user %d tried to connect and was refused", uid)
            peer.close()
            return
        self._drop_peer()
        self._revival.came()
        peer.settimeout(_PEER_PATIENCE_S)
        self._peer, self._in = peer, b""
        self._say(zygote=os.getpid(), version=__version__, preloaded=self._warm.modules if self._warm else [])
        for run, pid in self._pids.items():
            self._say(alive=run, pid=pid, fd=self._pidfds[run])
        for ended in self._exited.values():
            self._say(exited=ended.run, status=ended.status, left=ended.left)
        if self._told_strays:
            self._say(strays=self._told_strays)
        self._say(told=True)

    def _drop_peer(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._revival.lost()
        self._peer = None
        self._lonely_since = time.monotonic()

    def _say(self, fd: int | None = None, **body: Any) -> None:
        if self._peer is None:
            return
        data = msgspec.json.encode(body) + b"\n"
        try:
            if fd is None:
                self._peer.sendall(data)
            else:
                socket.send_fds(self._peer, [data], [fd])
        except TimeoutError:
            _log.error("the supervisor has taken nothing for %g s; it may connect again", _PEER_PATIENCE_S)
            self._drop_peer()
        except OSError:
            pass  # it is gone: what it still had to say comes first, and then the end

    def _hear(self) -> None:
        assert self._peer is not None
        try:
            data = self._peer.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._drop_peer()
            return
        *lines, self._in = (self._in + data).split(b"\n")
        try:
            if len(self._in) > _LONGEST_LINE:
                raise msgspec.DecodeError(f"a line of more than {_LONGEST_LINE} bytes")
            for line in lines:
                self._obey(_asking.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _log.error("the supervisor said what is no request: %s", error)
            self._drop_peer()

    def _obey(self, asked: _Asked) -> None:
        run = asked.run
        match asked.op:
            case "spawn":
                self._spawn(run, Path(asked.folder), asked.last_seq)
            case "kill":
                self._kill(run)
            case "release":
                self._exited.pop(run, None)
                if ARMED:
                    reach("zygote.released")
            case "guard":
                if asked.wanted is not None:
                    self._revival.guard(asked.wanted)
            case "leave":
                self._revival.leave()
            case "end":
                self._ending = True
            case "succeed":
                self._start_heir(asked.argv)

    def _start_heir(self, argv: list[str]) -> None:
        """Start another sparrow's zygote, in the cgroup of this one."""
        if self._unit is None or not argv:
            return
        _log.info("another sparrow takes over: %s", argv)
        try:
            start_detached(partial(be_heir, argv, {**self._home, "NOTIFY_SOCKET": self._unit.address}))
        except OSError as error:
            _log.error("its zygote cannot be started: %s", error.strerror)

    def _spawn(self, run: str, folder: Path, last_seq: int) -> None:
        self._used = time.monotonic()
        if run in self._pids:
            self._say(spawned=run, pid=self._pids[run], fd=self._pidfds[run])
            return
        if run in self._exited:
            ended = self._exited[run]
            self._say(exited=run, status=ended.status, left=ended.left)
            return
        if ARMED:
            reach("zygote.asked")
        try:
            pid, pidfd = self._spares.give(str(folder), last_seq) or self._fork(folder, last_seq)
        except OSError as error:
            self._say(refused=run, reason=f"no new process can be had: {error.strerror}")
            return
        self._spares.wait()
        self._monitors[pid] = run
        self._pids[run] = pid
        self._pidfds[run] = pidfd
        self._folders[run] = folder
        if ARMED:
            reach("zygote.forked")
        self._say(spawned=run, pid=pid, fd=self._pidfds[run])
        if ARMED:
            reach("zygote.spawned")
        _log.info("run %s: its monitor is process %d", run, pid)

    def _fork(self, folder: Path, last_seq: int) -> tuple[int, int]:
        """A new monitor: its pid and pidfd. Raises OSError."""
        pid = os.fork()
        if pid == 0:
            try:
                self._let_go()
                monitor.main(folder, self._home, last_seq)
            finally:
                os._exit(1)
        try:
            return pid, os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)  # our child, not reaped yet; what it may have begun falls to us
            raise

    def _become_spare(self, end: socket.socket) -> NoReturn:
        """In the fork."""
        try:
            self._let_go()
            monitor.wait_as_spare(end, self._home)
        finally:
            os._exit(1)

    def _let_go(self) -> None:
        """In a fork: close what is the zygote's."""
        signal.set_wakeup_fd(-1)
        for owned in (self._listener, self._alarm, self._alarm_other, self._peer):
            if owned is not None:
                owned.close()
        for fd in self._pidfds.values():
            os.close(fd)
        self._strays.close()
        self._spares.close()

    # ── reaping ──

    def _reap(self) -> None:
        """Collect every child that has ended; a monitor's end is told when nothing that it left is alive."""
        self._collect()
        for ended in self._strays.turn():
            if ARMED:
                reach("zygote.reaped")
            self._record(ended.run, ended.status)
            self._used = time.monotonic()
            if ARMED:
                reach("zygote.recorded")
            self._exited[ended.run] = ended
            del self._pids[ended.run]
            os.close(self._pidfds.pop(ended.run))
            self._say(exited=ended.run, status=ended.status, left=ended.left)
            if ARMED:
                reach("zygote.told")
            _log.info("run %s: its monitor ended with wait status %d", ended.run, ended.status)
        self._tell_strays()

    def _collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._spares.reaped(pid)
            run = self._monitors.pop(pid, None)
            if run is not None:
                cgroup.kill(self._folders[run])  # there is none any more where the monitor has seen its tree gone
                self._strays.take(run, status)

    def _tell_strays(self) -> None:
        """Say who could not be ended, each time that changes."""
        if self._told_strays != self._strays.kept:
            self._told_strays = self._strays.kept
            if self._told_strays:
                _log.error("processes %s could not be ended; they are kept in sight", list(self._told_strays))
            else:
                cgroup.remove_empty()
            self._say(strays=self._told_strays)

    def _record(self, run: str, status: int) -> None:
        """Write the exit status down, for the case that nobody asks before this process ends as well."""
        folder = self._folders.pop(run, None)
        if folder is None:
            return
        try:
            write_regular(folder / "reaped", str(status).encode())
        except OSError as error:
            _log.warning("run %s: its exit status cannot be written down: %s", run, error)


def main() -> None:
    """Be the zygote. argv: the listening socket's descriptor, the log's path; or ``--unit``, where systemd has started it.

    A warm one is told more: what its socket's name becomes once it is ready, after how many idle seconds it ends, and the modules.
    """
    os.umask(0o077)
    if sys.argv[1] == "--unit":
        _be_unit()
        return
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.set_inheritable(False)
    _log_to(sys.argv[2])
    warm = Warm(Path(sys.argv[3]), float(sys.argv[4]), sys.argv[5:]) if sys.argv[3:] else None
    if warm is not None:
        load(warm.modules)
    _prepare("sparrow: zygote" if warm is None else "sparrow: warm zygote")
    cgroup.delegated()  # asked once, for all monitors
    if warm is not None:
        os.rename(listener.getsockname(), warm.path)  # which fails where no supervisor wants it any more
    _serve(Zygote(listener, warm=warm), listener, str(warm.path) if warm else listener.getsockname())


def _be_unit() -> None:
    journal = [JournalHandler()] if is_journal(os.environ) else []
    unit = Notify.take(os.environ)
    try:
        places = find_places(os.environ)
        path = places.zygote_socket(fingerprint(unit=True))
        for folder in (places.state, places.runtime):
            secure_folder(folder)
        check_address(path, "the zygote's socket")
        _log_to(str(places.zygote_log), *journal)
        _prepare()
        with _coming(path):
            if _serves(path):
                return  # another one was quicker, and is the unit's main process
            listener = _bind(path)  # whatever can fail comes before it is the main process, whose end is the unit's
            cgroup.take_over()
            unit.tell(MAINPID=os.getpid(), STATUS=f"sparrow {__version__}")
            unit.barrier()  # before anybody can find it, and tell the one that was the main process to end
            listener.listen(_MOST_WAITING)
    except (StateError, OSError) as error:
        unit.tell(STATUS=error)
        sys.stderr.write(f"<3>sparrow: the zygote cannot start: {error}\n")
        sys.exit(1)
    unit.tell(READY=1)
    _serve(Zygote(listener, unit), listener, listener.getsockname())


@contextmanager
def _coming(path: Path) -> Iterator[None]:
    """Be the only one that begins to listen there. Raises OSError."""
    fd = open_regular(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _serves(path: Path) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def _bind(path: Path) -> socket.socket:
    """A socket of this name, which nobody can connect to yet. Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))  # in a folder that is ours alone, under our umask
    return listener


def _log_to(path: str, *more: logging.Handler) -> None:
    handlers = [logging.FileHandler(path), *more]
    for handler in more:
        handler.setFormatter(logging.Formatter("%(message)s"))
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(levelname)s zygote %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=handlers)


def _prepare(title: str = "sparrow: zygote") -> None:
    become_subreaper()
    setproctitle(title)
    rehearse()


def _serve(zygote: Zygote, listener: socket.socket, path: str) -> None:
    try:
        zygote.serve()
    except BaseException:  # what ends the zygote is told, and its runs live on, each with its monitor
        _log.exception("the zygote failed")
        raise
    finally:
        try:
            os.unlink(path)  # while it still listens: nobody can have put another one there
        except OSError:
            pass  # the folder is gone
        listener.close()


if __name__ == "__main__":
    main()
