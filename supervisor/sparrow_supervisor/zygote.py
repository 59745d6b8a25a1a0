"""The zygote: forks monitors, reaps them, and keeps each exit status until a supervisor has recorded it.

Single-threaded and small; it has the run side imported, so that a run is there in milliseconds. It outlives a supervisor.
It speaks JSON lines over a Unix socket with one supervisor at a time:

    → {"op":"spawn","run":…,"folder":…,"last_seq":…}     ← {"spawned":run,"pid":…} with the monitor's pidfd, or {"refused":run,"reason":…}
    → {"op":"kill","run":…}                              ← {"exited":run,"status":wait status} once its tree is gone
    → {"op":"release","run":…}     (it is recorded)
    → {"op":"end"}                 (end, when no run is left)

On connecting a supervisor is told {"zygote":pid,"version":…}, then {"alive":run,"pid":…} with its pidfd for each run, and
{"exited":…} for each that ended unseen. Spawning is idempotent by the run's id. What falls to the zygote (it is a subreaper)
is what a dead monitor left behind, and is ended.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Literal

import msgspec
from setproctitle import setproctitle

from sparrow_mp import __version__
from sparrow_mp.run import monitor
from sparrow_mp.run.rehearsal import rehearse
from sparrow_mp.run.tree import become_subreaper, children, end_tree

_log = logging.getLogger("sparrow_supervisor.zygote")

_LONELY_S = 10.0
_PATIENCE_S = 15.0
_STRAYS_LIMIT_S = 3.0


class _Asked(msgspec.Struct):
    """What a supervisor asks for."""

    op: Literal["spawn", "kill", "release", "end"]
    run: str = ""
    folder: str = ""
    last_seq: int = 0


_asking = msgspec.json.Decoder(_Asked)


class Zygote:
    """Owns the monitors. ``serve()`` returns when it is no longer needed."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._home = dict(os.environ)
        self._peer: socket.socket | None = None
        self._in = b""
        self._monitors: dict[int, str] = {}
        self._pids: dict[str, int] = {}
        self._pidfds: dict[str, int] = {}
        self._exited: dict[str, int] = {}
        self._folders: dict[str, Path] = {}
        self._ending = False
        self._terminated = False
        self._kill_at: float | None = None
        self._lonely_since = time.monotonic()
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

    def _ready(self) -> set[int]:
        """Wait for something to happen; the descriptors that have something."""
        poll = select.poll()  # not select(), which knows no descriptor over 1,023
        for watched in (self._listener, self._alarm, self._peer):
            if watched is not None:
                poll.register(watched, select.POLLIN)
        seconds = self._timeout()
        return {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}

    def _done(self) -> bool:
        if self._monitors:
            return False
        if self._ending or self._terminated:
            return True
        return self._peer is None and time.monotonic() - self._lonely_since >= _LONELY_S

    def _timeout(self) -> float | None:
        if self._kill_at is not None:
            return max(0.0, self._kill_at - time.monotonic())
        if self._peer is None and not self._monitors:
            return max(0.0, _LONELY_S - (time.monotonic() - self._lonely_since))
        return None

    def _sigterm(self, *_: object) -> None:
        self._terminated = True

    def _hasten(self) -> None:
        """Told to end by a signal: interrupt every run, and kill what is left when patience ends."""
        if not self._terminated:
            return
        if self._kill_at is None:
            self._kill_at = time.monotonic() + _PATIENCE_S
            for pid in self._monitors:
                os.kill(pid, signal.SIGTERM)
        elif time.monotonic() >= self._kill_at:
            self._kill_at = time.monotonic() + 1.0
            for pid in self._monitors:
                os.kill(pid, signal.SIGKILL)

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
        self._peer, self._in = peer, b""
        self._say(zygote=os.getpid(), version=__version__)
        for run, pid in self._pids.items():
            self._say(alive=run, pid=pid, fd=self._pidfds[run])
        for run, status in self._exited.items():
            self._say(exited=run, status=status)
        self._say(told=True)

    def _drop_peer(self) -> None:
        if self._peer is not None:
            self._peer.close()
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
        except OSError:
            self._drop_peer()

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
            for line in lines:
                self._obey(_asking.decode(line))
        except msgspec.DecodeError as error:
            _log.error("the supervisor said what is no request: %s", error)
            self._drop_peer()

    def _obey(self, asked: _Asked) -> None:
        run = asked.run
        match asked.op:
            case "spawn":
                self._spawn(run, Path(asked.folder), asked.last_seq)
            case "kill":
                if run in self._pids:
                    os.kill(self._pids[run], signal.SIGKILL)  # our child and not reaped yet: the pid is its own
            case "release":
                self._exited.pop(run, None)
            case "end":
                self._ending = True

    def _spawn(self, run: str, folder: Path, last_seq: int) -> None:
        if run in self._pids:
            self._say(spawned=run, pid=self._pids[run], fd=self._pidfds[run])
            return
        if run in self._exited:
            self._say(exited=run, status=self._exited[run])
            return
        try:
            pid = os.fork()
        except OSError as error:
            self._say(refused=run, reason=f"no new process can be had: {error.strerror}")
            return
        if pid == 0:
            self._become_monitor(folder, last_seq)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)  # our child, not reaped yet; what it may have begun falls to us
            self._say(refused=run, reason=f"no descriptor can be had for it: {error.strerror}")
            return
        self._monitors[pid] = run
        self._pids[run] = pid
        self._pidfds[run] = pidfd
        self._folders[run] = folder
        self._say(spawned=run, pid=pid, fd=self._pidfds[run])
        _log.info("run %s: its monitor is process %d", run, pid)

    def _become_monitor(self, folder: Path, last_seq: int) -> None:
        """In the fork: let go of what is the zygote's, then be the monitor. Does not return."""
        try:
            signal.set_wakeup_fd(-1)
            for owned in (self._listener, self._alarm, self._alarm_other, self._peer):
                if owned is not None:
                    owned.close()
            for fd in self._pidfds.values():
                os.close(fd)
            monitor.main(folder, self._home, last_seq)
        finally:
            os._exit(1)

    # ── reaping ──

    def _reap(self) -> None:
        """Collect every child that has ended; a monitor's end is told when nothing that it left is alive."""
        ended = self._collect()
        spare = self._monitors.keys()
        if any(pid not in spare for pid in children(os.getpid())):
            left = end_tree(lambda: ended.extend(self._collect()), spare, _STRAYS_LIMIT_S)
            if left:
                _log.error("processes %s could not be ended; they are kept in sight", left)
        for run, status in ended:
            self._record(run, status)
            self._exited[run] = status
            self._say(exited=run, status=status)
            _log.info("run %s: its monitor ended with wait status %d", run, status)

    def _collect(self) -> list[tuple[str, int]]:
        ended: list[tuple[str, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            run = self._monitors.pop(pid, None)
            if run is not None:
                del self._pids[run]
                os.close(self._pidfds.pop(run))
                ended.append((run, status))

    def _record(self, run: str, status: int) -> None:
        """Write the exit status down, for the case that nobody asks before this process ends as well."""
        folder = self._folders.pop(run, None)
        if folder is None:
            return
        try:
            (folder / "reaped").write_text(str(status))
        except OSError as error:
            _log.warning("run %s: its exit status cannot be written down: %s", run, error)


def main() -> None:
    """Be the zygote. argv: the listening socket's descriptor, the log's path."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.set_inheritable(False)
    logging.basicConfig(filename=sys.argv[2], level=logging.INFO, format="%(asctime)s %(levelname)s zygote %(message)s")
    os.umask(0o077)
    become_subreaper()
    setproctitle("sparrow: zygote")
    rehearse()
    path = listener.getsockname()
    try:
        Zygote(listener).serve()
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
