"""Starts a supervisor again that has died without meaning to. Part of the zygote, which outlives it."""

from __future__ import annotations

import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn

import msgspec

from sparrow_mp.regular import open_regular
from sparrow_mp.run.tree import become_subreaper

_log = logging.getLogger(__name__)

_FIRST_S = 0.2
_LAST_S = 30.0
_SETTLED_S = 10.0


class Wanted(msgspec.Struct):
    """How the supervisor is to be started again: what it had been started with, before it changed that for itself."""

    argv: list[str]
    log: str
    umask: int
    open_files: int


class Revival:
    """When to start a supervisor again, and how. The pause doubles as long as they die young."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._wanted: Wanted | None = None
        self._pause = _FIRST_S
        self._due: float | None = None
        self._came = 0.0

    def guard(self, wanted: Wanted) -> None:
        """A supervisor is here and wants to be started again should it die."""
        self._wanted = wanted

    def leave(self) -> None:
        """The supervisor means to end."""
        self._wanted = None

    def came(self) -> None:
        """A supervisor has connected."""
        self._due = None
        self._came = time.monotonic()

    def lost(self) -> None:
        """The connection has ended."""
        if self._wanted is None:
            return
        now = time.monotonic()
        if now - self._came > _SETTLED_S:
            self._pause = _FIRST_S
        self._due = now + self._pause
        _log.warning("the supervisor is gone; it is started again in %g s, unless another comes", self._pause)

    @property
    def timeout(self) -> float | None:
        """Seconds until one is to be started; None where that is not so."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def turn(self) -> None:
        """Start one where it is time. Whether it comes up is seen by its connection."""
        if self._due is None or self._wanted is None or time.monotonic() < self._due:
            return
        self._pause = min(_LAST_S, 2 * self._pause)
        self._due = time.monotonic() + max(_SETTLED_S, self._pause)
        try:
            start_detached(partial(_be_supervisor, self._wanted, self._env))
        except OSError as error:
            _log.error("no supervisor can be started: %s", error.strerror)


def start_detached(be: Callable[[], NoReturn]) -> None:
    """Start a process that is nobody's child here, by ``be``, which leads a session of its own. Raises OSError.

    Not below this subreaper, because what that finds below itself and does not know it takes for what a dead monitor has
    left. So it is none for the moment (a millisecond or two) in which the first of two forks ends and the second falls to
    whoever is next, as a rule init.
    """
    become_subreaper(False)
    try:
        pid = os.fork()
        if pid == 0:
            _detach(be)
        os.waitpid(pid, 0)
    finally:
        become_subreaper()


def _detach(be: Callable[[], NoReturn]) -> NoReturn:
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        be()
    finally:
        os._exit(1)


def be_heir(argv: list[str], env: Mapping[str, str]) -> NoReturn:
    """Become another sparrow's zygote."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(argv[0], argv, dict(env))


def _be_supervisor(wanted: Wanted, env: Mapping[str, str]) -> NoReturn:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        log = open_regular(wanted.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for fd, own in ((null, 0), (log, 1), (log, 2)):
            os.dup2(fd, own)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.umask(wanted.umask)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted.open_files, hard), hard))
        os.execvpe(wanted.argv[0], wanted.argv, dict(env))
    finally:
        os._exit(1)
