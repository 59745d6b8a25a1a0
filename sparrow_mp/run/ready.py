"""What every run needs, whichever it is: made by a monitor before it knows which run it will watch over.

The process that will be the engine is forked here, and waits to be told what to be. So a monitor that is made before it is
asked for (a spare one, see the zygote) has nearly all behind it that makes a run's beginning slow.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import msgspec
import zmq
from zmq.backend import Context, Socket

from sparrow_mp.run import cgroup
from sparrow_mp.run.channel import Channel
from sparrow_mp.run.child import Rejected, rehearse_engine, run_engine
from sparrow_mp.run.engines import plain_command
from sparrow_mp.run.stdio import Stdio
from sparrow_mp.run.tree import die_with_parent
from sparrow_mp.wire import RunSpec

_LENGTH = struct.Struct("=Q")


class Part(msgspec.Struct):
    """What the waiting process is told: which run's engine it is, and the cgroup that it enters first."""

    spec: RunSpec
    folder: str
    cgroup: str | None = None


_parts = msgspec.json.Decoder(Part)


class Ready:
    """The monitor's side: the engine's process, what it prints into, and what it is talked to with."""

    def __init__(self, home: Mapping[str, str], *, early: bool = False) -> None:
        """Fork the engine's process. ``home`` is the environment that this interpreter was started with. ``early`` says that
        there is time: then both rehearse what they do first. Raises OSError.
        """
        self._early = early
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.stdio = Stdio()
        ours, theirs = socket.socketpair()
        held_back = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until it means what the engine expects
        monitor = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._wait_as_engine(theirs, monitor, home)
        signal.pthread_sigmask(signal.SIG_SETMASK, held_back)
        theirs.close()
        self.engine_pid = pid
        try:
            os.setpgid(pid, pid)  # both sides do it, so that it holds whoever comes first
        except OSError:
            pass  # it has exec'd already, and so has done it itself
        self.channel = Channel(ours)
        # Not zmq.Context and zmq.Socket: what those add to them in Python is 100 pages of memory for each monitor.
        self.context = Context(io_threads=1)
        Socket(self.context, zmq.PAIR).close(linger=0)  # which starts the context's threads
        if early:
            _rehearse_part()

    def begin(self, spec: RunSpec, folder: Path, leaf: Path | None) -> None:
        """Have the engine begin. One that has died in the meantime is seen to have ended."""
        part = msgspec.json.encode(Part(spec, str(folder), None if leaf is None else str(leaf)))
        try:
            self.channel.socket.sendall(_LENGTH.pack(len(part)) + part)
        except OSError:
            pass
        self.stdio.become_monitors(with_input=spec.stdin == "pipe", most=spec.max_output)

    def dismiss(self) -> None:
        """There will be no run: see the waiting process end."""
        os.kill(self.engine_pid, signal.SIGKILL)  # our child, not reaped yet
        os.waitpid(self.engine_pid, 0)

    def _wait_as_engine(self, end: socket.socket, monitor: int, home: Mapping[str, str]) -> NoReturn:
        """In the engine's process: make it what people expect of one that a shell started, then drive the engine."""
        channel = Channel(end)
        try:
            os.setpgid(0, 0)
            die_with_parent(monitor)  # the zygote ends what a dead monitor leaves; this is for when it is dead as well
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            if self._early:
                _rehearse_part()
                _take_environment({**os.environ, "SPARROW_REHEARSAL": ""})
                rehearse_engine()
            part = _told(end)
            if part is None:
                os._exit(0)
            self._become(part)
        except Rejected as refused:
            channel.send(rejected=refused.reason, code=refused.code)
            os._exit(1)
        except BaseException as error:  # the boundary of a forked process: it must not return into the monitor's code
            channel.send(rejected=f"cannot be started: {type(error).__name__}: {error}", code=None)
            os._exit(1)
        run_engine(part.spec, Path(part.folder), channel, self.wake_fd, home)

    def _become(self, part: Part) -> None:
        spec = part.spec
        if part.cgroup is not None:
            cgroup.enter(Path(part.cgroup))
        os.nice(spec.nice or 0)
        self.stdio.become_engines(with_input=spec.stdin == "pipe")
        if plain_command(spec) is None:  # else it is handed over with the program
            _take_environment(spec.env)
        if spec.umask is not None:
            os.umask(spec.umask)
        if spec.open_files is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(spec.open_files, hard), hard))
        try:
            os.chdir(spec.cwd)
        except OSError as error:
            raise Rejected(f"cannot enter the folder {spec.cwd}: {error.strerror}") from None


def _rehearse_part() -> None:
    """So that the memory that this needs is this process's own by then, and no longer shared with the zygote."""
    spec = RunSpec(run="", task="", engine="", agent="", endpoint="", cwd="/", env=dict(os.environ))
    _parts.decode(msgspec.json.encode(Part(spec, "")))


def _take_environment(env: Mapping[str, str]) -> None:
    """Have these variables and no others; most are as they were, and each that is set anew costs a copy of all."""
    for name in [name for name in os.environ if name not in env]:  # a difference of sets costs 25 pages of memory more
        del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    time.tzset()


def _told(end: socket.socket) -> Part | None:
    """Wait to be told; None where the monitor is gone. Not a byte more is read: what follows is for the engine."""
    length = _exactly(end, _LENGTH.size)
    body = _exactly(end, _LENGTH.unpack(length)[0]) if length else b""
    return _parts.decode(body) if body else None


def _exactly(end: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = end.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return bytes(data)
